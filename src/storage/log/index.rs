//! Where the entries of a log lie: one slot of eight bytes per Raft index, and the terms as runs.
//!
//! Slots of entries that a checkpoint covers are dropped: of those only the segment is kept, as
//! stretches, and who wants one reads the segment.

use std::collections::VecDeque;

use super::{entry::LogId, history::is_history};

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

/// Entries that lie in one segment, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Stretch {
    /// Index of the first.
    pub(in crate::storage) first: u64,
    /// Index of the last.
    pub(in crate::storage) last: u64,
    /// The segment.
    pub(in crate::storage) segment: u32,
}

/// What an index knows of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It starts there.
    At(Place),
    /// It lies somewhere in a segment.
    In(Stretch),
    /// It is not written yet.
    Nowhere,
}

/// What is kept of the entries that a checkpoint covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Past {
    /// Those at or below the purge mark that were not cleaned, in the order of the log.
    pub(in crate::storage) older: Vec<Stretch>,
    /// The others, in order, without a hole.
    pub(in crate::storage) stretches: Vec<Stretch>,
    /// First index of each run of one term, and the term.
    pub(in crate::storage) terms: Vec<(u64, u64)>,
}

/// The places of all entries, contiguous in their index.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    /// At or below the purge mark: they have no name any more, and are found by their segment alone.
    older: Vec<Stretch>,
    /// In order, from the first entry that has a name up to the first slot.
    stretches: Vec<Stretch>,
    /// Index of the first slot.
    first: u64,
    places: VecDeque<Place>,
    /// First index of each run, and its term.
    terms: VecDeque<(u64, u64)>,
}

impl EntryIndex {
    /// Returns the index of a log of which nothing but the past is known.
    pub(super) fn after(past: &Past) -> Self {
        Self {
            first: past.stretches.last().map_or(0, |last| last.last + 1),
            older: past.older.clone(),
            stretches: past.stretches.clone(),
            places: VecDeque::new(),
            terms: past.terms.iter().copied().collect(),
        }
    }

    /// Returns what is to be kept of the entries up to one that is written.
    pub(super) fn past(&self, last: u64) -> Past {
        let mut stretches: Vec<Stretch> = Vec::new();
        for old in self.stretches.iter().filter(|old| old.first <= last) {
            stretches.push(Stretch { last: old.last.min(last), ..*old });
        }
        for (index, place) in (self.first..=last).zip(&self.places) {
            match stretches.last_mut() {
                Some(open) if open.segment == place.segment => open.last = index,
                _ => stretches.push(Stretch { first: index, last: index, segment: place.segment }),
            }
        }
        let terms = self.terms.iter().copied().take_while(|(first, _)| *first <= last).collect();
        Past { older: self.older.clone(), stretches, terms }
    }

    /// Drops the slots of the entries up to one that is written.
    pub(super) fn forget(&mut self, last: u64) {
        let past = self.past(last);
        while self.first <= last && self.places.pop_front().is_some() {
            self.first += 1;
        }
        self.stretches = past.stretches;
    }

    /// Takes their names and slots from the entries up to a mark.
    pub(super) fn retire(&mut self, mark: u64) {
        if self.places.front().is_some_and(|place| *place != NOWHERE) && self.first <= mark {
            let written = self.places.iter().take_while(|place| **place != NOWHERE).count();
            self.forget(mark.min(self.first + (written as u64) - 1));
        }
        let mut kept = Vec::new();
        for stretch in std::mem::take(&mut self.stretches) {
            if stretch.first <= mark {
                self.older.push(Stretch { last: stretch.last.min(mark), ..stretch });
            }
            if stretch.last > mark {
                kept.push(Stretch { first: stretch.first.max(mark + 1), ..stretch });
            }
        }
        self.stretches = kept;
        let begin = self.begin();
        while self.terms.get(1).is_some_and(|(first, _)| *first <= begin) {
            self.terms.pop_front();
        }
        if let Some((first, _)) = self.terms.front_mut() {
            *first = begin.max(*first);
        }
    }

    /// Returns whether no entry of a segment has a name or a slot. None of history ever has.
    pub(super) fn is_retired(&self, segment: u64) -> bool {
        let is_it = |number: u32| u64::from(number) == segment;
        let is_before_slots =
            || self.places.front().is_none_or(|place| u64::from(place.segment) > segment);
        let has_names = || self.stretches.iter().any(|stretch| is_it(stretch.segment));
        is_history(segment) || (!has_names() && is_before_slots())
    }

