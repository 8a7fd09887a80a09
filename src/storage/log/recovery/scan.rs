//! Reads a log from its first entry to where it breaks, and looks behind the break.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
};

use super::{
    Evidence, Recovery,
    behind::look,
    spared,
    step::{Stop, Window, read_entry},
    survey::{Found, Page, Survey},
};
use crate::storage::{
    StorageError,
    bug::bug,
    log::{
        entry::Item,
        fold::Fold,
        header::{EntryHeader, Lsn, Seed},
        index::Place,
        reader::read_placed,
        resume::Resume,
        segment::{HardState, SEGMENT_HEADER_BYTES, SegmentHeader},
        segments::{Segment, Segments},
        writer::Joint,
    },
};

/// What the log adds up to.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) segments: Arc<Segments>,
    pub(super) fold: Fold,
    /// The end of what was certainly synced.
    pub(super) joint: Joint,
    /// Vote and purge mark there.
    pub(super) settled_state: HardState,
    pub(super) watermark: Lsn,
    pub(super) largest_lsn: Lsn,
    /// Valid entries above the watermark.
    pub(super) above_watermark: Vec<Above>,
    /// Segments of the chain up to the one that holds the watermark.
    pub(super) live: Vec<u64>,
    /// The newest segment, if it has a page and nothing behind it: the log can go on there.
    pub(super) page_only: Option<u64>,
    pub(super) recovery: Recovery,
}

/// An entry that was perhaps never on disk.
#[derive(Debug)]
pub(super) struct Above {
    pub(super) header: EntryHeader,
    pub(super) item: Item,
    end: End,
    /// Vote and purge mark behind it.
    state: HardState,
}

/// Where an entry ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) lsn: Lsn,
    pub(super) position: u64,
    pub(super) header_crc: u32,
}

impl End {
    pub(super) fn of(resume: &Resume) -> Self {
        Self {
            segment: resume.segment,
            lsn: resume.lsn,
            position: resume.position,
            header_crc: resume.header_crc,
        }
    }
}

/// Where and why reading stopped.
struct Break {
    error: StorageError,
    segment: u64,
    position: u64,
}

struct Scan<'a> {
    survey: &'a Survey,
    resume: Option<&'a Resume>,
    log_id: u64,
    segments: Arc<Segments>,
    fold: Fold,
    /// The last entry read.
    end: End,
    /// The last entry at or below the watermark.
    settled: End,
    settled_state: HardState,
    watermark: Lsn,
    largest_lsn: Lsn,
    above: VecDeque<Above>,
    /// Where reading ended in each segment.
    ends: BTreeMap<u64, u64>,
    /// Files that have bytes behind where reading ended.
    dirty: BTreeSet<u64>,
    recovery: Recovery,
}

/// Reads the segments of `chain` in order.
///
/// # Errors
/// [`StorageError::Corrupt`] if something at or below the watermark is missing.
pub(super) fn scan(
    survey: &Survey,
    chain: &[u64],
    evidence: Evidence<'_>,
    dir: &Path,
) -> Result<Scanned, StorageError> {
    let resume = evidence.resume;
    let mut scan = Scan {
        survey,
        resume,
        log_id: survey.log_id.unwrap_or_default(),
        segments: Arc::default(),
        fold: resume.map(Fold::resumed).unwrap_or_default(),
        end: resume.map(End::of).unwrap_or_default(),
        settled: resume.map(End::of).unwrap_or_default(),
        settled_state: resume.map(|resume| resume.hard_state).unwrap_or_default(),
        watermark: evidence.synced_lsn,
        largest_lsn: evidence.synced_lsn,
        above: VecDeque::new(),
        ends: BTreeMap::new(),
        dirty: BTreeSet::new(),
        recovery: Recovery {
            checkpoint: resume.map(|resume| resume.applied.index),
            ..Recovery::default()
        },
    };
    if let Some(resume) = resume {
        spared::check(survey, chain, resume, dir)?;
        scan.spare(resume);
    }
    for found in survey.files.values() {
        if let Some(header) = found.header() {
            scan.raise_watermark(header.synced_lsn);
            // The number was given out, though its entry may be lost.
            scan.largest_lsn = scan.largest_lsn.max(header.first_lsn);
        }
    }
    let broken = scan.read_chain(chain)?;
    scan.look_behind(chain, broken.as_ref())?;
    if scan.watermark > scan.end.lsn && !bug!(CorruptionCut) {
        return Err(scan.lost(broken));
    }
    if bug!(CopyNotMade) {
        scan.raise_watermark(scan.end.lsn);
    }
    scan.settle_up_to_watermark();
    Ok(scan.finish(chain))
}

