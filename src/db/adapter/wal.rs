//! The engine with all its tiers, on one collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use prkdb_types::{
    Isolation,
    adapter::{
        AdapterError, AdapterInfo, Applied, BoxFuture, Change, Commit, KeyRange, LogLimit, ReadSet,
        Revision, Rows, Snapshot, StorageAdapter, Tiers, WriteBatch,
    },
    limits,
    transaction::{Order, RangeRead},
};

use super::{adapted, log::commits};
use crate::{
    db::{Collection, DbError, PrkDb},
    storage::{
        ShardSnapshot,
        kv::tree::Leaf,
        sequencer::{Basis, KeyChange, KeyRead, Transaction, WriteRequest},
    },
};

/// The embedded engine as an adapter, over the collection `default`. Its log is the store.
#[derive(Debug)]
pub struct WalStorage {
    db: PrkDb,
    collection: Collection,
    /// Snapshots that somebody holds: what a read set names by its revision.
    held: Mutex<BTreeMap<Revision, Weak<ShardSnapshot>>>,
}

const INFO: AdapterInfo = AdapterInfo {
    name: "WalStorage",
    tiers: Tiers { log: true, kv: true, txn: true, trim: false },
    is_durable: true,
    has_native_log: true,
    key_bytes_max: limits::MAX_KEY_CEILING,
    value_bytes_max: limits::MAX_VALUE_CEILING,
};

impl WalStorage {
    /// Opens the storage in a directory of its own.
    ///
    /// # Errors
    /// As [`crate::db::Builder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DbError> {
        Self::new(PrkDb::builder().with_data_dir(path).build()?)
    }

    /// Returns the storage of a database.
    ///
    /// # Errors
    /// [`DbError::NoSuchCollection`] where its default collection was dropped.
    pub fn new(db: PrkDb) -> Result<Self, DbError> {
        let collection = db.collection(prkdb_types::CollectionName::DEFAULT)?;
        Ok(Self { db, collection, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Revision, Weak<ShardSnapshot>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a snapshot; of one revision there is one.
    fn take(&self) -> Arc<ShardSnapshot> {
        let mut held = self.held();
        held.retain(|_, snapshot| snapshot.strong_count() > 0);
        let fresh = Arc::new(self.db.shard().snapshot());
        let slot = held.entry(fresh.revision()).or_default();
        match slot.upgrade() {
            Some(known) => known,
            None => {
                *slot = Arc::downgrade(&fresh);
                fresh
            }
        }
    }

    fn request(&self, batch: WriteBatch) -> Result<(WriteRequest, Revision), AdapterError> {
        batch.check(&INFO)?;
        let id = self.collection.id();
        let place =
            |key: &[u8]| self.collection.place(self.collection.partition_of(key)).map_err(adapted);
        let ReadSet { revision, keys, ranges } = batch.read_set.clone().unwrap_or_default();
        let basis = match &batch.read_set {
            None => Basis::Nothing,
            Some(_) => {
                let known = self.held().get(&revision).and_then(Weak::upgrade);
                Basis::Snapshot(known.ok_or(AdapterError::SnapshotGone { revision })?)
            }
        };
        // The later of two changes of a key holds.
        let mut changes = Vec::with_capacity(batch.changes.len());
        let mut seen = BTreeSet::new();
        for Change { key, value } in batch.changes.into_iter().rev() {
            if seen.insert(key.clone()) {
                changes.push(KeyChange { partition: place(&key)?, collection: id, key, value });
            }
        }
        changes.reverse();
        let mut reads = Vec::with_capacity(keys.len());
        for key in keys {
            reads.push(KeyRead { partition: place(&key)?, collection: id, key });
        }
        let range = |(from, to)| RangeRead { collection: id, from, to };
        let transaction = Transaction {
            basis,
            isolation: Isolation::Serializable,
            changes,
            reads,
            ranges: ranges.into_iter().map(range).collect(),
            timestamp_ms: self.db.engine().clock.wall_ms(),
            producers: BTreeMap::new(),
        };
        Ok((WriteRequest::Transaction(Arc::new(transaction)), revision))
    }
}

impl StorageAdapter for WalStorage {
    fn info(&self) -> AdapterInfo {
        INFO
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, AdapterError> {
        let (collection, snapshot) = (self.collection.id(), self.take());
        Ok(Box::new(WalSnapshot { collection, snapshot }))
    }

    fn apply(&self, batch: WriteBatch) -> BoxFuture<'_, Result<Applied, AdapterError>> {
        match self.request(batch) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok((request, since)) => {
                let reply = self.db.write(request, |done| Applied { revision: done.revision });
                Box::pin(async move {
                    reply.await.map_err(|error| match error {
                        DbError::ConflictDetected { key, .. } => {
                            AdapterError::Conflict { key, revision: since }
                        }
                        error if error.is_conflict() => {
                            AdapterError::SnapshotGone { revision: since }
                        }
                        error => adapted(error),
                    })
                })
            }
        }
    }

    fn log(&self, from: Revision, limit: LogLimit) -> Result<Vec<Commit>, AdapterError> {
        commits(&self.db, &self.collection, from, limit)
    }

    fn trim_log(&self, _before: Revision) -> Result<(), AdapterError> {
        Err(AdapterError::unsupported(&INFO, "trimming"))
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>> {
        let reply = self.db.sync();
        Box::pin(async move { reply.await.map_err(adapted) })
    }
}

struct WalSnapshot {
    collection: u32,
    snapshot: Arc<ShardSnapshot>,
}

impl Snapshot for WalSnapshot {
    fn revision(&self) -> Revision {
        self.snapshot.revision()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, AdapterError> {
        let Some(leaf) = self.snapshot.leaf(self.collection, key) else { return Ok(None) };
        let found = self.snapshot.value(leaf).map_err(|error| adapted(error.into()))?;
        Ok(Some(found.value))
    }

    fn scan(&self, (from, to): KeyRange, order: Order) -> Rows<'_> {
        let (from, to) = (from.as_ref().map(Bytes::as_ref), to.as_ref().map(Bytes::as_ref));
        let mut rest = self.snapshot.range(self.collection, from, to);
        let mut values = self.snapshot.values();
        Box::new(std::iter::from_fn(move || {
            let (key, leaf): (Vec<u8>, Leaf) = match order {
                Order::Forward => rest.next()?,
                Order::Reverse => rest.next_back()?,
            };
            let found = values.read(leaf).map_err(|error| adapted(error.into()));
            Some(found.map(|found| (key.into(), found.value)))
        }))
    }
}
