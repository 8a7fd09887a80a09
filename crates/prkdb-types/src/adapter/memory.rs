//! The reference: everything in memory, nothing durable.

use std::{
    collections::{BTreeMap, VecDeque},
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    AdapterError, AdapterInfo, Applied, BoxFuture, Change, Commit, KeyRange, LogLimit, ReadSet,
    Revision, Rows, Snapshot, StorageAdapter, Tiers, WriteBatch, contains, is_empty,
};
use crate::{limits, transaction::Order};

type Keys = BTreeMap<Bytes, Bytes>;

/// An adapter that keeps everything in memory, the log too until it is trimmed.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    /// Copied when a batch comes while a snapshot holds it.
    keys: Arc<Keys>,
    log: VecDeque<Commit>,
    /// Commits up to this one were let go.
    trimmed: Revision,
}

struct MemorySnapshot {
    revision: Revision,
    keys: Arc<Keys>,
}

const INFO: AdapterInfo = AdapterInfo {
    name: "MemoryStorage",
    tiers: Tiers { log: true, kv: true, txn: true, trim: true },
    is_durable: false,
    has_native_log: false,
    key_bytes_max: limits::MAX_KEY_CEILING,
    value_bytes_max: limits::MAX_VALUE_CEILING,
};

impl MemoryStorage {
    /// Returns an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_now(&self, batch: WriteBatch) -> Result<Applied, AdapterError> {
        batch.check(&INFO)?;
        let mut state = self.state();
        if let Some(read_set) = &batch.read_set {
            state.check(read_set, &batch.changes)?;
        }
        state.revision += 1;
        let keys = Arc::make_mut(&mut state.keys);
        for Change { key, value } in &batch.changes {
            // The clones count references.
            match value {
                Some(value) => keys.insert(key.clone(), value.clone()),
                None => keys.remove(key),
            };
        }
        let revision = state.revision;
        state.log.push_back(Commit { revision, changes: batch.changes });
        Ok(Applied { revision })
    }
}

impl State {
    fn check(&self, read_set: &ReadSet, changes: &[Change]) -> Result<(), AdapterError> {
        let ReadSet { revision, keys, ranges } = read_set;
        if *revision < self.trimmed {
            return Err(AdapterError::SnapshotGone { revision: *revision });
        }
        let is_read = |key: &Bytes| {
            keys.contains(key)
                || changes.iter().any(|change| change.key == key)
                || ranges.iter().any(|range| contains(range, key))
        };
        let later = self.log.iter().filter(|commit| commit.revision > *revision);
        let mut written = later.flat_map(|commit| &commit.changes).map(|change| &change.key);
        match written.find(|key| is_read(key)) {
            Some(key) => Err(AdapterError::Conflict { key: key.clone(), revision: *revision }),
            None => Ok(()),
        }
    }
}

impl StorageAdapter for MemoryStorage {
    fn info(&self) -> AdapterInfo {
        INFO
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, AdapterError> {
        let state = self.state();
        Ok(Box::new(MemorySnapshot { revision: state.revision, keys: Arc::clone(&state.keys) }))
    }

    fn apply(&self, batch: WriteBatch) -> BoxFuture<'_, Result<Applied, AdapterError>> {
        Box::pin(ready(self.apply_now(batch)))
    }

    fn log(&self, from: Revision, limit: LogLimit) -> Result<Vec<Commit>, AdapterError> {
        let state = self.state();
        if from <= state.trimmed && state.trimmed > 0 {
            return Err(AdapterError::Compacted { oldest: state.trimmed + 1 });
        }
        let mut commits = Vec::new();
        let mut bytes = 0;
        for commit in state.log.iter().filter(|commit| commit.revision >= from) {
            let has_room = commits.len() < limit.commits && bytes < limit.bytes;
            if !commits.is_empty() && !has_room {
                break;
            }
            let changes = commit.changes.iter();
            let len =
                |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
            bytes += changes.map(len).sum::<usize>();
            commits.push(commit.clone());
        }
        Ok(commits)
    }

    fn trim_log(&self, before: Revision) -> Result<(), AdapterError> {
        let mut state = self.state();
        while let Some(first) = state.log.front().filter(|commit| commit.revision < before) {
            state.trimmed = first.revision;
            state.log.pop_front();
        }
        Ok(())
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>> {
        Box::pin(ready(Ok(())))
    }
}

impl Snapshot for MemorySnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, AdapterError> {
        Ok(self.keys.get(key).cloned())
    }

    fn scan(&self, range: KeyRange, order: Order) -> Rows<'_> {
        if is_empty(&range) {
            return Box::new(std::iter::empty());
        }
        let row = |(key, value): (&Bytes, &Bytes)| Ok((key.clone(), value.clone()));
        let rows = self.keys.range(range);
        match order {
            Order::Forward => Box::new(rows.map(row)),
            Order::Reverse => Box::new(rows.rev().map(row)),
        }
    }
}
