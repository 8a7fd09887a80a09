//! Which keys lost their value of late.
//!
//! The index forgets a key together with its value, so a key without one does not tell whether it had one
//! since some revision. Who writes a key that was absent in a snapshot must know: another may have written
//! and deleted it meanwhile. Every tombstone applied is therefore remembered for a while, in log order;
//! what was forgotten is told as such.
//!
//! It is knowledge of this replica alone and decides nothing that stands in the log: it is not in a
//! checkpoint.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::storage::bug::bug;

/// Most tombstones remembered.
pub const REMOVALS_MAX: usize = 64 << 10;
/// Most bytes of their keys.
pub const REMOVAL_BYTES_MAX: usize = 4 << 20;

/// The tombstones that were applied last.
#[derive(Debug, Default)]
pub struct Removals {
    // Looked up by key and never walked: its order reaches nothing.
    last: HashMap<(u32, Bytes), u64>,
    order: VecDeque<(u64, (u32, Bytes))>,
    bytes: usize,
    /// Of this revision and those before, tombstones may be missing.
    forgotten: u64,
}

/// What is known of a key without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It had no tombstone since.
    Untouched,
    /// It had one.
    Removed,
    /// Tombstones since then are forgotten.
    Forgotten,
}

impl Removals {
    /// Returns an empty memory that begins behind `revision`.
    pub fn after(revision: u64) -> Self {
        Self { forgotten: revision, ..Self::default() }
    }

    /// Remembers a tombstone.
    pub(super) fn push(&mut self, revision: u64, collection: u32, key: &[u8]) {
        let key = (collection, Bytes::copy_from_slice(key));
        self.bytes += key.1.len();
        // The clone counts a reference.
        self.order.push_back((revision, key.clone()));
        self.last.insert(key, revision);
        while self.order.len() > REMOVALS_MAX || self.bytes > REMOVAL_BYTES_MAX {
            let Some((revision, key)) = self.order.pop_front() else { return };
            self.bytes -= key.1.len();
            self.forgotten = revision;
            if self.last.get(&key) == Some(&revision) {
                self.last.remove(&key);
            }
        }
    }

    /// Returns whether a key had a tombstone behind `revision`.
    pub fn since(&self, collection: u32, key: &Bytes, revision: u64) -> Since {
        if bug!(RemovalsIgnored) {
            return Since::Untouched;
        }
        if revision < self.forgotten {
            return Since::Forgotten;
        }
        match self.last.get(&(collection, key.clone())) {
            Some(removed) if *removed > revision => Since::Removed,
            _ => Since::Untouched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Bytes {
        Bytes::from(number.to_be_bytes().to_vec())
    }

    #[test]
    fn a_tombstone_is_known_by_collection_key_and_revision() {
        let mut removals = Removals::default();
        removals.push(7, 1, &key(1));
        assert_eq!(removals.since(1, &key(1), 6), Since::Removed);
        assert_eq!(removals.since(1, &key(1), 7), Since::Untouched);
        assert_eq!(removals.since(2, &key(1), 6), Since::Untouched);
        assert_eq!(removals.since(1, &key(2), 6), Since::Untouched);
    }

    #[test]
    fn what_is_forgotten_is_told_and_never_taken_for_untouched() {
        let mut removals = Removals::after(3);
        assert_eq!(removals.since(1, &key(1), 2), Since::Forgotten);
        assert_eq!(removals.since(1, &key(1), 3), Since::Untouched);
        for number in 0..=REMOVALS_MAX {
            removals.push(10 + number as u64, 1, &key(number));
        }
        assert_eq!(removals.since(1, &key(0), 9), Since::Forgotten);
        assert_eq!(removals.since(1, &key(1), 10), Since::Removed);
        assert_eq!(removals.order.len(), REMOVALS_MAX);
        assert_eq!(removals.last.len(), REMOVALS_MAX);
    }

    #[test]
    fn a_key_removed_again_is_kept_until_its_last_tombstone_goes() {
        let mut removals = Removals::default();
        removals.push(1, 1, &key(0));
        removals.push(2, 1, &key(0));
        for number in 1..REMOVALS_MAX {
            removals.push(3, 1, &key(number));
        }
        assert_eq!(removals.forgotten, 1);
        assert_eq!(removals.since(1, &key(0), 1), Since::Removed);
    }
}
