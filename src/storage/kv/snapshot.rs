//! The keys of a whole shard at one revision.
//!
//! Each collection's root is one of the copy-on-write trees: taking it copies nothing, and it stays as it
//! was for as long as somebody holds it. The writer meanwhile copies each page that it changes, so a
//! snapshot that is kept for long costs the pages that changed since.

use std::{collections::BTreeMap, ops::Bound};

use super::tree::{Iter, Leaf, Root};

/// The keys of every collection of a shard, as they were after one entry. A clone copies the list of
/// roots and no page.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    revision: u64,
    roots: BTreeMap<u32, Root>,
}

impl ShardSnapshot {
    /// Returns a snapshot of what was applied up to `revision`.
    pub fn new(revision: u64, roots: BTreeMap<u32, Root>) -> Self {
        Self { revision, roots }
    }

    /// Returns the last entry that it has.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the keys of a collection; `None` if the shard had no key index of it.
    pub fn root(&self, collection: u32) -> Option<&Root> {
        self.roots.get(&collection)
    }

    /// Returns where a key's latest record stands.
    pub fn leaf(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        self.root(collection)?.get(key)
    }

    /// Returns a key's version; `None` if it had no value.
    pub fn version(&self, collection: u32, key: &[u8]) -> Option<u64> {
        self.leaf(collection, key).map(|leaf| leaf.version)
    }

    /// Returns the keys of a collection between two bounds.
    pub fn range(&self, collection: u32, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Iter {
        match self.root(collection) {
            Some(root) => root.range(from, to),
            None => Root::default().range(from, to),
        }
    }
}
