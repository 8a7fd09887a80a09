//! All segments of a shard: which of them a partition is in, and how far it is readable.

mod moved;
mod saved;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    marks::Marks,
    sidecar::{SegmentTracks, SidecarDone, SidecarJob},
    track::{FrameRef, RUN_FRAMES, Track},
    usage::Usage,
};
use crate::storage::{
    disk::Disk,
    log::{
        Place,
        entry::{Entry, Payload, batch_positions},
    },
};

/// The offsets of a partition that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first there is.
    pub log_start: u64,
    /// The one that the next record gets: behind the last record that is durable and applied.
    pub high_watermark: u64,
}

/// The index of a shard.
#[derive(Debug)]
pub(in crate::storage) struct StreamIndex {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log_id: u64,
    pub(super) partitions: BTreeMap<u32, Partition>,
    /// The segment that apply is in; 0 before the first frame.
    pub(super) current: u64,
    tracks: BTreeMap<u32, Track>,
    pub(super) finished: BTreeMap<u64, Arc<SegmentTracks>>,
    /// Finished segments without a sidecar.
    pub(super) waiting: VecDeque<u64>,
    is_under_way: bool,
    /// The last one could not be written: tried again when another is due.
    has_failed: bool,
    /// How much of each segment is still needed.
    pub(super) usage: BTreeMap<u64, Usage>,
}

/// A partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) bounds: Bounds,
    /// The segments it is in, with the first offset there, in order.
    pub(super) segments: Vec<(u64, u64)>,
    /// Below this offset some may be missing: they were cleaned away.
    pub(super) cleaned_end: u64,
    /// When what was appended, where that matters.
    pub(super) marks: Option<Marks>,
}

/// Frames of one segment that are to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Frames {
    /// The segment.
    pub(in crate::storage) segment: u64,
    /// In order.
    pub(in crate::storage) frames: Vec<FrameRef>,
}

impl StreamIndex {
    /// Returns the index of a log from which nothing is applied.
    pub(in crate::storage) fn new(disk: Arc<dyn Disk>, dir: &Path, log_id: u64) -> Self {
        Self {
            disk,
            dir: dir.to_path_buf(),
            log_id,
            partitions: BTreeMap::new(),
            current: 0,
            tracks: BTreeMap::new(),
            finished: BTreeMap::new(),
            waiting: VecDeque::new(),
            is_under_way: false,
            has_failed: false,
            usage: BTreeMap::new(),
        }
    }

    /// Adds the frames of an applied entry that lies at `place`.
    pub(in crate::storage) fn append(&mut self, entry: &Entry, place: Place) {
        let Payload::Normal(write) = &entry.payload else { return };
        if entry.is_void {
            return;
        }
        let segment = u64::from(place.segment);
        if segment != self.current {
            self.finish_segment();
            self.current = segment;
        }
        Self::track(&mut self.tracks, entry, place);
        let usage = self.usage.entry(segment).or_default();
        usage.last_ms = usage.last_ms.max(write.append_time_ms);
        for frame in &write.frames {
            usage.records += u64::from(frame.record_count);
            let partition = self.partitions.entry(frame.partition).or_default();
            if partition.segments.last().is_none_or(|(last, _)| *last != segment) {
                partition.segments.push((segment, frame.base_offset));
            }
            partition.bounds.high_watermark = frame.base_offset + u64::from(frame.record_count);
            if let Some(marks) = &mut partition.marks {
                marks.push(write.append_time_ms, frame.base_offset, frame.batch.len() as u64);
            }
        }
    }

    /// Adds the frames of an entry to the tracks of its segment.
    pub(in crate::storage) fn track(
        tracks: &mut BTreeMap<u32, Track>,
        entry: &Entry,
        place: Place,
    ) {
        let Payload::Normal(write) = &entry.payload else { return };
        if entry.is_void {
            return;
        }
        for (frame, position) in write.frames.iter().zip(batch_positions(write)) {
            let found = FrameRef {
                base_offset: frame.base_offset,
                offset_count: frame.record_count,
                position: place.position + position,
                // An entry is far below 4 GiB.
                bytes: u32::try_from(frame.batch.len()).unwrap_or(u32::MAX),
            };
            let max_timestamp_ms = frame.batch.header().max_timestamp;
            tracks.entry(frame.partition).or_default().push(&found, max_timestamp_ms);
        }
    }

    /// Nothing is added any more to the segment that apply was in.
    fn finish_segment(&mut self) {
        if self.tracks.is_empty() {
            return;
        }
        let tracks = SegmentTracks::Memory(std::mem::take(&mut self.tracks));
        self.finished.insert(self.current, Arc::new(tracks));
        self.waiting.push_back(self.current);
        self.has_failed = false;
    }

