//! The frames of one partition in one segment, packed: a few bytes for each.
//!
//! *Steps*: for each frame three numbers in LEB128: bytes between the batch before and this one, bytes
//! of this batch, offsets it takes up. *Points*: in front of each run of at most 32 frames, 24 bytes
//! from which the run can be read by itself, so that an offset or a time is found by a binary search
//! and a short walk:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | offset of the first frame |
//! | 8 | 8 | largest timestamp of the frames before it in this segment; the smallest i64 if there are none |
//! | 16 | 4 | where in the segment the batch before it ends |
//! | 20 | 4 | where in the steps the run begins |
//!
//! All numbers are little-endian.

mod saved;

use crate::storage::log::header::array_at;

/// Most frames from one point to the next.
pub(super) const RUN_FRAMES: usize = 32;
/// Size of a point.
const POINT_BYTES: usize = 24;

/// A batch of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct FrameRef {
    /// Offset of its first record.
    pub(in crate::storage) base_offset: u64,
    /// How many offsets it takes up.
    pub(in crate::storage) offset_count: u32,
    /// Where it starts in the segment.
    pub(in crate::storage) position: u32,
    /// Its size.
    pub(in crate::storage) bytes: u32,
}

impl FrameRef {
    /// Returns the offset behind its last record.
    pub(in crate::storage) fn next_offset(&self) -> u64 {
        self.base_offset + u64::from(self.offset_count)
    }
}

/// What the frames of a track add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// How many.
    pub(super) frames: u32,
    /// Offset of the first record.
    pub(super) first_offset: u64,
    /// Offset behind the last record.
    pub(super) next_offset: u64,
    /// The largest timestamp.
    pub(super) max_timestamp_ms: i64,
}

/// A track that grows.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Track {
    summary: Summary,
    points: Vec<u8>,
    steps: Vec<u8>,
    /// Frames since the last point.
    run: usize,
    /// Where the last batch ends.
    end: u32,
}

impl Default for Track {
    fn default() -> Self {
        let summary =
            Summary { frames: 0, first_offset: 0, next_offset: 0, max_timestamp_ms: i64::MIN };
        Self { summary, points: Vec::new(), steps: Vec::new(), run: 0, end: 0 }
    }
}

impl Track {
    /// Adds the next frame.
    pub(super) fn push(&mut self, frame: &FrameRef, max_timestamp_ms: i64) {
        let is_first = self.summary.frames == 0;
        // Behind a gap of offsets a run begins: it counts them from its point.
        if is_first || self.run == RUN_FRAMES || frame.base_offset != self.summary.next_offset {
            self.points.extend_from_slice(&frame.base_offset.to_le_bytes());
            self.points.extend_from_slice(&self.summary.max_timestamp_ms.to_le_bytes());
            self.points.extend_from_slice(&self.end.to_le_bytes());
            // Steps take less than the segment they describe.
            let at = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
            self.points.extend_from_slice(&at.to_le_bytes());
            self.run = 0;
        }
        put_number(&mut self.steps, frame.position.saturating_sub(self.end));
        put_number(&mut self.steps, frame.bytes);
        put_number(&mut self.steps, frame.offset_count);
        self.run += 1;
        self.end = frame.position.saturating_add(frame.bytes);
        if is_first {
            self.summary.first_offset = frame.base_offset;
        }
        self.summary.frames += 1;
        self.summary.next_offset = frame.next_offset();
        self.summary.max_timestamp_ms = self.summary.max_timestamp_ms.max(max_timestamp_ms);
    }

    /// Returns the offset of its first record.
    pub(in crate::storage) fn first_offset(&self) -> u64 {
        self.summary.first_offset
    }

    /// Returns the offset behind its last record.
    pub(in crate::storage) fn next_offset(&self) -> u64 {
        self.summary.next_offset
    }

    /// Returns it for reading.
    pub(super) fn view(&self) -> View<'_> {
        View { summary: self.summary, points: &self.points, steps: &self.steps }
    }

    /// Returns how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.points.len() + self.steps.len()
    }
}

/// A track, in memory or mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) summary: Summary,
    pub(super) points: &'a [u8],
    pub(super) steps: &'a [u8],
}

impl<'a> View<'a> {
    /// Returns the frames from the one with `offset` on, or from the first behind it.
    pub(super) fn starting_at(self, offset: u64) -> impl Iterator<Item = FrameRef> + 'a {
        let run = self.last_point(|point| point.base_offset <= offset);
        self.run(run).skip_while(move |frame| frame.next_offset() <= offset)
    }

    /// Returns the frames of the run with the first that has a timestamp of `time_ms` or later, if
    /// there is one.
    pub(super) fn near_time(self, time_ms: i64) -> impl Iterator<Item = FrameRef> + 'a {
        let run = self.last_point(|point| point.timestamp_before_ms < time_ms);
        self.run(run).take(RUN_FRAMES)
    }

    /// Returns the number of the last point that is so; those before it are too.
    fn last_point(&self, is_so: impl Fn(&Point) -> bool) -> usize {
        let (mut low, mut high) = (0, self.points.len() / POINT_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.point(middle).is_some_and(|point| is_so(&point)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }

    fn point(&self, number: usize) -> Option<Point> {
        let at = number.checked_mul(POINT_BYTES)?;
        let bytes = self.points.get(at..at.checked_add(POINT_BYTES)?)?;
        Some(Point {
            base_offset: u64::from_le_bytes(array_at(bytes, 0)),
            timestamp_before_ms: i64::from_le_bytes(array_at(bytes, 8)),
            end: u32::from_le_bytes(array_at(bytes, 16)),
            at: u32::from_le_bytes(array_at(bytes, 20)),
        })
    }

    fn run(self, point: usize) -> Frames<'a> {
        let mut frames = Frames { view: self, next_point: point, at: 0, offset: 0, end: 0 };
        if let Some(point) = self.point(point) {
            frames.at = usize::try_from(point.at).unwrap_or(usize::MAX);
        }
        frames
    }
}

