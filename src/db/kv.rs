//! Keys and values of one collection, byte for byte.

use std::{ops::Bound, time::Duration};

use bytes::Bytes;
use prkdb_types::{headers::Ttl, limits, transaction::Order};

use super::{
    Collection, DbError, PrkDb, Reply,
    engine::{Done, refused},
};
use crate::storage::{
    Found, KeyRange, ValueReader,
    kv::tree::{Leaf, NEVER},
    sequencer::{Condition, Refusal, WriteRequest, check_key, check_value},
};

/// Longest key.
pub(super) const KEY_BYTES_MAX: usize = limits::MAX_KEY_CEILING;
/// Longest value.
pub(super) const VALUE_BYTES_MAX: usize = limits::MAX_VALUE_CEILING;

/// So often a key's record is written once more that is written to meanwhile.
const RENEWALS_MAX: usize = 16;

/// The keys of one collection. A clone is another handle.
#[derive(Clone, Debug)]
pub struct Kv {
    db: PrkDb,
    collection: Collection,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub value: Bytes,
    /// The offset of the record that holds it.
    pub version: u64,
    /// The number of its partition.
    pub partition: u32,
    /// When it was written, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// From when on it is gone, in milliseconds since 1970 by the log's time; `None` if it stays.
    pub expires_ms: Option<i64>,
}

/// A write that is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of the partition.
    pub partition: u32,
    /// The record's offset, which is the key's version; 0 for a delete that found nothing.
    pub offset: u64,
    /// The entry of the log that holds it.
    pub revision: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub append_time_ms: i64,
    /// Whether the key had a value before.
    pub existed: bool,
}

pub(super) fn invalid(refusal: Refusal) -> DbError {
    refused(refusal.code, refusal.message)
}

pub(super) fn checked_key(key: &Bytes) -> Result<(), DbError> {
    check_key(key, KEY_BYTES_MAX).map_err(invalid)
}

pub(super) fn checked_value(value: &Bytes) -> Result<(), DbError> {
    check_value(value, VALUE_BYTES_MAX).map_err(invalid)
}

impl Kv {
    pub(super) fn new(db: PrkDb, collection: Collection) -> Self {
        Self { db, collection }
    }