    /// Returns the last entry of a segment that has a name.
    pub(super) fn last_in(&self, segment: u64) -> Option<u64> {
        let is_it = |number: u32| u64::from(number) == segment;
        let slots = (self.first..).zip(&self.places);
        let slot = slots.filter(|(_, place)| is_it(place.segment)).map(|(index, _)| index).last();
        let stretch = || self.stretches.iter().rfind(|it| is_it(it.segment)).map(|it| it.last);
        slot.or_else(stretch)
    }

    /// Returns the segment that an entry lies in.
    pub(super) fn segment_of(&self, index: u64) -> Option<u64> {
        match self.whereabouts(index)? {
            Whereabouts::At(place) => Some(place.segment.into()),
            Whereabouts::In(stretch) => Some(stretch.segment.into()),
            Whereabouts::Nowhere => None,
        }
    }

    /// Forgets what lies in segments that are gone.
    pub(super) fn drop_segments(&mut self, gone: &[u64]) {
        self.older.retain(|stretch| !gone.contains(&u64::from(stretch.segment)));
    }

    /// Returns what lies in a segment of those that have no slot.
    pub(super) fn stretches_in(&self, segment: u64) -> Vec<Stretch> {
        let of_it = |stretch: &&Stretch| u64::from(stretch.segment) == segment;
        self.older.iter().chain(&self.stretches).filter(of_it).copied().collect()
    }

    /// Returns the index of the first slot.
    pub(super) fn first_slot(&self) -> u64 {
        self.first
    }

    /// Returns the name of the first entry.
    pub(super) fn first(&self) -> Option<LogId> {
        self.id_at(self.begin())
    }

