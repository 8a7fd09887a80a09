//! Reading entries by their Raft index: from the tail cache, or else from the segments.
//!
//! What to read is settled under the writer's lock, the files are read without it.

use std::{ops::Range, sync::Arc};

use prkdb_types::batch::Batch;

use super::{
    body::Check,
    entry::{Entry, Item, Payload, batch_positions},
    index::{Place, Stretch, Whereabouts},
    segments::{Segment, Segments},
    walk::read_walked,
    writer::Log,
};
use crate::storage::StorageError;

/// One read has at most this many entries, whatever their size.
const ENTRIES_MAX: u64 = 4096;

/// Entries to be read.
#[derive(Debug)]
pub struct ReadPlan {
    sources: Vec<Source>,
    bytes_max: u64,
    segments: Arc<Segments>,
}

#[derive(Debug)]
enum Source {
    Cached(Entry),
    Placed(u64, Option<Place>),
    Walked(u64, Stretch),
}

impl Log {
    /// Settles how to read the entries of `range`, up to about `bytes_max` bytes but at least one.
    /// Nothing at or below the purge mark is read; a range may begin before the log does.
    pub fn plan_read(&self, range: Range<u64>, bytes_max: u64) -> ReadPlan {
        let unpurged = self.fold.hard_state.purged.map_or(0, |mark| mark.index + 1);
        let start = range.start.max(unpurged).max(self.first_index().unwrap_or_default());
        self.plan_fold(start..range.end, bytes_max)
    }

    /// As [`Log::plan_read`], history below the purge mark included: for whoever builds the state.
    pub fn plan_fold(&self, range: Range<u64>, bytes_max: u64) -> ReadPlan {
        let start = range.start;
        let mut sources = Vec::new();
        let mut bytes = 0;
        let end = range.end.min(start.saturating_add(ENTRIES_MAX));
        for index in start..end {
            let Some(whereabouts) = self.fold.index.whereabouts(index) else { break };
            if bytes >= bytes_max && bytes > 0 {
                break;
            }
            match self.tail.get(index) {
                Some(entry) => {
                    bytes += entry.encoded_bytes();
                    sources.push(Source::Cached(entry.clone()));
                }
                None => sources.push(match whereabouts {
                    Whereabouts::At(place) => Source::Placed(index, Some(place)),
                    Whereabouts::In(stretch) => Source::Walked(index, stretch),
                    Whereabouts::Nowhere => Source::Placed(index, None),
                }),
            }
        }
        ReadPlan { sources, bytes_max, segments: self.segments() }
    }

    /// Returns the batches at places of one segment, which rise; `None` for each that is not in memory.
    pub fn cached_batches(
        &self,
        segment: u32,
        positions: impl Iterator<Item = u32>,
    ) -> Vec<Option<Batch>> {
        let mut positions = positions.peekable();
        let mut found = Vec::new();
        let Some(first) = positions.peek().copied() else { return found };
        let first = Place { segment, position: first };
        let place_of = |index| self.fold.index.place(index);
        let entries = self.tail.since(|index| place_of(index).is_some_and(|place| place <= first));
        let batches = entries.map_while(|entry| Some((entry, place_of(entry.id.index)?)));
        let mut batches =
            batches.take_while(|(_, place)| place.segment <= segment).flat_map(|(entry, place)| {
                let Payload::Normal(write) = &entry.payload else { return Vec::new() };
                let here = place.segment == segment;
                let starts = batch_positions(write).map(|position| place.position + position);
                starts.zip(&write.frames).filter(|_| here).collect()
            });
        let mut next = batches.next();
        for position in positions {
            while next.as_ref().is_some_and(|(start, _)| *start < position) {
                next = batches.next();
            }
            let is_it = next.as_ref().filter(|(start, _)| *start == position);
            // The clone counts a reference.
            found.push(is_it.map(|(_, frame)| frame.batch.clone()));
        }
        found
    }

    /// Returns the entry at `index` and where it lies; `None` where there is none or it has no place
    /// yet.
    pub fn locate(&self, index: u64) -> Option<(Option<Entry>, Place)> {
        Some((self.tail.get(index).cloned(), self.fold.index.place(index)?))
    }
}

impl ReadPlan {
    /// Reads the entries.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn run(self) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::with_capacity(self.sources.len());
        let mut bytes = 0;
        for source in self.sources {
            let entry = match source {
                Source::Cached(entry) => entry,
                Source::Placed(index, place) => read_placed(place, &self.segments, index)?,
                Source::Walked(index, stretch) => read_walked(&self.segments, stretch, index)?,
            };
            bytes += entry.encoded_bytes();
            entries.push(entry);
            if bytes >= self.bytes_max {
                break;
            }
        }
        Ok(entries)
    }
}

/// Reads the entry that the index says is at `place`.
///
/// # Errors
/// [`StorageError::Io`], and [`StorageError::Corrupt`] if something else is there.
pub fn read_placed(
    place: Option<Place>,
    segments: &Segments,
    index: u64,
) -> Result<Entry, StorageError> {
    let lost = |reason: &str| StorageError::Discontinuous { index, reason: reason.to_owned() };
    let place = place.ok_or_else(|| lost("it has no place in the log"))?;
    let segment: Arc<Segment> = segments
        .get(u64::from(place.segment))
        .ok_or_else(|| lost("its segment is not part of the log"))?;
    let position = u64::from(place.position);
    match segment.read_entry(position, Check::Body)? {
        (_, Item::Entry(entry)) if entry.id.index == index => Ok(entry),
        (header, _) => Err(segment.corrupt(
            position,
            &format!("entry {index}"),
            &format!("{:?} entry {}", header.kind, header.index),
        )),
    }
}