    /// Returns the collection.
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Stores a value.
    ///
    /// # Errors
    /// `KeyEmpty`, `KeyTooLarge`, `ValueTooLarge`; `IndexMemory` and `DiskFull` where there is no room.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Reply<Written> {
        self.put_if(key.into(), value.into(), Condition::None, None)
    }

    /// Stores a value that is gone after a while, which begins when it is accepted. Without this call a
    /// value lasts as long as its collection says.
    ///
    /// # Errors
    /// As [`Kv::put`].
    pub fn put_with_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Reply<Written> {
        self.put_if(key.into(), value.into(), Condition::None, Some(Ttl::of(ttl)))
    }

    /// Stores a value if the key has none.
    ///
    /// # Errors
    /// As [`Kv::put`], and `VersionMismatch`.
    pub fn put_if_absent(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Reply<Written> {
        self.put_if(key.into(), value.into(), Condition::IfAbsent, None)
    }

    /// Stores a value if the key's latest record has this offset.
    ///
    /// # Errors
    /// As [`Kv::put_if_absent`].
    pub fn put_if_version(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        version: u64,
    ) -> Reply<Written> {
        self.put_if(key.into(), value.into(), Condition::IfVersion(version), None)
    }

    fn put_if(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        ttl: Option<Ttl>,
    ) -> Reply<Written> {
        let checked = checked_key(&key).and_then(|()| checked_value(&value));
        match checked.and_then(|()| self.place(&key)) {
            Ok((number, partition)) => {
                let request = WriteRequest::Put {
                    partition,
                    collection: self.collection.id(),
                    key,
                    value,
                    timestamp_ms: self.db.engine().clock.wall_ms(),
                    producer: None,
                    condition,
                    ttl,
                    headers: Vec::new(),
                };
                self.db.write(request, move |done| written(number, done))
            }
            Err(error) => Reply::ready(Err(error)),
        }
    }

    /// Returns how much longer a key's value lasts; `None` if it stays, or there is none.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Reply<Option<Duration>> {
        let left = self.collection.check_keyed().map(|()| {
            let shard = self.db.shard();
            let leaf = shard.leaf(self.collection.id(), key.as_ref())?;
            let expires_ms = Some(leaf.expires_ms).filter(|at| *at != NEVER)?;
            let now_ms = shard.log_time_ms().max(self.db.engine().clock.wall_ms());
            let left_ms = expires_ms.saturating_sub(now_ms);
            Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or_default()))
        });
        Reply::ready(left)
    }

    /// Lets a key's value be gone after a while, which begins when this is accepted. Returns whether there
    /// is a value. Its version changes: it is written once more. Whoever waits for the reply calls again where
    /// the key was written to meanwhile: dropped, it may have changed nothing.
    ///
    /// # Errors
    /// As [`Kv::put`]; `VersionMismatch` where the key is written to all the time.
    pub fn expire(&self, key: impl Into<Bytes>, ttl: Duration) -> Reply<bool> {
        self.renew(key.into(), Ttl::of(ttl))
    }

    /// Lets a key's value stay. Returns whether it would have been gone.
    ///
    /// # Errors
    /// As [`Kv::expire`].
    pub fn persist(&self, key: impl Into<Bytes>) -> Reply<bool> {
        self.renew(key.into(), Ttl::Never)
    }

    fn renew(&self, key: Bytes, ttl: Ttl) -> Reply<bool> {
        let kv = self.clone();
        Reply::trying(RENEWALS_MAX - 1, move || {
            kv.renewal(&key, ttl).map_or_else(
                |error| Reply::ready(Err(error)),
                |request| match request {
                    Some(request) => kv.db.write(request, |_| true),
                    None => Reply::ready(Ok(false)),
                },
            )
        })
    }

    /// Returns what writes a key's record once more, but for how long it lasts, unless it was written to
    /// meanwhile; `None` where nothing would change.
    fn renewal(&self, key: &Bytes, ttl: Ttl) -> Result<Option<WriteRequest>, DbError> {
        checked_key(key)?;
        let (_, partition) = self.place(key)?;
        let (shard, collection) = (self.db.shard(), self.collection.id());
        let Some(leaf) = shard.leaf(collection, key) else { return Ok(None) };
        if ttl == Ttl::Never && leaf.expires_ms == NEVER {
            return Ok(None);
        }
        // The clone counts a reference.
        Ok(Some(shard.renewal((partition, collection), key.clone(), leaf, ttl)?))
    }

    /// Takes a key's value away. A key without one is left alone: `existed` is false then.
    ///
    /// # Errors
    /// As [`Kv::put`].
    pub fn delete(&self, key: impl Into<Bytes>) -> Reply<Written> {
        self.delete_if(key.into(), Condition::None)
    }

    /// Takes a key's value away if its latest record has this offset.
    ///
    /// # Errors
    /// As [`Kv::put_if_absent`].
    pub fn delete_if_version(&self, key: impl Into<Bytes>, version: u64) -> Reply<Written> {
        self.delete_if(key.into(), Condition::IfVersion(version))
    }

    fn delete_if(&self, key: Bytes, condition: Condition) -> Reply<Written> {
        match checked_key(&key).and_then(|()| self.place(&key)) {
            Ok((number, partition)) => {
                let request = WriteRequest::Delete {
                    partition,
                    collection: self.collection.id(),
                    key,
                    timestamp_ms: self.db.engine().clock.wall_ms(),
                    producer: None,
                    condition,
                };
                self.db.write(request, move |done| written(number, done))
            }
            Err(error) => Reply::ready(Err(error)),
        }
    }

    /// Reads the latest value of a key. It is read from the log when this is called, which may wait for
    /// the disk.
    ///
    /// # Errors
    /// [`DbError::Storage`] where it cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Reply<Option<Value>> {
        let found = self.collection.check_keyed().and_then(|()| {
            let found = self.db.shard().get(self.collection.id(), key.as_ref())?;
            Ok(found.map(|found| value(&self.collection, found)))
        });
        Reply::ready(found)
    }

    /// Reads keys between two bounds, in order, as they are now. Values are read from the log as they
    /// are asked for.
    ///
    /// # Errors
    /// [`DbError::NoSuchCollection`] where the collection was dropped.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        order: Order,
    ) -> Result<Scan, DbError> {
        self.collection.check_keyed()?;
        let snapshot =
            self.db.shard().scan(self.collection.id()).ok_or_else(|| {
                DbError::NoSuchCollection { name: self.collection.name().to_owned() }
            })?;
        Ok(Scan {
            rest: snapshot.range(from, to),
            order,
            values: snapshot.values(),
            collection: self.collection.clone(),
        })
    }

    /// Returns how many keys have a value; one that has expired may count for about a second.
    pub fn count(&self) -> u64 {
        self.db.shard().keys(self.collection.id())
    }

    fn place(&self, key: &[u8]) -> Result<(u32, u32), DbError> {
        self.collection.check_keyed()?;
        let number = self.collection.partition_of(key);
        Ok((number, self.collection.place(number)?))
    }
}

/// Keys of one moment, in order.
#[derive(Debug)]
pub struct Scan {
    rest: KeyRange,
    order: Order,
    values: ValueReader,
    collection: Collection,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Value), DbError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, leaf): (Vec<u8>, Leaf) = match self.order {
            Order::Forward => self.rest.next()?,
            Order::Reverse => self.rest.next_back()?,
        };
        let found = self.values.read(leaf).map_err(DbError::from);
        Some(found.map(|found| (key.into(), value(&self.collection, found))))
    }
}

fn value(collection: &Collection, found: Found) -> Value {
    Value {
        value: found.value,
        version: found.version,
        partition: collection.number(found.partition),
        timestamp_ms: found.timestamp_ms,
        expires_ms: Some(found.expires_ms).filter(|at| *at != NEVER),
    }
}

fn written(partition: u32, done: Done) -> Written {
    Written {
        partition,
        offset: done.frame.map_or(0, |frame| frame.base_offset),
        revision: done.revision,
        append_time_ms: done.append_time_ms,
        existed: done.frame.is_some_and(|frame| frame.replaced.is_some()),
    }
}
