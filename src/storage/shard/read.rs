//! What readers see of a shard's keys: the newest root, and the records its leaves point at.

use std::{ops::Bound, sync::atomic::Ordering};

use bytes::Bytes;

use super::Shard;
use crate::storage::{
    StorageError,
    bug::bug,
    kv::{
        range::KeyRange,
        snapshot::ShardSnapshot,
        state::Expired,
        tree::{Leaf, Root},
    },
    log::PinnedSegments,
    values::{self, ValueReader},
};

/// After a read, so many groups of entries are shown to readers without their asking.
const GROUPS_WITH_READERS: u32 = 256;

/// A key's latest record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its value.
    pub value: Bytes,
    /// Its offset.
    pub version: u64,
    /// Its partition, as in frames.
    pub partition: u32,
    /// The producer's time.
    pub timestamp_ms: i64,
    /// From this time of the log on the key has no value; [`NEVER`](super::kv::tree::NEVER).
    pub expires_ms: i64,
}

/// The keys of a collection at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The keys; some may be expired.
    root: Root,
    /// The revision.
    pub revision: u64,
    /// The log's time there.
    pub log_time_ms: i64,
    has_expired: bool,
    /// What the keys point at stays there while somebody may ask for it.
    segments: PinnedSegments,
}

impl Snapshot {
    /// Returns the keys between two bounds.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> KeyRange {
        let keys = self.root.range(from, to);
        if self.has_expired {
            KeyRange::live(keys, self.log_time_ms)
        } else {
            KeyRange::every(keys)
        }
    }

    /// Returns a reader of what its keys point at.
    pub fn values(&self) -> ValueReader {
        ValueReader::new(&self.segments)
    }

    /// Returns the keys from a bound on, those that are expired too.
    pub(super) fn every(&self, from: Bound<&[u8]>) -> KeyRange {
        KeyRange::every(self.root.range(from, Bound::Unbounded))
    }
}

impl Shard {
    /// Reads the latest record of a key.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn get(&self, collection: u32, key: &[u8]) -> Result<Option<Found>, StorageError> {
        let Some(leaf) = self.leaf(collection, key) else { return Ok(None) };
        self.leaf_value(leaf).map(Some)
    }

    /// Returns where the latest record of a key stands, unless it is expired.
    pub fn leaf(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        // The time first: a value that was put in the place of an expired one is then seen.
        let log_time_ms = self.log_time_ms();
        let leaf = self.with_root(collection, |root| root.get(key))??;
        (!leaf.is_expired(log_time_ms) || bug!(ExpiryNotRead)).then_some(leaf)
    }

    /// Returns the log's time as applied.
    pub fn log_time_ms(&self) -> i64 {
        self.log_time_ms.load(Ordering::Acquire)
    }

    /// Returns when the next key expires.
    pub fn next_expiry_ms(&self) -> Option<i64> {
        self.state().next_expiry_ms()
    }

    /// As [`State::expired`].
    pub fn expired(&self, time_ms: i64, keys_max: usize, bytes_max: usize) -> Option<Expired> {
        self.state().expired(time_ms, keys_max, bytes_max)
    }

    /// Looks at the newest root of a collection; `None` if it has no key index here.
    fn with_root<T>(&self, collection: u32, look: impl FnOnce(&Root) -> T) -> Option<T> {
        // Readers that come again and again write no shared memory.
        if self.groups_with_readers.load(Ordering::Relaxed) < GROUPS_WITH_READERS / 2 {
            self.groups_with_readers.store(GROUPS_WITH_READERS, Ordering::Relaxed);
        }
        let roots = self.roots.load();
        let published = roots.get(&collection)?.load();
        if let Some(root) = &*published {
            return Some(look(root));
        }
        // Nobody had read for long. What was acknowledged is applied, so it is in this one.
        let root = self.state().show(collection)?;
        Some(look(&root))
    }

    /// Reads the record at a leaf. It stays readable: nothing written is overwritten.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn leaf_value(&self, leaf: Leaf) -> Result<Found, StorageError> {
        self.segments.with(leaf.segment.into(), |segment| values::read(segment, leaf))
    }

    /// Reads the record at a leaf, with its headers.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn record(&self, leaf: Leaf) -> Result<(Found, Vec<(String, Bytes)>), StorageError> {
        self.segments.with(leaf.segment.into(), |segment| values::read_with_headers(segment, leaf))
    }

    /// Returns the index of the last entry applied; 0 if there is none.
    pub fn revision(&self) -> u64 {
        self.state().applied().map_or(0, |id| id.index)
    }

    /// Returns the keys of all collections as they are now.
    pub fn snapshot(&self) -> ShardSnapshot {
        let state = self.state();
        state.snapshot(self.segments.pinned())
    }

    /// Returns the keys of a collection as they are now; `None` if it has no key index here.
    pub fn scan(&self, collection: u32) -> Option<Snapshot> {
        let mut state = self.state();
        let root = Root::clone(state.show(collection)?.as_ref());
        let revision = state.applied().map_or(0, |id| id.index);
        let (log_time_ms, has_expired) = (state.log_time_ms(), state.has_expired(collection));
        let segments = self.segments.pinned();
        Some(Snapshot { root, revision, log_time_ms, has_expired, segments })
    }
}
