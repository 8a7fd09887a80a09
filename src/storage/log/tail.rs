//! The newest entries, in memory: they serve apply, and whoever reads at the end of the log.
//!
//! An entry stays until it is flushed and applied; after that until newer ones need its room.

use std::collections::VecDeque;

use super::{entry::Entry, header::Lsn};

/// The newest entries, contiguous in their index.
#[derive(Debug)]
pub(super) struct TailCache {
    entries: VecDeque<Cached>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Cached {
    entry: Entry,
    bytes: u64,
    lsn: Lsn,
}

impl TailCache {
    /// Returns an empty cache.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Returns how many bytes it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the next entry, which has `bytes` bytes in the log under the number `lsn`.
    pub(super) fn push(&mut self, entry: Entry, bytes: u64, lsn: Lsn) {
        if self.entries.back().is_some_and(|last| last.entry.id.index + 1 != entry.id.index) {
            // The log jumped over the purge mark: nothing before it is read any more.
            self.truncate_after(None);
        }
        self.bytes += bytes;
        self.entries.push_back(Cached { entry, bytes, lsn });
    }

    /// Returns the entry at `index`.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.entry.id.index;
        let slot = usize::try_from(index.checked_sub(first)?).ok()?;
        self.entries.get(slot).map(|cached| &cached.entry)
    }

    /// Returns the index of the oldest entry.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|cached| cached.entry.id.index)
    }

    /// Returns the number in the log of the entry at `index`.
    pub(super) fn lsn_of(&self, index: u64) -> Option<Lsn> {
        let slot = usize::try_from(index.checked_sub(self.first_index()?)?).ok()?;
        self.entries.get(slot).map(|cached| cached.lsn)
    }

    /// Returns the entries from the last one on that is at or before a place, by what tells places.
    pub(super) fn since(
        &self,
        is_at_or_before: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = &Entry> {
        let behind = self.entries.partition_point(|cached| is_at_or_before(cached.entry.id.index));
        self.entries.range(behind.saturating_sub(1)..).map(|cached| &cached.entry)
    }

    /// Drops the entries behind `kept`; all of them for `None`.
    pub(super) fn truncate_after(&mut self, kept: Option<u64>) {
        while let Some(last) = self.entries.back()
            && kept.is_none_or(|kept| last.entry.id.index > kept)
        {
            self.bytes -= last.bytes;
            self.entries.pop_back();
        }
    }

    /// Drops the entries up to one.
    pub(super) fn drop_up_to(&mut self, last: u64) {
        while let Some(oldest) = self.entries.front()
            && oldest.entry.id.index <= last
        {
            self.bytes -= oldest.bytes;
            self.entries.pop_front();
        }
    }

    /// Makes room: drops the oldest entries that are synced and at or below `applied`.
    pub(super) fn evict(&mut self, applied: u64, synced_lsn: Lsn) {
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.front()
            && oldest.lsn <= synced_lsn
            && oldest.entry.id.index <= applied
        {
            self.bytes -= oldest.bytes;
            self.entries.pop_front();
        }
    }
}
