//! A transaction: it reads one snapshot and its own writes, and is committed as one entry.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;
use prkdb_types::{
    CollectionName, Isolation,
    transaction::{Buffer, Order, RangeRead, Source},
};

use super::{
    Collection, DbError, PrkDb, Reply, catalog,
    engine::ENTRY_BYTES_MAX,
    kv::{checked_key, checked_value},
};
use crate::storage::{
    ShardSnapshot,
    kv::tree::Leaf,
    sequencer::{self, Basis, KeyChange, KeyRead, WriteRequest},
};

/// How a transaction is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// What it is kept from seeing. Default [`Isolation::Snapshot`].
    pub isolation: Isolation,
    /// How long it may be open; looked at when it commits. Default 60 s.
    pub timeout: Duration,
    /// Most bytes of its writes. Default, and at most, the largest entry: 64 MiB.
    pub bytes_max: usize,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::Snapshot,
            timeout: Duration::from_secs(60),
            bytes_max: usize::try_from(ENTRY_BYTES_MAX).unwrap_or(usize::MAX),
        }
    }
}

/// A transaction under way. Dropped without a commit, nothing of it was ever there.
///
/// Reads look into the log when they are called, which may wait for the disk.
#[derive(Debug)]
pub struct Transaction {
    db: PrkDb,
    snapshot: Arc<ShardSnapshot>,
    default: Collection,
    /// The collections it wrote to or read, by id.
    used: BTreeMap<u32, Collection>,
    buffer: Buffer<u32>,
    began: Duration,
    timeout: Duration,
}

impl Transaction {
    pub(super) fn new(db: PrkDb, config: TransactionConfig) -> Self {
        let snapshot = Arc::new(db.shard().snapshot());
        let default = catalog::default_of(&db);
        let began = db.engine().clock.monotonic();
        let entry_bytes = usize::try_from(ENTRY_BYTES_MAX).unwrap_or(usize::MAX);
        let buffer = Buffer::new(config.isolation, config.bytes_max.min(entry_bytes));
        Self {
            db,
            snapshot,
            default,
            used: BTreeMap::new(),
            buffer,
            began,
            timeout: config.timeout,
        }
    }

    /// Returns the revision of its snapshot.
    pub fn revision(&self) -> u64 {
        self.snapshot.revision()
    }

    /// Returns what it is kept from seeing.
    pub fn isolation(&self) -> Isolation {
        self.buffer.isolation()
    }

    /// Reads a key of the collection `default`.
    ///
    /// # Errors
    /// [`DbError::Storage`] where it cannot be read; [`DbError::Transaction`] at a limit.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, DbError> {
        let collection = self.default.clone();
        self.get_in(&collection, key)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn get_in(
        &mut self,
        collection: &Collection,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Bytes>, DbError> {
        let key = key.as_ref();
        self.use_in(collection)?;
        if let Some(written) = self.buffer.get(&collection.id(), key) {
            // The clone counts a reference.
            return Ok(written.cloned());
        }
        self.buffer.note_read(collection.id(), Bytes::copy_from_slice(key))?;
        match self.snapshot.leaf(collection.id(), key) {
            Some(leaf) => Ok(Some(self.snapshot.value(leaf)?.value)),
            None => Ok(None),
        }
    }

    /// Reads keys of a collection between two bounds, in order, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn scan_in(
        &mut self,
        collection: &Collection,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, DbError> {
        self.use_in(collection)?;
        let id = collection.id();
        let mut rest = self.snapshot.range(id, from, to);
        let base = std::iter::from_fn(move || match order {
            Order::Forward => rest.next(),
            Order::Reverse => rest.next_back(),
        });
        let base = base.map(|(key, leaf): (Vec<u8>, Leaf)| (Bytes::from(key), leaf));
        let mut values = self.snapshot.values();
        let mut rows = Vec::new();
        for (key, source) in self.buffer.merge(&id, (from, to), order, base).take(limit) {
            let value = match source {
                Source::Written(value) => value,
                Source::Base(leaf) => values.read(leaf)?.value,
            };
            rows.push((key, value));
        }
        // Behind the last row of a full page nothing was read.
        let last = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
        let owned = |bound: Bound<&[u8]>| bound.map(Bytes::copy_from_slice);
        let (from, to) = match (last, order) {
            (Some(last), Order::Forward) => (owned(from), Bound::Included(last)),
            (Some(last), Order::Reverse) => (Bound::Included(last), owned(to)),
            (None, _) => (owned(from), owned(to)),
        };
        self.buffer.note_range(RangeRead { collection: id, from, to })?;
        Ok(rows)
    }

    /// Writes a value to the collection `default`.
    ///
    /// # Errors
    /// `KeyEmpty`, `KeyTooLarge`, `ValueTooLarge`; [`DbError::Transaction`] at a limit.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), DbError> {
        let collection = self.default.clone();
        self.put_in(&collection, key, value)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_in(
        &mut self,
        collection: &Collection,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), DbError> {
        let (key, value) = (key.into(), value.into());
        checked_key(&key)?;
        checked_value(&value)?;
        self.use_in(collection)?;
        Ok(self.buffer.put(collection.id(), key, value)?)
    }

    /// Takes the value of a key of the collection `default` away.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<(), DbError> {
        let collection = self.default.clone();
        self.delete_in(&collection, key)
    }

