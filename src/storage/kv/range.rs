//! The keys of a snapshot in order, from both ends, without those that are expired.

use super::tree::{Iter, Leaf};

/// Keys in order.
#[derive(Clone, Debug)]
pub struct KeyRange {
    keys: Iter,
    /// The log's time, where some key may be expired by it.
    expired_at_ms: Option<i64>,
}

impl KeyRange {
    /// Returns the keys that are not expired at a time.
    pub(in crate::storage) fn live(keys: Iter, log_time_ms: i64) -> Self {
        Self { keys, expired_at_ms: Some(log_time_ms) }
    }

    /// Returns all of them.
    pub(in crate::storage) fn every(keys: Iter) -> Self {
        Self { keys, expired_at_ms: None }
    }

    /// Takes the first key left: replaces the content of `key` by it and returns where its record stands.
    pub fn next_into(&mut self, key: &mut Vec<u8>) -> Option<Leaf> {
        loop {
            let leaf = self.keys.next_into(key)?;
            if self.is_live(leaf) {
                return Some(leaf);
            }
        }
    }

    /// Takes the last key left, as [`KeyRange::next_into`] takes the first.
    pub fn next_back_into(&mut self, key: &mut Vec<u8>) -> Option<Leaf> {
        loop {
            let leaf = self.keys.next_back_into(key)?;
            if self.is_live(leaf) {
                return Some(leaf);
            }
        }
    }

    fn is_live(&self, leaf: Leaf) -> bool {
        self.expired_at_ms.is_none_or(|time_ms| !leaf.is_expired(time_ms))
    }
}

impl Iterator for KeyRange {
    type Item = (Vec<u8>, Leaf);

    fn next(&mut self) -> Option<Self::Item> {
        let mut key = Vec::new();
        let leaf = self.next_into(&mut key)?;
        Some((key, leaf))
    }

    /// Reads no key where none is expired.
    fn count(mut self) -> usize {
        if self.expired_at_ms.is_none() {
            return self.keys.count();
        }
        let (mut key, mut count) = (Vec::new(), 0);
        while self.next_into(&mut key).is_some() {
            count += 1;
        }
        count
    }
}

impl DoubleEndedIterator for KeyRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        let mut key = Vec::new();
        let leaf = self.next_back_into(&mut key)?;
        Some((key, leaf))
    }
}
