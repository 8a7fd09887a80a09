//! A copy-on-write ordered tree in memory: keys to places in the log.
//!
//! One writer changes the [`Tree`]; whoever holds a [`Root`] has the tree as it was when the root was
//! taken, without a lock and for as long as it likes. Taking a root copies nothing: the writer copies
//! a page the first time it changes it while a root still holds it, and changes it in place after
//! that. Many changes between two roots therefore cost one copy of each page they touch.
//!
//! It is a B+ tree of pages of up to 127 entries, a few KiB each. A page keeps its keys in one buffer
//! with their common prefix cut off, and compares four bytes of each key as a number before it looks
//! at the rest. Inner pages know how many entries lie below each child, so a range knows its length
//! before it is read.
//!
//! This file owns the writer's and the reader's handle; pages and their keys are its children. It
//! knows nothing of records, collections or the log.

mod build;
mod difference;
mod iter;
mod keys;
mod leaves;
mod page;
#[cfg(test)]
mod tests;

use std::ops::Bound;

use prkdb_types::limits;

use self::page::Page;
pub use self::{build::Builder, iter::Iter};

/// For a key that does not expire.
pub const NEVER: i64 = i64::MAX;

/// Where the latest record of a key stands, and until when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// The segment, by its number in the shard's list.
    pub segment: u32,
    /// The byte in the segment at which its batch begins.
    pub position: u32,
    /// Where it begins among the batch's records, decompressed.
    pub start: u32,
    /// Its partition, as in frames.
    pub partition: u32,
    /// Its offset in the partition.
    pub version: u64,
    /// From this time of the log on the key has no value; [`NEVER`].
    pub expires_ms: i64,
}

impl Leaf {
    /// Returns whether the key has no value any more at a time of the log.
    pub fn is_expired(&self, log_time_ms: i64) -> bool {
        self.expires_ms <= log_time_ms
    }
}

/// The writer's handle. There is one.
///
/// ```
/// use prkdb::storage::kv::tree::{Leaf, NEVER, Tree};
///
/// let leaf = |version| {
///     Leaf { segment: 1, position: 0, start: 0, partition: 0, version, expires_ms: NEVER }
/// };
/// let mut tree = Tree::new();
/// tree.insert(b"key", leaf(1));
/// let before = tree.root();
/// assert_eq!(tree.insert(b"key", leaf(2)), Some(leaf(1)));
/// assert_eq!(before.get(b"key"), Some(leaf(1)));
/// assert_eq!(tree.get(b"key"), Some(leaf(2)));
/// ```
#[derive(Debug)]
pub struct Tree {
    root: Root,
    bytes: usize,
}

/// The tree as it was at one moment. A clone counts a reference.
#[derive(Clone, Debug, Default)]
pub struct Root {
    page: Page,
    len: usize,
}

impl Tree {
    /// Returns an empty tree.
    pub fn new() -> Self {
        let root = Root::default();
        let bytes = root.page.bytes();
        Self { root, bytes }
    }

    /// Returns where a key's latest record stands.
    pub fn get(&self, key: &[u8]) -> Option<Leaf> {
        self.root.get(key)
    }

    /// Sets a key's place and returns the one before.
    ///
    /// # Panics
    /// If the key is longer than [`limits::MAX_KEY_CEILING`], which is refused before the log.
    pub fn insert(&mut self, key: &[u8], leaf: Leaf) -> Option<Leaf> {
        assert!(key.len() <= limits::MAX_KEY_CEILING, "keys that are too long are refused");
        let (before, split) = self.root.page.insert(key, leaf, &mut self.bytes);
        if let Some(split) = split {
            let left = std::mem::take(&mut self.root.page);
            self.root.page = Page::above(left, split);
            self.bytes += self.root.page.bytes();
        }
        if before.is_none() {
            self.root.len += 1;
        }
        before
    }

    /// Removes a key and returns its place.
    pub fn remove(&mut self, key: &[u8]) -> Option<Leaf> {
        // Looked up first, so that a key that is not there copies no page.
        let leaf = self.get(key)?;
        self.root.page.remove(key, &mut self.bytes);
        self.root.len -= 1;
        if self.root.len == 0 {
            *self = Self::new();
        }
        while let Some(child) = self.root.page.only_child() {
            self.bytes -= self.root.page.bytes();
            self.root.page = child;
        }
        Some(leaf)
    }

    /// Returns how many keys there are.
    pub fn len(&self) -> usize {
        self.root.len
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.root.len == 0
    }

    /// Returns how many bytes of memory the tree takes as it is now: what it asked the allocator for,
    /// without pages that only older roots hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the tree as it is now, at the cost of counting a reference.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root.clone()
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Root {
    /// Returns where a key's latest record stands.
    pub fn get(&self, key: &[u8]) -> Option<Leaf> {
        self.page.get(key)
    }

    /// Returns how many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether both are the tree of one moment, as far as can be told without reading it.
    fn is_same(&self, other: &Self) -> bool {
        self.len == other.len && self.page.is_same(&other.page)
    }

    /// Shows where the latest record of each key stands, in the order of the keys.
    pub fn for_each_leaf(&self, mut see: impl FnMut(Leaf)) {
        self.page.for_each(&mut see);
    }

    /// Returns the keys between two bounds in order; none if the bounds are the wrong way round.
    ///
    /// The iterator holds the root, can be read from both ends and knows how many keys are left, so
    /// counting a range reads no key of it.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Iter {
        let first = match from {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.page.rank(key).0,
            Bound::Excluded(key) => {
                let (rank, is_there) = self.page.rank(key);
                rank + usize::from(is_there)
            }
        };
        let end = match to {
            Bound::Unbounded => self.len,
            Bound::Excluded(key) => self.page.rank(key).0,
            Bound::Included(key) => {
                let (rank, is_there) = self.page.rank(key);
                rank + usize::from(is_there)
            }
        };
        Iter::new(self.clone(), first, end)
    }
}