    /// Returns what of a partition can be read. One from which nothing was applied is empty.
    pub(in crate::storage) fn bounds(&self, partition: u32) -> Bounds {
        self.partitions.get(&partition).map(|partition| partition.bounds).unwrap_or_default()
    }

    /// Returns the frames from the one with `offset` on, as many as have about `bytes_max` bytes, but at
    /// least one if there is one; all of one segment.
    pub(in crate::storage) fn frames_from(
        &self,
        partition: u32,
        offset: u64,
        bytes_max: usize,
    ) -> Frames {
        let Some(known) = self.partitions.get(&partition) else { return Frames::default() };
        let mut at = known.segments.partition_point(|(_, first)| *first <= offset);
        at = at.saturating_sub(1);
        // Two at most: behind a gap the offset may be in the next segment.
        for (segment, _) in known.segments.iter().skip(at) {
            let frames = self.view(*segment, partition, |view| {
                let mut bytes = 0;
                let fits = |frame: &FrameRef| {
                    let is_first = bytes == 0;
                    bytes += usize::try_from(frame.bytes).unwrap_or(usize::MAX);
                    is_first || bytes <= bytes_max
                };
                view.starting_at(offset).take_while(fits).collect::<Vec<_>>()
            });
            if let Some(frames) = frames.filter(|frames| !frames.is_empty()) {
                return Frames { segment: *segment, frames };
            }
        }
        Frames::default()
    }

    /// Returns some frames that end behind an offset, in order, so that no earlier one that does has a
    /// record of this time or a later one. None if no record is so late.
    pub(in crate::storage) fn frames_near(
        &self,
        partition: u32,
        time_ms: i64,
        from: u64,
    ) -> Frames {
        let segments = self.partitions.get(&partition).map(|known| known.segments.as_slice());
        for (segment, _) in segments.unwrap_or_default() {
            let frames = self.view(*segment, partition, |view| {
                let summary = view.summary;
                if summary.max_timestamp_ms < time_ms || summary.next_offset <= from {
                    return None;
                }
                let is_behind = |frame: &FrameRef| frame.next_offset() > from;
                let near: Vec<FrameRef> = view.near_time(time_ms).filter(is_behind).collect();
                if !near.is_empty() {
                    return Some(near);
                }
                // The first that reaches it lies before; the others of the segment follow.
                Some(view.starting_at(from).take(RUN_FRAMES).collect())
            });
            if let Some(frames) = frames.flatten().filter(|frames| !frames.is_empty()) {
                return Frames { segment: *segment, frames };
            }
        }
        Frames::default()
    }

    fn view<T>(
        &self,
        segment: u64,
        partition: u32,
        look: impl FnOnce(super::track::View<'_>) -> T,
    ) -> Option<T> {
        if segment == self.current {
            return self.tracks.get(&partition).map(|track| look(track.view()));
        }
        self.finished.get(&segment)?.view(partition).map(look)
    }

    /// Returns how many bytes of memory the frames take.
    pub(in crate::storage) fn memory_bytes(&self) -> u64 {
        let current: usize = self.tracks.values().map(Track::bytes).sum();
        let waiting = self.waiting.iter().filter_map(|number| self.finished.get(number));
        let finished: u64 = waiting.map(|tracks| tracks.memory_bytes()).sum();
        current as u64 + finished
    }

    /// Returns work on a sidecar, if there is any and none is under way.
    pub(in crate::storage) fn next_sidecar(&mut self) -> Option<SidecarJob> {
        if self.is_under_way || self.has_failed {
            return None;
        }
        let number = *self.waiting.front()?;
        self.is_under_way = true;
        Some(SidecarJob {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            log_id: self.log_id,
            number,
            tracks: Arc::clone(self.finished.get(&number)?),
        })
    }

    /// Lets one that could not be written be tried again.
    pub(in crate::storage) fn retry_sidecars(&mut self) {
        self.has_failed = false;
    }

    /// Hears how work on a sidecar ended. One that failed is tried again with the next one, or when that is
    /// asked for.
    pub(in crate::storage) fn sidecar_done(
        &mut self,
        job: &SidecarJob,
        result: std::io::Result<SidecarDone>,
    ) {
        self.is_under_way = false;
        let Ok(SidecarDone(file)) = result else {
            self.has_failed = true;
            return;
        };
        self.waiting.retain(|number| *number != job.number);
        self.finished.insert(job.number, Arc::new(SegmentTracks::Mapped(file)));
    }
}
