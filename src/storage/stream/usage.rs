//! How much of a segment is still needed: what cleaning goes by.

use crate::storage::checkpoint::codec::{Malformed, Put as _, Take};

/// The records of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Usage {
    /// How many there are.
    pub(in crate::storage) records: u64,
    /// How many of them nobody can need any more.
    pub(in crate::storage) dead: u64,
    /// How many are tombstones that go when they are old.
    pub(in crate::storage) tombstones: u64,
    /// When the last of them was appended.
    pub(in crate::storage) last_ms: i64,
}

impl Usage {
    /// Returns how many records would go if it were cleaned; its tombstones too, if they are old.
    pub(in crate::storage) fn needless(&self, tombstones_go: bool) -> u64 {
        let tombstones = if tombstones_go { self.tombstones } else { 0 };
        self.dead.saturating_add(tombstones).min(self.records)
    }

    /// Returns about how many of the segment's bytes would go: as if all records were of one size.
    pub(in crate::storage) fn needless_bytes(&self, bytes: u64, tombstones_go: bool) -> u64 {
        if self.records == 0 {
            return bytes;
        }
        let needless = u128::from(bytes) * u128::from(self.needless(tombstones_go));
        u64::try_from(needless / u128::from(self.records)).unwrap_or(bytes)
    }

    pub(super) fn kill(&mut self, records: u64) {
        self.dead = self.dead.saturating_add(records).min(self.records);
    }

    pub(super) fn save(&self, to: &mut Vec<u8>) {
        to.put_number(self.records);
        to.put_number(self.dead);
        to.put_number(self.tombstones);
        to.put_signed(self.last_ms);
    }

    pub(super) fn load(from: &mut Take<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            records: from.number()?,
            dead: from.number()?,
            tombstones: from.number()?,
            last_ms: from.signed()?,
        })
    }
}
