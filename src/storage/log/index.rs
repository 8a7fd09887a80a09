//! Where the entries of a log lie: one slot of eight bytes per Raft index, and the terms as runs.

use std::collections::VecDeque;

use super::entry::LogId;

/// Where an entry starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Byte in the segment.
    pub position: u32,
}

/// Not written yet; segments are numbered from 1.
const NOWHERE: Place = Place { segment: 0, position: 0 };

/// The places of all entries, contiguous in their index.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    first: u64,
    places: VecDeque<Place>,
    /// First index of each run, and its term.
    terms: VecDeque<(u64, u64)>,
}

impl EntryIndex {
    /// Returns the name of the first entry.
    pub(super) fn first(&self) -> Option<LogId> {
        self.id_at(self.first)
    }

    /// Returns the name of the last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        let count = u64::try_from(self.places.len()).ok()?;
        self.id_at((self.first + count).checked_sub(1)?)
    }

    /// Returns the name of the entry at `index`.
    pub(super) fn id_at(&self, index: u64) -> Option<LogId> {
        self.slot(index)?;
        let run = self.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        let (_, term) = *self.terms.get(run)?;
        Some(LogId { term, index })
    }

    /// Returns where the entry at `index` is; `None` where there is none or it is not written yet.
    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let place = *self.places.get(self.slot(index)?)?;
        (place != NOWHERE).then_some(place)
    }

    /// Adds an entry that is not written yet.
    pub(super) fn push(&mut self, id: LogId) {
        if self.places.is_empty() {
            self.first = id.index;
            self.terms.clear();
        }
        debug_assert_eq!(id.index, self.first + self.places.len() as u64, "no hole in the log");
        self.places.push_back(NOWHERE);
        if self.terms.back().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push_back((id.index, id.term));
        }
    }

    /// Says where an entry is; one that was truncated meanwhile has no slot any more.
    pub(super) fn set_place(&mut self, id: LogId, place: Place) {
        if self.id_at(id.index) == Some(id)
            && let Some(slot) = self.slot(id.index)
            && let Some(stored) = self.places.get_mut(slot)
        {
            *stored = place;
        }
    }

    /// Drops every entry behind `kept`; all of them for `None`.
    pub(super) fn truncate_after(&mut self, kept: Option<u64>) {
        let keep = kept.map_or(0, |index| (index + 1).saturating_sub(self.first));
        self.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        let end = self.first + self.places.len() as u64;
        while self.terms.back().is_some_and(|(first, _)| *first >= end) {
            self.terms.pop_back();
        }
    }

    /// Forgets everything: what comes next starts elsewhere.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.terms.clear();
    }

    fn slot(&self, index: u64) -> Option<usize> {
        let slot = usize::try_from(index.checked_sub(self.first)?).ok()?;
        (slot < self.places.len()).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    #[test]
    fn terms_and_places_follow_truncation() {
        let mut index = EntryIndex::default();
        for (term, at) in [(1, 2), (1, 3), (2, 4), (3, 5)] {
            index.push(id(term, at));
        }
        let place = Place { segment: 1, position: 4096 };
        index.set_place(id(2, 4), place);
        assert_eq!((index.first(), index.last()), (Some(id(1, 2)), Some(id(3, 5))));
        assert_eq!((index.place(4), index.place(5)), (Some(place), None));
        index.truncate_after(Some(3));
        assert_eq!(index.last(), Some(id(1, 3)));
        index.push(id(4, 4));
        assert_eq!(index.id_at(4), Some(id(4, 4)));
        // The entry that was truncated while it was being written does not come back.
        index.set_place(id(2, 4), place);
        assert_eq!(index.place(4), None);
        index.truncate_after(None);
        assert_eq!(index.last(), None);
    }
}
