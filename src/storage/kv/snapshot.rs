//! The keys of a whole shard at one revision.
//!
//! Each collection's root is one of the copy-on-write trees: taking it copies nothing, and it stays as it
//! was for as long as somebody holds it. The writer meanwhile copies each page that it changes, so a
//! snapshot that is kept for long costs the pages that changed since. What its keys point at stays readable
//! too, whatever is cleaned meanwhile.
//!
//! A key that is expired by the log's time at the revision has no value in it.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    range::KeyRange,
    tree::{Leaf, Root},
};
use crate::storage::{Found, StorageError, ValueReader, log::PinnedSegments, values};

/// The keys of every collection of a shard, as they were after one entry. A clone copies the list of
/// roots and no page.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    revision: u64,
    log_time_ms: i64,
    roots: BTreeMap<u32, Root>,
    segments: PinnedSegments,
}

impl ShardSnapshot {
    /// Returns a snapshot of what was applied up to `revision`, at a time of the log.
    pub(in crate::storage) fn new(
        revision: u64,
        log_time_ms: i64,
        roots: BTreeMap<u32, Root>,
        segments: PinnedSegments,
    ) -> Self {
        Self { revision, log_time_ms, roots, segments }
    }

    /// Returns the last entry that it has.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the log's time there.
    pub fn log_time_ms(&self) -> i64 {
        self.log_time_ms
    }

    /// Returns the keys of a collection, those that are expired too; `None` if the shard had no key index
    /// of it.
    pub(in crate::storage) fn root(&self, collection: u32) -> Option<&Root> {
        self.roots.get(&collection)
    }

    /// Returns where a key's latest record stands, even if it is expired.
    pub(in crate::storage) fn latest(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        self.root(collection)?.get(key)
    }

    /// Returns where a key's latest record stands, unless it is expired.
    pub fn leaf(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        self.latest(collection, key).filter(|leaf| !leaf.is_expired(self.log_time_ms))
    }

    /// Returns a key's version; `None` if it had no value.
    pub fn version(&self, collection: u32, key: &[u8]) -> Option<u64> {
        self.leaf(collection, key).map(|leaf| leaf.version)
    }

    /// Reads the record at a leaf of one of its keys.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn value(&self, leaf: Leaf) -> Result<Found, StorageError> {
        values::read(self.segments.get(leaf.segment.into()).as_deref(), leaf)
    }

    /// Returns a reader of what its keys point at.
    pub fn values(&self) -> ValueReader {
        ValueReader::new(&self.segments)
    }

    /// Returns the keys of a collection between two bounds.
    pub fn range(&self, collection: u32, from: Bound<&[u8]>, to: Bound<&[u8]>) -> KeyRange {
        let none = Root::default();
        let root = self.root(collection).unwrap_or(&none);
        KeyRange::live(root.range(from, to), self.log_time_ms)
    }
}