    /// Returns the name of the last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.id_at(self.end().checked_sub(1)?)
    }

    fn begin(&self) -> u64 {
        self.stretches.first().map_or(self.first, |stretch| stretch.first)
    }

    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Returns the name of the entry at `index`.
    pub(super) fn id_at(&self, index: u64) -> Option<LogId> {
        if !(self.begin()..self.end()).contains(&index) {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        let (_, term) = *self.terms.get(run)?;
        Some(LogId { term, index })
    }

    /// Returns where the entry at `index` is; `None` where there is none, where it is not written yet
    /// and where only its segment is known.
    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let place = *self.places.get(self.slot(index)?)?;
        (place != NOWHERE).then_some(place)
    }

    /// Returns what is known of where the entry at `index` is; `None` where there is none.
    pub(super) fn whereabouts(&self, index: u64) -> Option<Whereabouts> {
        if let Some(slot) = self.slot(index) {
            let place = *self.places.get(slot)?;
            return Some(match place {
                NOWHERE => Whereabouts::Nowhere,
                place => Whereabouts::At(place),
            });
        }
        let at = self.stretches.partition_point(|stretch| stretch.last < index);
        let found = self.stretches.get(at).filter(|stretch| stretch.first <= index)?;
        Some(Whereabouts::In(*found))
    }

    /// Adds an entry that is not written yet.
    pub(super) fn push(&mut self, id: LogId) {
        if self.places.is_empty() && self.stretches.is_empty() {
            self.first = id.index;
            self.terms.clear();
        }
        debug_assert_eq!(id.index, self.end(), "no hole in the log");
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

    /// Drops every entry behind `kept`; all of them for `None`. What a checkpoint covers is committed
    /// and stays.
    pub(super) fn truncate_after(&mut self, kept: Option<u64>) {
        let keep = kept.map_or(0, |index| (index + 1).saturating_sub(self.first));
        self.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        let end = self.end();
        while self.terms.back().is_some_and(|(first, _)| *first >= end) {
            self.terms.pop_back();
        }
    }

    /// Forgets the entries up to one that is written: the log begins behind it.
    pub(super) fn begin_behind(&mut self, last: u64) {
        self.older.clear();
        self.stretches.clear();
        while self.first <= last && self.places.pop_front().is_some() {
            self.first += 1;
        }
        while self.terms.get(1).is_some_and(|(first, _)| *first <= self.first) {
            self.terms.pop_front();
        }
        if let Some((first, _)) = self.terms.front_mut() {
            *first = self.first.max(*first);
        }
        if self.places.is_empty() {
            self.terms.clear();
        }
    }

    /// Forgets everything: what comes next starts elsewhere.
    pub(super) fn clear(&mut self) {
        self.older.clear();
        self.stretches.clear();
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
    use super::{super::history::HISTORY_FIRST, *};

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

    #[test]
    fn what_is_forgotten_keeps_its_name_and_its_segment() {
        let mut index = EntryIndex::default();
        for at in 2..10 {
            let id = id(at / 4, at);
            index.push(id);
            let segment = if at < 5 { 1 } else { 3 };
            index.set_place(id, Place { segment, position: u32::try_from(at).unwrap() * 100 });
        }
        let known: Vec<_> = (0..12).map(|at| index.id_at(at)).collect();
        index.forget(3);
        index.forget(6);
        assert_eq!((0..12).map(|at| index.id_at(at)).collect::<Vec<_>>(), known);
        let stretch = |first, last, segment| Stretch { first, last, segment };
        assert_eq!(index.whereabouts(4), Some(Whereabouts::In(stretch(2, 4, 1))));
        assert_eq!(index.whereabouts(6), Some(Whereabouts::In(stretch(5, 6, 3))));
        assert_eq!((index.place(6), index.first_slot()), (None, 7));
        let place = Place { segment: 3, position: 700 };
        assert_eq!(index.whereabouts(7), Some(Whereabouts::At(place)));
        assert_eq!((index.whereabouts(1), index.whereabouts(10)), (None, None));
        let past = index.past(8);
        assert_eq!(past.stretches, [stretch(2, 4, 1), stretch(5, 8, 3)]);
        assert_eq!(past.terms, [(2, 0), (4, 1), (8, 2)]);

        let mut later = EntryIndex::after(&index.past(6));
        assert_eq!((later.first(), later.last()), (Some(id(0, 2)), Some(id(1, 6))));
        later.push(id(2, 7));
        assert_eq!(later.whereabouts(7), Some(Whereabouts::Nowhere));
        later.truncate_after(Some(1));
        assert_eq!(later.last(), Some(id(1, 6)), "what is covered stays");
        later.clear();
        assert_eq!((later.first(), later.last()), (None, None));
    }

    #[test]
    fn what_lies_behind_a_place_keeps_its_name_and_its_slot() {
        let mut index = EntryIndex::default();
        for at in 2..10 {
            index.push(id(at / 4, at));
            let position = u32::try_from(at).unwrap() * 100;
            index.set_place(id(at / 4, at), Place { segment: 1, position });
        }
        index.forget(3);
        index.begin_behind(7);
        assert_eq!((index.first(), index.last()), (Some(id(2, 8)), Some(id(2, 9))));
        assert_eq!(index.place(8), Some(Place { segment: 1, position: 800 }));
        assert_eq!((index.place(7), index.id_at(7), index.stretches_in(1)), (None, None, vec![]));
        assert_eq!(index.past(9).terms, [(8, 2)]);
        index.begin_behind(9);
        assert_eq!((index.first(), index.last()), (None, None));
        index.push(id(3, 10));
        assert_eq!((index.first(), index.last()), (Some(id(3, 10)), Some(id(3, 10))));
    }

    #[test]
    fn what_is_purged_has_no_name_and_is_found_by_its_segment() {
        let mut index = EntryIndex::default();
        for at in 2..12 {
            index.push(id(at / 4, at));
            let segment = u32::try_from(at / 3).unwrap();
            index.set_place(id(at / 4, at), Place { segment, position: 9 });
        }
        index.forget(8);
        index.retire(6);
        assert_eq!((index.first(), index.id_at(6)), (Some(id(1, 7)), None));
        let stretch = |first, last, segment| Stretch { first, last, segment };
        assert_eq!(index.stretches_in(2), [stretch(6, 6, 2), stretch(7, 8, 2)]);
        assert!(index.is_retired(1) && !index.is_retired(2) && !index.is_retired(3));
        // Its number is above those of all slots.
        assert!(index.is_retired(HISTORY_FIRST));
        assert_eq!(index.past(9).terms, [(7, 1), (8, 2)]);
        let mut later = EntryIndex::after(&index.past(9));
        assert_eq!(later.first(), Some(id(1, 7)));
        later.retire(8);
        assert_eq!((later.first(), later.past(9).terms), (Some(id(2, 9)), vec![(9, 2)]));
        assert!(later.is_retired(2));
        later.drop_segments(&[2]);
        assert_eq!(later.past(9).older, [stretch(2, 2, 0), stretch(3, 5, 1)]);
        later.retire(9);
        assert_eq!((later.first(), later.last()), (None, None));
        later.push(id(3, 10));
        assert_eq!((later.first(), later.last()), (Some(id(3, 10)), Some(id(3, 10))));
    }
}
