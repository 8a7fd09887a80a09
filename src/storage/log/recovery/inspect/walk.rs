//! Every entry of a log in order, up to where it ends or breaks.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use super::{
    super::{
        scan::End,
        step::{Stop, Window, read_entry},
        survey::{Found, Survey},
    },
    report::{Depth, Problem, Visited},
    tally::{Tally, wrong_records},
};
use crate::storage::{
    StorageError,
    log::{
        entry::{Entry, Item},
        fold::Fold,
        header::{ENTRY_HEADER_BYTES, EntryHeader, HeaderFault, Lsn, Seed},
        index::Place,
        is_history,
        reader::read_placed,
        segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
        segments::{Segment, Segments},
    },
};

/// Sees each entry; `Break` ends the walk, and the report is then of no use.
pub(super) type Visit<'a> = dyn FnMut(&Visited<'_>) -> ControlFlow<()> + 'a;

pub(super) const PAGE_END: u64 = SEGMENT_HEADER_BYTES as u64;

/// Where and why reading stopped.
pub(super) struct Break {
    pub(super) segment: Arc<Segment>,
    pub(super) position: u64,
    pub(super) problem: Problem,
    /// The header of the damaged entry, if that much verifies.
    pub(super) header: Option<EntryHeader>,
    pub(super) error: StorageError,
}

