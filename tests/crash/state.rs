//! What a shard must be after an entry.

use std::collections::BTreeMap;

use prkdb::storage::sequencer::WriteRequest;

/// What a producer sent last: the request, the offset it got, and the sequence that comes next.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) request: WriteRequest,
    pub(crate) base_offset: u64,
    pub(crate) next_sequence: i32,
}

pub(crate) type Record = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// What the shard must be after an entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) keys: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    pub(crate) producers: BTreeMap<i64, Sent>,
    pub(crate) next_offsets: BTreeMap<u32, u64>,
    /// Until when keys last that expire.
    pub(crate) lives: BTreeMap<Vec<u8>, Life>,
    pub(crate) log_time_ms: i64,
    /// Where partitions begin that do not begin at 0.
    pub(crate) log_starts: BTreeMap<u32, u64>,
}

/// Until when a key lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// So long from the time of the entry that is being gathered.
    For(u64),
    /// Up to this time.
    Until(i64),
}

impl Model {
    /// Returns the keys that are not expired.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Vec<u8>, &(Vec<u8>, u64))> {
        self.keys.iter().filter(|(key, _)| match self.lives.get(*key) {
            Some(Life::Until(end_ms)) => *end_ms > self.log_time_ms,
            _ => true,
        })
    }

    /// Sets the time of an entry, from which on what it holds lasts.
    pub(crate) fn stamp(&mut self, append_time_ms: i64) {
        self.log_time_ms = append_time_ms;
        for life in self.lives.values_mut() {
            if let Life::For(ttl_ms) = *life {
                *life = Life::Until(append_time_ms.saturating_add_unsigned(ttl_ms));
            }
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.live().map(|(key, (value, _))| (key, value))
    }
}
