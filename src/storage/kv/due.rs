//! Keys by when they expire.

use std::collections::BTreeSet;

use super::tree::NEVER;

/// What an entry takes beside its key, about.
const ENTRY_BYTES: usize = 48;

/// The keys of one collection that expire, the next one first.
#[derive(Debug, Default)]
pub struct Due {
    keys: BTreeSet<(i64, Box<[u8]>)>,
    key_bytes: usize,
}

impl Due {
    /// Adds a key; nothing if it never expires.
    pub fn insert(&mut self, key: &[u8], expires_ms: i64) {
        if expires_ms != NEVER && self.keys.insert((expires_ms, key.into())) {
            self.key_bytes += key.len();
        }
    }

    /// Takes a key out that expires at this time; nothing if it never does.
    pub fn remove(&mut self, key: &[u8], expires_ms: i64) {
        if expires_ms != NEVER && self.keys.remove(&(expires_ms, key.into())) {
            self.key_bytes -= key.len();
        }
    }

    /// Returns when the next key expires.
    pub fn next_ms(&self) -> Option<i64> {
        self.keys.first().map(|(expires_ms, _)| *expires_ms)
    }

    /// Returns the keys that are expired at a time, in the order in which they were.
    pub fn expired(&self, log_time_ms: i64) -> impl Iterator<Item = &[u8]> {
        let expired = self.keys.iter().take_while(move |(at, _)| *at <= log_time_ms);
        expired.map(|(_, key)| key.as_ref())
    }

    /// Returns the keys that expire behind a time and up to another.
    pub fn between(&self, after_ms: i64, to_ms: i64) -> impl Iterator<Item = &[u8]> {
        let keys = self.keys.range((after_ms.saturating_add(1), Box::default())..);
        keys.take_while(move |(at, _)| *at <= to_ms).map(|(_, key)| key.as_ref())
    }

    /// Returns how many keys expire.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether none does.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns about how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.key_bytes + self.keys.len() * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_in_which_they_expire() {
        let mut due = Due::default();
        for (key, at) in [(b"a", 30), (b"b", 10), (b"c", NEVER), (b"d", 20)] {
            due.insert(key, at);
        }
        assert_eq!((due.len(), due.next_ms(), due.bytes()), (3, Some(10), 3 + 3 * ENTRY_BYTES));
        assert_eq!(due.expired(20).collect::<Vec<_>>(), [b"b", b"d"]);
        due.remove(b"b", 10);
        due.remove(b"d", 19);
        due.remove(b"c", NEVER);
        assert_eq!(due.expired(29).collect::<Vec<_>>(), [b"d"]);
        due.remove(b"d", 20);
        due.remove(b"a", 30);
        assert!(due.is_empty() && due.next_ms().is_none() && due.bytes() == 0);
    }
}