/// A log that is being read.
pub(super) struct Walk<'a> {
    pub(super) survey: &'a Survey,
    pub(super) depth: Depth,
    pub(super) log_id: u64,
    pub(super) segments: Arc<Segments>,
    pub(super) fold: Fold,
    pub(super) end: End,
    pub(super) watermark: Lsn,
    pub(super) committed: Option<u64>,
    pub(super) tallies: BTreeMap<u64, Tally>,
    pub(super) broken: Option<Break>,
    pub(super) is_stopped: bool,
    pub(super) dir: &'a Path,
    /// A segment that the manifest names is not there.
    pub(super) missing: Option<StorageError>,
    /// Where reading goes on behind a checkpoint.
    pub(super) resume: Option<(u64, u64)>,
    pub(super) was_cleaned: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(survey: &'a Survey, depth: Depth, dir: &'a Path) -> Self {
        let mut walk = Self {
            survey,
            depth,
            log_id: survey.log_id.unwrap_or_default(),
            segments: Arc::default(),
            fold: Fold::default(),
            end: End::default(),
            watermark: 0,
            committed: None,
            tallies: BTreeMap::new(),
            broken: None,
            is_stopped: false,
            dir,
            missing: None,
            resume: None,
            was_cleaned: false,
        };
        for header in survey.files.values().filter_map(Found::header) {
            walk.watermark = walk.watermark.max(header.synced_lsn);
            walk.committed = walk.committed.max(header.hard_state.committed);
        }
        walk
    }

    pub(super) fn segment(&self, number: u64, found: &Found) -> Arc<Segment> {
        let seed = Seed::new(self.log_id, number);
        let file = Arc::clone(&found.file);
        Arc::new(Segment::new(number, found.path.clone(), file, seed))
    }

    pub(super) fn read_chain(
        &mut self,
        chain: &[u64],
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        for (at, number) in chain.iter().enumerate() {
            let Some(found) = self.survey.files.get(number) else { continue };
            let Some(header) = found.header() else { continue };
            let segment = self.segment(*number, found);
            self.segments.insert(&segment);
            let stated = header.hard_state.purged;
            if stated.map(|mark| mark.index) > self.fold.hard_state.purged.map(|mark| mark.index) {
                self.fold.hard_state.purged = stated;
            }
            let next = chain.get(at + 1).and_then(|number| self.survey.files.get(number));
            let tally = self.tallies.entry(*number).or_default();
            tally.end = tally.end.max(PAGE_END);
            self.read_segment(&segment, found, header, next.and_then(Found::header), visit)?;
            if self.broken.is_some() || self.is_stopped {
                break;
            }
        }
        Ok(())
    }

    /// Reads one segment to its cut, to its last entry before the next segment's first, or to a break.
    fn read_segment(
        &mut self,
        segment: &Arc<Segment>,
        found: &Found,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let from = self.resume.filter(|(number, _)| *number == segment.number);
        let mut position = from.map_or(PAGE_END, |(_, position)| position);
        if from.is_some() {
            // What stands before was read.
        } else if header.prev_crc != self.end.header_crc || header.first_lsn <= self.end.lsn {
            let expected = format!("a segment that continues entry {}", self.end.lsn);
            let found = format!("first entry {}", header.first_lsn);
            let error = segment.corrupt(0, &expected, &found);
            self.break_at(segment, 0, Problem::Chain, None, error);
            return Ok(());
        }
        let cut = next.filter(|next| next.cut_lsn > 0);
        let limit = cut.map_or(found.len, |next| next.cut_position.min(found.len));
        let mut window = Window::new(segment);
        while !self.is_stopped {
            let is_continued = next.is_some_and(|next| {
                next.prev_crc == self.end.header_crc
                    && next.first_lsn > self.end.lsn
                    && (next.cut_lsn == 0 || next.cut_lsn == self.end.lsn)
            });
            if is_continued && cut.is_some() && position >= limit {
                return Ok(());
            }
            match read_entry(&mut window, position, limit, self.end)? {
                Ok((entry, item, header_crc)) => {
                    let end = position + entry.total_bytes();
                    let visited = Visited {
                        segment: segment.number,
                        position,
                        end,
                        header: &entry,
                        item: &item,
                    };
                    if !self.take(segment, &visited, header_crc, visit)? {
                        return Ok(());
                    }
                    position = end;
                }
                Err(Stop::Header(fault)) if fault.is_verified() => {
                    return Err(segment.header_fault(position, fault));
                }
                Err(_) if is_continued => return Ok(()),
                Err(Stop::Zero) if next.is_none() => return Ok(()),
                Err(stop) => {
                    self.stop_at(segment, position, stop);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) fn stop_at(&mut self, segment: &Arc<Segment>, position: u64, stop: Stop) {
        let problem = match &stop {
            Stop::Header(HeaderFault::Checksum { .. }) | Stop::Body(_) => Problem::Crc,
            Stop::Zero | Stop::Header(_) => Problem::NoEntry,
            Stop::Chain { .. } => Problem::Chain,
            Stop::Lsn { .. } => Problem::Order,
            Stop::End => Problem::Short,
        };
        let header = segment.read(position, ENTRY_HEADER_BYTES).ok().and_then(|head| {
            let head = head.as_ref().try_into().ok()?;
            EntryHeader::decode(head, &segment.seed).ok().map(|(header, _)| header)
        });
        self.break_at(segment, position, problem, header, stop.into_error(segment, position));
    }

    pub(super) fn break_at(
        &mut self,
        segment: &Arc<Segment>,
        position: u64,
        problem: Problem,
        header: Option<EntryHeader>,
        error: StorageError,
    ) {
        let segment = Arc::clone(segment);
        self.broken = Some(Break { segment, position, problem, header, error });
    }

    /// Takes an entry whose checksums hold; false where it breaks the log all the same.
    fn take(
        &mut self,
        segment: &Arc<Segment>,
        visited: &Visited<'_>,
        header_crc: u32,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StorageError> {
        let Visited { position, end, header, item, .. } = *visited;
        let wrong = match item {
            Item::Entry(entry) => self.wrong(segment, position, entry),
            Item::Control(control) => {
                let segments = Arc::clone(&self.segments);
                self.fold
                    .control(*control, &|index, at| read_placed(index.place(at), &segments, at))?;
                None
            }
        };
        if let Some((problem, error)) = wrong {
            // What verifies was written like this: opening refuses it wherever the watermark stands.
            self.watermark = Lsn::MAX;
            self.break_at(segment, position, problem, Some(*header), error);
            return Ok(false);
        }
        self.end = End { segment: segment.number, lsn: header.lsn, position: end, header_crc };
        self.watermark = self.watermark.max(header.synced_lsn);
        self.committed = self.committed.max(header.committed);
        self.tallies.entry(segment.number).or_default().add(visited);
        self.is_stopped = visit(visited).is_break();
        Ok(true)
    }

    /// As [`Walk::wrong_records`], of an entry that is visited.
    pub(super) fn wrong_records_of(
        &self,
        segment: &Segment,
        visited: &Visited<'_>,
    ) -> Option<(Problem, StorageError)> {
        let Item::Entry(entry) = visited.item else { return None };
        self.wrong_records(segment, visited.position, entry)
    }

    /// Says what is wrong with the records of an entry, where that was asked for.
    fn wrong_records(
        &self,
        segment: &Segment,
        position: u64,
        entry: &Entry,
    ) -> Option<(Problem, StorageError)> {
        let wrong = match self.depth {
            Depth::Checksums => None,
            Depth::Records => wrong_records(entry, is_history(segment.number)),
        };
        let (frame, why) = wrong?;
        let expected = format!("the records of frame {frame}");
        Some((Problem::Records, segment.corrupt(position, &expected, &why)))
    }

    /// Adds an entry to the sum of the log; says what is wrong with it.
    fn wrong(
        &mut self,
        segment: &Segment,
        position: u64,
        entry: &Entry,
    ) -> Option<(Problem, StorageError)> {
        if let Some(last) = self.fold.last().filter(|last| last.term > entry.id.term) {
            let expected = format!("an entry of term {} or later", last.term);
            let found = format!("one of term {}", entry.id.term);
            return Some((Problem::Order, segment.corrupt(position, &expected, &found)));
        }
        if let Some(wrong) = self.wrong_records(segment, position, entry) {
            return Some(wrong);
        }
        if let Err(error) = self.fold.push(entry) {
            let expected = "an entry that continues the log";
            let error = segment.corrupt(position, expected, &error.to_string());
            return Some((Problem::Order, error));
        }
        let place = Place {
            segment: u32::try_from(segment.number).unwrap_or(u32::MAX),
            position: u32::try_from(position).unwrap_or(u32::MAX),
        };
        self.fold.index.set_place(entry.id, place);
        None
    }

    /// Where reading ended in a segment, and whether it was read.
    pub(super) fn end_in(&self, number: u64) -> Option<u64> {
        self.tallies.get(&number).map(|tally| tally.end)
    }
}