impl Scan<'_> {
    fn raise_watermark(&mut self, synced_lsn: Lsn) {
        self.watermark = self.watermark.max(synced_lsn);
    }

    /// Takes the segments before the checkpoint's as they are.
    fn spare(&mut self, resume: &Resume) {
        for (number, len) in &resume.sealed {
            if let Some(found) = self.survey.any(*number) {
                self.segments.insert(&Arc::new(spared::segment(found, self.log_id, *number, *len)));
                self.ends.insert(*number, *len);
            }
        }
    }

    /// Reads until the chain ends or breaks.
    fn read_chain(&mut self, chain: &[u64]) -> Result<Option<Break>, StorageError> {
        for (at, number) in chain.iter().enumerate() {
            let Some(found) = self.survey.files.get(number) else { continue };
            let Some(header) = found.header() else { continue };
            let mut segment = Segment::new(
                *number,
                found.path.clone(),
                Arc::clone(&found.file),
                Seed::new(self.log_id, *number),
            );
            let from = self.resume.filter(|resume| resume.segment == *number);
            if from.is_some() {
                segment = segment.partly_spared();
            }
            let segment = Arc::new(segment);
            self.segments.insert(&segment);
            self.recovery.bytes += found.len - from.map_or(0, |from| from.position.min(found.len));
            self.adopt_hard_state(&header.hard_state);
            let next = chain
                .get(at + 1)
                .and_then(|number| self.survey.files.get(number))
                .and_then(Found::header);
            let broken = self.read_segment(&segment, found, header, next)?;
            self.ends.insert(*number, self.end_in(*number));
            if broken.is_some() {
                return Ok(broken);
            }
        }
        Ok(None)
    }

    fn end_in(&self, number: u64) -> u64 {
        if self.end.segment == number { self.end.position } else { SEGMENT_HEADER_BYTES as u64 }
    }

    /// A segment's page repeats the hard state; entries behind it say the same or more.
    fn adopt_hard_state(&mut self, stated: &HardState) {
        let own = &mut self.fold.hard_state;
        let rank = |vote: Option<crate::storage::log::entry::Vote>| {
            vote.map(|vote| (vote.term, vote.is_committed))
        };
        if rank(stated.vote) > rank(own.vote) {
            own.vote = stated.vote;
        }
        if stated.purged.map(|id| id.index) > own.purged.map(|id| id.index) {
            own.purged = stated.purged;
        }
        own.committed = own.committed.max(stated.committed);
        if self.above.is_empty() {
            self.settled_state = self.fold.hard_state;
        }
    }

    /// Reads one segment to its end: its cut, its last entry before the next segment's first, or a
    /// break.
    fn read_segment(
        &mut self,
        segment: &Arc<Segment>,
        found: &Found,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
    ) -> Result<Option<Break>, StorageError> {
        let broken = |error, position| Break { error, segment: segment.number, position };
        let from = self.resume.filter(|resume| resume.segment == segment.number);
        let mut position = from.map_or(SEGMENT_HEADER_BYTES as u64, |from| from.position);
        let is_joined = header.prev_crc == self.end.header_crc && header.first_lsn > self.end.lsn;
        if from.is_none() && !is_joined {
            let error = segment.corrupt(
                0,
                &format!("a segment that continues entry {}", self.end.lsn),
                &format!("first entry {}", header.first_lsn),
            );
            return Ok(Some(broken(error, position)));
        }
        let limit = next
            .filter(|next| next.cut_lsn > 0)
            .map_or(found.len, |next| next.cut_position.min(found.len));
        let mut window = Window::new(segment);
        loop {
            let is_continued = next.is_some_and(|next| {
                next.prev_crc == self.end.header_crc
                    && next.first_lsn > self.end.lsn
                    && (next.cut_lsn == 0 || next.cut_lsn == self.end.lsn)
            });
            if is_continued && next.is_some_and(|next| next.cut_lsn > 0) && position >= limit {
                return Ok(None);
            }
            match read_entry(&mut window, position, limit, self.end)? {
                Ok((entry, item, header_crc)) => {
                    let start = position;
                    position += entry.total_bytes();
                    self.take(segment, start, position, entry, item, header_crc)?;
                }
                // What verifies and is not understood was not torn: it is of a later version.
                Err(Stop::Header(fault)) if fault.is_verified() => {
                    return Err(segment.header_fault(position, fault));
                }
                Err(_) if is_continued => return Ok(None),
                // The end of the newest segment: nothing is there, so nothing broke.
                Err(Stop::Zero) if next.is_none() => return Ok(None),
                Err(stop) => return Ok(Some(broken(stop.into_error(segment, position), position))),
            }
        }
    }

    fn take(
        &mut self,
        segment: &Arc<Segment>,
        start: u64,
        end: u64,
        header: EntryHeader,
        item: Item,
        header_crc: u32,
    ) -> Result<(), StorageError> {
        self.end = End { segment: segment.number, lsn: header.lsn, position: end, header_crc };
        self.largest_lsn = self.largest_lsn.max(header.lsn);
        self.raise_watermark(header.synced_lsn);
        self.recovery.entries += 1;
        self.recovery.read_bytes += header.total_bytes();
        self.fold.hard_state.committed = self.fold.hard_state.committed.max(header.committed);
        match &item {
            Item::Entry(entry) => {
                self.fold.push(entry).map_err(|error| {
                    segment.corrupt(start, "an entry that continues the log", &error.to_string())
                })?;
                let place = Place {
                    segment: u32::try_from(segment.number).unwrap_or(u32::MAX),
                    position: u32::try_from(start).unwrap_or(u32::MAX),
                };
                self.fold.index.set_place(entry.id, place);
            }
            Item::Control(control) => {
                let segments = Arc::clone(&self.segments);
                self.fold
                    .control(*control, &|index, at| read_placed(index.place(at), &segments, at))?;
            }
        }
        let state = self.fold.hard_state;
        self.above.push_back(Above { header, item, end: self.end, state });
        self.settle_up_to_watermark();
        Ok(())
    }

    fn settle_up_to_watermark(&mut self) {
        while self.above.front().is_some_and(|above| above.header.lsn <= self.watermark)
            && let Some(settled) = self.above.pop_front()
        {
            self.settled = settled.end;
            self.settled_state = settled.state;
        }
    }

    /// Looks at everything behind the end for headers: they tell numbers that were given out, and
    /// watermarks.
    fn look_behind(&mut self, chain: &[u64], broken: Option<&Break>) -> Result<(), StorageError> {
        let newest = chain.last().copied();
        for (number, found) in &self.survey.files {
            if self.resume.is_some_and(|resume| *number < resume.segment) {
                // What lies behind its end was there before the checkpoint, and is not above it; one that
                // the manifest does not name was replaced.
                continue;
            }
            let (from, is_tail) = match broken {
                Some(broken) if broken.segment == *number => (broken.position, true),
                // What a cut left behind in it was judged when it was cut, but its numbers stay taken.
                _ if self.ends.contains_key(number) => {
                    (self.end_of(*number), broken.is_none() && newest == Some(*number))
                }
                _ => (0, true),
            };
            let behind = look(found, &Seed::new(self.log_id, *number), from)?;
            self.largest_lsn = self.largest_lsn.max(behind.largest_lsn);
            self.watermark = self.watermark.max(behind.watermark);
            if behind.bytes > 0 {
                self.dirty.insert(*number);
            }
            if is_tail {
                self.recovery.cut_bytes += behind.bytes;
                self.recovery.cut_entries += behind.entries;
            }
        }
        Ok(())
    }

    fn end_of(&self, number: u64) -> u64 {
        self.ends.get(&number).copied().unwrap_or(SEGMENT_HEADER_BYTES as u64)
    }

    /// Something that was synced is missing.
    fn lost(&self, broken: Option<Break>) -> StorageError {
        if let Some(broken) = broken {
            return broken.error;
        }
        // The chain ends before a segment whose page cannot be read: that is where it is missing.
        let damaged = self.survey.files.iter().find_map(|(number, found)| match found.page {
            Page::Damaged { expected, found: sum } if *number > self.end.segment => {
                Some((found, expected, sum))
            }
            _ => None,
        });
        if let Some((file, expected, sum)) = damaged {
            return StorageError::Corrupt {
                path: file.path.clone(),
                position: 0,
                expected: format!("segment header checksum {expected:08x}"),
                found: format!("{sum:08x}"),
            };
        }
        let expected = format!("entries up to {}, which were synced", self.watermark);
        let found = format!("the last entry is {}", self.end.lsn);
        if let Some(segment) = self.segments.get(self.end.segment) {
            return segment.corrupt(self.end.position, &expected, &found);
        }
        let path = self.survey.files.values().next().map(|found| found.path.clone());
        StorageError::Corrupt { path: path.unwrap_or_default(), position: 0, expected, found }
    }

    fn finish(self, chain: &[u64]) -> Scanned {
        let settled_at = chain.iter().position(|number| *number == self.settled.segment);
        let followed = settled_at.map_or(0, |at| at + 1);
        let spared = self.resume.map_or(&[][..], |resume| resume.sealed.as_slice());
        let live: Vec<u64> = spared
            .iter()
            .map(|(number, _)| *number)
            .chain(chain.iter().take(followed).copied())
            .collect();
        for number in &live {
            let end = if *number == self.settled.segment {
                self.settled.position
            } else {
                self.end_of(*number)
            };
            if let Some(segment) = self.segments.get(*number) {
                segment.seal(end);
            }
        }
        // The newest segment continues the last settled entry, and nothing was ever written behind
        // its page that is still there.
        let page_only = chain.last().copied().filter(|newest| {
            let follows = chain.len() == followed + 1 && !live.contains(newest);
            follows
                && self.above.is_empty()
                && self.ends.contains_key(newest)
                && !self.dirty.contains(newest)
        });
        Scanned {
            segments: self.segments,
            fold: self.fold,
            joint: Joint {
                predecessor: self.settled.segment,
                cut_lsn: self.settled.lsn,
                cut_position: self.settled.position,
                prev_crc: self.settled.header_crc,
            },
            settled_state: self.settled_state,
            watermark: self.watermark,
            largest_lsn: self.largest_lsn,
            above_watermark: self.above.into(),
            live,
            page_only,
            recovery: self.recovery,
        }
    }
}