/// Where a run begins.
#[derive(Clone, Copy, Debug)]
struct Point {
    base_offset: u64,
    timestamp_before_ms: i64,
    end: u32,
    at: u32,
}

/// Frames in order. Ends early where the bytes are not those of a track.
#[derive(Clone, Debug)]
struct Frames<'a> {
    view: View<'a>,
    next_point: usize,
    at: usize,
    offset: u64,
    end: u32,
}

impl Iterator for Frames<'_> {
    type Item = FrameRef;

    fn next(&mut self) -> Option<FrameRef> {
        if let Some(point) = self.view.point(self.next_point)
            && usize::try_from(point.at).is_ok_and(|at| at == self.at)
        {
            (self.offset, self.end) = (point.base_offset, point.end);
            self.next_point += 1;
        }
        let mut rest = self.view.steps.get(self.at..)?;
        let before = rest.len();
        let gap = take_number(&mut rest)?;
        let bytes = take_number(&mut rest)?;
        let offset_count = take_number(&mut rest)?;
        self.at += before - rest.len();
        let position = self.end.checked_add(gap)?;
        let frame = FrameRef { base_offset: self.offset, offset_count, position, bytes };
        self.end = position.checked_add(bytes)?;
        self.offset = self.offset.checked_add(offset_count.into())?;
        Some(frame)
    }
}

fn put_number(to: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        // The low seven bits, and that more follow.
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

fn take_number(from: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::checkpoint::codec::Take;

    /// Frames with gaps in positions and, now and then, in offsets; and their largest timestamps.
    fn frames() -> impl Strategy<Value = Vec<(FrameRef, i64)>> {
        let one = (0_u32..300, 61_u32..100_000, 1_u32..20_000, 0_u64..20, -50_i64..50);
        prop::collection::vec(one, 1..200).prop_map(|steps| {
            let (mut end, mut offset) = (4096, 7);
            let build = |(gap, bytes, offset_count, hole, time)| {
                offset += if hole == 0 { 5 } else { 0 };
                let position = end + gap;
                let frame = FrameRef { base_offset: offset, offset_count, position, bytes };
                end = position + bytes;
                offset = frame.next_offset();
                (frame, time)
            };
            steps.into_iter().map(build).collect()
        })
    }

    fn track(frames: &[(FrameRef, i64)]) -> Track {
        let mut track = Track::default();
        for (frame, time) in frames {
            track.push(frame, *time);
        }
        track
    }

    proptest! {
        #[test]
        fn every_offset_is_found_in_its_frame_or_the_next_one(
            frames in frames(), pick in any::<prop::sample::Index>(), more in 0_u64..30_000,
        ) {
            let track = track(&frames);
            let offset = frames[pick.index(frames.len())].0.base_offset + more;
            let expected: Vec<FrameRef> = frames
                .iter()
                .map(|(frame, _)| *frame)
                .filter(|frame| frame.next_offset() > offset)
                .collect();
            prop_assert_eq!(track.view().starting_at(offset).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn no_frame_that_reaches_a_time_is_passed_over(frames in frames(), time in -60_i64..60) {
            let track = track(&frames);
            let first = frames.iter().find(|(_, max)| *max >= time).map(|(frame, _)| *frame);
            let found: Vec<FrameRef> = track.view().near_time(time).collect();
            match first {
                Some(first) => prop_assert!(found.contains(&first)),
                None => prop_assert!(found.len() <= RUN_FRAMES),
            }
            prop_assert_eq!(track.view().starting_at(0).count(), frames.len());
        }
    }

    #[test]
    fn what_is_no_track_ends_early() {
        let frame = FrameRef { base_offset: 3, offset_count: 2, position: 4096, bytes: 80 };
        let mut track = Track::default();
        track.push(&frame, 9);
        let view = track.view();
        assert_eq!(view.starting_at(0).collect::<Vec<_>>(), [frame]);
        let summary = view.summary;
        let cut = View { summary, points: view.points, steps: &view.steps[..view.steps.len() - 1] };
        assert_eq!(cut.starting_at(0).count(), 0);
        let long = View { summary, points: view.points, steps: &[0xff; 40] };
        assert_eq!(long.starting_at(0).count(), 0);
        assert_eq!(View { summary, points: &[1; 5], steps: &[] }.near_time(0).count(), 0);
    }

    #[test]
    fn a_saved_track_that_counts_wrong_is_refused() {
        let frame = FrameRef { base_offset: 3, offset_count: 2, position: 4096, bytes: 80 };
        let mut track = Track::default();
        track.push(&frame, 9);
        let loaded = |track: &Track| {
            let mut saved = Vec::new();
            track.save(&mut saved);
            Track::load(&mut Take(&saved)).is_ok()
        };
        assert!(loaded(&track));
        assert!(!loaded(&Track { run: usize::MAX, ..track.clone() }));
        let summary = Summary { frames: u32::MAX, ..track.summary };
        assert!(!loaded(&Track { summary, ..track.clone() }));
        let summary = Summary { next_offset: u64::MAX, ..track.summary };
        assert!(!loaded(&Track { summary, ..track }));
    }
}