    /// Takes the value of a key away.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete_in(
        &mut self,
        collection: &Collection,
        key: impl Into<Bytes>,
    ) -> Result<(), DbError> {
        let key = key.into();
        checked_key(&key)?;
        self.use_in(collection)?;
        Ok(self.buffer.delete(collection.id(), key)?)
    }

    /// Sets a mark that the transaction can go back to.
    ///
    /// # Errors
    /// [`DbError::Transaction`] at a limit.
    pub fn savepoint(&mut self, name: &str) -> Result<(), DbError> {
        Ok(self.buffer.savepoint(name)?)
    }

    /// Undoes what was written since a mark. The mark stays; marks set after it go.
    ///
    /// # Errors
    /// [`DbError::Transaction`] where there is none of that name.
    pub fn rollback_to_savepoint(&mut self, name: &str) -> Result<(), DbError> {
        Ok(self.buffer.rollback_to(name)?)
    }

    /// Forgets a mark and those set after it; what was written stays.
    ///
    /// # Errors
    /// As [`Transaction::rollback_to_savepoint`].
    pub fn release_savepoint(&mut self, name: &str) -> Result<(), DbError> {
        Ok(self.buffer.release(name)?)
    }

    /// Ends it: nothing of it is applied.
    pub fn rollback(self) {
        drop(self);
    }

    /// Commits it, and answers with the revision at which all of it is applied. One that wrote nothing
    /// read one snapshot, and is answered with that.
    ///
    /// Cancel safety: it is on its way when this returns; dropped, it is applied as a whole or not at all.
    ///
    /// # Errors
    /// [`DbError::ConflictDetected`], and `SnapshotGone`, where it is to be run again;
    /// [`DbError::TransactionTimeout`]; `MessageTooLarge` where it does not fit into an entry.
    pub fn commit(self) -> Reply<u64> {
        let open_for = self.db.engine().clock.monotonic().saturating_sub(self.began);
        if open_for > self.timeout {
            return Reply::ready(Err(DbError::TransactionTimeout { limit: self.timeout }));
        }
        if self.buffer.is_empty() {
            return Reply::ready(Ok(self.snapshot.revision()));
        }
        match self.request() {
            Ok(request) => self.db.write(request, |done| done.revision),
            Err(error) => Reply::ready(Err(error)),
        }
    }

    fn request(&self) -> Result<WriteRequest, DbError> {
        let place = |collection: u32, key: &[u8]| {
            let Some(collection) = self.used.get(&collection) else {
                return Err(DbError::NoSuchCollection { name: collection.to_string() });
            };
            collection.place(collection.partition_of(key))
        };
        let mut changes = Vec::with_capacity(self.buffer.len());
        for (collection, key, value) in self.buffer.writes() {
            changes.push(KeyChange {
                partition: place(*collection, key)?,
                collection: *collection,
                // The clones count references.
                key: key.clone(),
                value: value.cloned(),
            });
        }
        let mut reads = Vec::new();
        for (collection, keys) in &self.buffer.reads().keys {
            for key in keys {
                let partition = place(*collection, key)?;
                reads.push(KeyRead { partition, collection: *collection, key: key.clone() });
            }
        }
        Ok(WriteRequest::Transaction(Arc::new(sequencer::Transaction {
            basis: Basis::Snapshot(Arc::clone(&self.snapshot)),
            isolation: self.buffer.isolation(),
            changes,
            reads,
            ranges: self.buffer.reads().ranges.clone(),
            timestamp_ms: self.db.engine().clock.wall_ms(),
            producers: BTreeMap::new(),
        })))
    }

    fn use_in(&mut self, collection: &Collection) -> Result<(), DbError> {
        if self.used.contains_key(&collection.id()) {
            return Ok(());
        }
        collection.check_keyed()?;
        if collection.name() == CollectionName::DEFAULT && collection.id() == u32::MAX {
            return Err(DbError::NoSuchCollection { name: collection.name().to_owned() });
        }
        self.used.insert(collection.id(), collection.clone());
        Ok(())
    }
}
