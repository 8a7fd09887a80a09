//! Entries of which only the segment is known, found by reading the segment's headers.
//!
//! Rare: a replica that comes back after long asks for them, and a sidecar that was lost is made
//! again. What was found for the last few segments is kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    entry::Entry,
    header::{ENTRY_HEADER_BYTES, EntryHeader},
    index::{Place, Stretch},
    reader::read_placed,
    segment::SEGMENT_HEADER_BYTES,
    segments::{Segment, Segments},
};
use crate::storage::StorageError;

/// Stretches that are kept.
const KEPT_MAX: usize = 4;
/// Headers are read in pieces of this size.
const WINDOW_BYTES: usize = 64 << 10;

/// What was found lately.
#[derive(Debug, Default)]
pub(super) struct Walked(Mutex<VecDeque<(Stretch, Arc<[u32]>)>>);

/// Reads the entry at `index`, which lies somewhere in a stretch.
///
/// # Errors
/// [`StorageError::Io`] and [`StorageError::Corrupt`].
pub(super) fn read_walked(
    segments: &Segments,
    stretch: Stretch,
    index: u64,
) -> Result<Entry, StorageError> {
    let positions = positions(segments, stretch)?;
    let at = index.checked_sub(stretch.first).and_then(|at| usize::try_from(at).ok());
    let position = at.and_then(|at| positions.get(at)).copied();
    let place = position.map(|position| Place { segment: stretch.segment, position });
    read_placed(place, segments, index)
}

/// Returns where the entries of a stretch start.
///
/// # Errors
/// As [`read_walked`].
pub(in crate::storage) fn positions(
    segments: &Segments,
    stretch: Stretch,
) -> Result<Arc<[u32]>, StorageError> {
    let kept = || segments.walked.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = kept().iter().find(|(known, _)| *known == stretch) {
        return Ok(Arc::clone(found));
    }
    let segment = segments.get(u64::from(stretch.segment)).ok_or_else(|| {
        let reason = format!("segment {} is not part of the log", stretch.segment);
        StorageError::Discontinuous { index: stretch.first, reason }
    })?;
    let found: Arc<[u32]> = walk(&segment, stretch)?.into();
    let mut kept = kept();
    kept.truncate(KEPT_MAX - 1);
    kept.push_front((stretch, Arc::clone(&found)));
    Ok(found)
}

/// As [`positions`], of a segment that is at hand.
pub(in crate::storage) fn walk(
    segment: &Segment,
    stretch: Stretch,
) -> Result<Vec<u32>, StorageError> {
    let count = usize::try_from(stretch.last - stretch.first + 1).unwrap_or(usize::MAX);
    let mut found: Vec<u32> = Vec::new();
    let mut window = (0, Bytes::new());
    let mut position = SEGMENT_HEADER_BYTES as u64;
    let end = segment.sealed_len().unwrap_or(u64::MAX);
    while position < end {
        let head = header_at(segment, &mut window, position)?;
        let Ok((header, _)) = EntryHeader::decode(&head, &segment.seed) else { break };
        let start = u32::try_from(position).unwrap_or(u32::MAX);
        position += header.total_bytes();
        if header.kind.is_control() || !(stretch.first..=stretch.last).contains(&header.index) {
            continue;
        }
        // One that comes again was truncated before: the last is the one that lives. So was one that comes
        // before those it follows.
        let at = usize::try_from(header.index - stretch.first).unwrap_or(usize::MAX);
        if at <= found.len() {
            found.truncate(at);
            found.push(start);
        }
    }
    if found.len() == count {
        return Ok(found);
    }
    let expected = format!("entries {} to {}", stretch.first, stretch.last);
    Err(segment.corrupt(position, &expected, &format!("{} of them", found.len())))
}

fn header_at(
    segment: &Segment,
    window: &mut (u64, Bytes),
    position: u64,
) -> Result<[u8; ENTRY_HEADER_BYTES], StorageError> {
    let inside = |window: &(u64, Bytes)| {
        let at = usize::try_from(position.checked_sub(window.0)?).ok()?;
        window.1.get(at..)?.first_chunk::<ENTRY_HEADER_BYTES>().copied()
    };
    if let Some(head) = inside(window) {
        return Ok(head);
    }
    *window = (position, segment.read(position, WINDOW_BYTES)?);
    // Zeros are no header: behind the end of the file there is none.
    Ok(inside(window).unwrap_or([0; ENTRY_HEADER_BYTES]))
}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, path::Path};

    use super::*;
    use crate::storage::{
        disk::{Disk as _, sim::SimDisk},
        log::{
            entry::{Item, LogId, Payload, Stamp},
            header::Seed,
        },
    };

    #[test]
    fn what_was_truncated_is_passed_over_wherever_it_stands() {
        let path = Path::new("/0000000000000007-0000000003.log");
        let file = SimDisk::new().create(path).unwrap();
        let segment = Segment::new(3, path.into(), file, Seed::new(7, 3));
        let mut position = SEGMENT_HEADER_BYTES as u64;
        let mut places = Vec::new();
        // Another leader's from the middle on, which the segment began with; then those that live, twice in part.
        let indexes = (14..18).chain(11..15).chain(13..20);
        for (lsn, index) in (1..).zip(indexes) {
            let id = LogId { term: lsn, index };
            let item = Item::Entry(Entry { id, is_void: false, payload: Payload::Blank });
            let stamp = Stamp { lsn, synced_lsn: 0, committed: None, prev_crc: 0 };
            let encoded = item.encode(stamp, &segment.seed);
            let slices: Vec<IoSlice<'_>> = encoded.slices().collect();
            segment.file.write_at(position, &slices).unwrap();
            places.push(u32::try_from(position).unwrap());
            position += encoded.len;
        }
        segment.seal(position);
        let found = walk(&segment, Stretch { first: 11, last: 18, segment: 3 }).unwrap();
        assert_eq!(found, [&places[4..6], &places[8..14]].concat());
        assert!(walk(&segment, Stretch { first: 10, last: 18, segment: 3 }).is_err());
    }
}
