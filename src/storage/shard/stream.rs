//! The stream view of a shard: the batches of a partition from an offset on.
//!
//! What is sealed is handed out as slices of its map, what is newest as slices of the tail cache; the
//! rest is read. Nothing is decoded but the head of each batch, to see that it is the one meant.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use prkdb_types::{
    DecompressLimit,
    batch::{Batch, HEADER_LEN},
};

use super::Shard;
use crate::storage::{
    StorageError,
    kv::state::DECOMPRESSED_BYTES_MAX,
    log::{Segment, header::array_at},
    stream::{Bounds, FrameRef, Frames, SidecarDone, SidecarJob, StreamIndex},
};

/// A piece smaller than this is copied beside its neighbours: one slice costs more than the copy.
const COPY_BELOW: usize = 4096;
/// Frames that lie so near each other are fetched from the disk together.
const FETCH_GAP: u32 = 128 << 10;

/// Batches of a partition.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Whole batches end to end; a part may end inside of one.
    pub parts: Vec<Bytes>,
    /// How many bytes they have.
    pub bytes: usize,
    /// The offset to go on from.
    pub next_offset: u64,
    /// What could be read of the partition when this was.
    pub bounds: Bounds,
}

impl Shard {
    pub(super) fn stream(&self) -> MutexGuard<'_, StreamIndex> {
        // A panic ends the process; until it has, what the lock guards is whole.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the shard hosts a partition.
    pub fn hosts(&self, partition: u32) -> bool {
        self.catalog.load().partitions.contains_key(&partition)
    }

    /// Returns which offsets of a partition can be read.
    pub fn stream_bounds(&self, partition: u32) -> Bounds {
        self.stream().bounds(partition)
    }

    /// Returns how many bytes of memory the index of frames takes.
    pub fn stream_index_bytes(&self) -> u64 {
        self.stream().memory_bytes()
    }

    /// Reads batches of a partition from the one with offset `from` on, about `bytes_max` bytes but at
    /// least one batch if there is one. The first batch may begin before `from`. What is asked for
    /// beyond the bounds is empty.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn fetch(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Fetched, StorageError> {
        let (bounds, cleaned_end, frames, ahead) = {
            let stream = self.stream();
            let bounds = stream.bounds(partition);
            if from < bounds.log_start || from >= bounds.high_watermark {
                return Ok(Fetched { next_offset: from, bounds, ..Fetched::default() });
            }
            let frames = stream.frames_from(partition, from, bytes_max);
            let ahead = match frames.frames.last() {
                Some(last) if frames.is_sparse() => {
                    stream.frames_from(partition, last.next_offset(), bytes_max)
                }
                _ => Frames::default(),
            };
            (bounds, stream.cleaned_end(partition), frames, ahead)
        };
        let first = frames.frames.first().map(|frame| frame.base_offset);
        if first.is_none() && from < cleaned_end && cleaned_end >= bounds.high_watermark {
            // All that was left of it is gone.
            let next_offset = bounds.high_watermark;
            return Ok(Fetched { next_offset, bounds, ..Fetched::default() });
        }
        let is_next = first <= Some(from) || from < cleaned_end;
        let Some(last) = frames.frames.last().filter(|_| is_next) else {
            // Only cleaning takes something out of a log: what the index does not know, it has lost.
            let reason = format!("the index of partition {partition} has lost offset {from}");
            return Err(StorageError::Discontinuous { index: from, reason });
        };
        let next_offset = last.next_offset();
        let segment = self.segment(&frames)?;
        if ahead.segment == frames.segment && segment.is_sealed() {
            announce(&segment, &ahead.frames);
        }
        let parts = self.read_frames(&segment, &frames.frames)?;
        let bytes = parts.iter().map(Bytes::len).sum();
        Ok(Fetched { parts, bytes, next_offset, bounds })
    }

    /// Returns the first offset whose record has a timestamp of `time_ms` or later, and that timestamp;
    /// `None` if no record is so late.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn offset_at_time(
        &self,
        partition: u32,
        time_ms: i64,
    ) -> Result<Option<(u64, i64)>, StorageError> {
        let mut from = self.stream().bounds(partition).log_start;
        loop {
            let frames = self.stream().frames_near(partition, time_ms, from);
            let Some(last) = frames.frames.last() else { return Ok(None) };
            if let Some(found) = self.first_near(&frames, time_ms, from)? {
                return Ok(Some(found));
            }
            from = last.next_offset();
        }
    }

    /// Returns the first record of some frames that reaches a time, and stands at an offset or behind it.
    fn first_near(
        &self,
        frames: &Frames,
        time_ms: i64,
        from: u64,
    ) -> Result<Option<(u64, i64)>, StorageError> {
        let segment = self.segment(frames)?;
        for frame in &frames.frames {
            let head = segment.read(frame.position.into(), HEADER_LEN)?;
            check_head(&segment, frame, &head)?;
            // Field "largest timestamp" of the batch.
            let reaches = |head: &[u8]| i64::from_be_bytes(array_at(head, 35)) >= time_ms;
            if head.len() == HEADER_LEN && reaches(&head) {
                let batch = segment.read_batch(frame.position.into())?;
                if let Some(found) = first_at_time(&batch, time_ms, from) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// As [`StreamIndex::next_sidecar`].
    pub fn next_sidecar(&self) -> Option<SidecarJob> {
        self.stream().next_sidecar()
    }

    /// As [`StreamIndex::retry_sidecars`].
    pub fn retry_sidecars(&self) {
        self.stream().retry_sidecars();
    }

    /// As [`StreamIndex::sidecar_done`].
    pub fn sidecar_done(&self, job: &SidecarJob, result: io::Result<SidecarDone>) {
        self.stream().sidecar_done(job, result);
    }

    fn segment(&self, frames: &Frames) -> Result<Arc<Segment>, StorageError> {
        self.segments.get(frames.segment).ok_or_else(|| StorageError::Discontinuous {
            index: frames.frames.first().map_or(0, |frame| frame.base_offset),
            reason: format!("segment {} is not part of the log", frames.segment),
        })
    }

    fn read_frames(
        &self,
        segment: &Segment,
        frames: &[FrameRef],
    ) -> Result<Vec<Bytes>, StorageError> {
        let mut parts = Parts::default();
        if segment.is_sealed() {
            for run in frames.chunk_by(|one, next| one.position + one.bytes == next.position) {
                read_run(segment, run, &mut parts)?;
            }
            return Ok(parts.finish());
        }
        // Numbers of segments have 32 bits in places.
        let number = u32::try_from(segment.number).unwrap_or(u32::MAX);
        let positions = frames.iter().map(|frame| frame.position);
        let cached = self.log().cached_batches(number, positions);
        for (frame, cached) in frames.iter().zip(cached) {
            match cached {
                Some(batch) => parts.push_batch(&batch),
                None => read_run(segment, std::slice::from_ref(frame), &mut parts)?,
            }
        }
        Ok(parts.finish())
    }
}

impl Frames {
    /// Returns whether the frames are a small part of what lies between the first and the last.
    fn is_sparse(&self) -> bool {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else {
            return false;
        };
        let span = u64::from(last.position) + u64::from(last.bytes) - u64::from(first.position);
        let bytes: u64 = self.frames.iter().map(|frame| u64::from(frame.bytes)).sum();
        span > 4 * bytes
    }
}

/// Asks the disk for frames that are read next: they lie too far apart for it to guess.
fn announce(segment: &Segment, frames: &[FrameRef]) {
    let is_near = |one: &FrameRef, next: &FrameRef| {
        next.position.saturating_sub(one.position.saturating_add(one.bytes)) < FETCH_GAP
    };
    for run in frames.chunk_by(is_near) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            let end = u64::from(last.position) + u64::from(last.bytes);
            segment.file.will_need(first.position.into(), end - u64::from(first.position));
        }
    }
}

/// Reads frames that lie end to end.
fn read_run(segment: &Segment, run: &[FrameRef], parts: &mut Parts) -> Result<(), StorageError> {
    let Some(first) = run.first() else { return Ok(()) };
    let len: u64 = run.iter().map(|frame| u64::from(frame.bytes)).sum();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let bytes = segment.read(first.position.into(), len)?;
    for frame in run {
        let at = usize::try_from(frame.position - first.position).unwrap_or(usize::MAX);
        check_head(segment, frame, bytes.get(at..).unwrap_or_default())?;
    }
    if bytes.len() != len {
        return Err(segment.corrupt(first.position.into(), "whole batches", "the end of the file"));
    }
    parts.push(bytes);
    Ok(())
}

/// Refuses bytes that do not begin like the batch of a frame: offset, length and how many offsets it
/// takes up.
fn check_head(segment: &Segment, frame: &FrameRef, bytes: &[u8]) -> Result<(), StorageError> {
    let wrong = |found: &str| {
        let expected = format!("the batch of offset {}", frame.base_offset);
        Err(segment.corrupt(frame.position.into(), &expected, found))
    };
    if bytes.len() < HEADER_LEN {
        return wrong("the end of the file");
    }
    let offset = u64::from_be_bytes(array_at(bytes, 0));
    let len = u32::from_be_bytes(array_at(bytes, 8)).checked_add(12);
    // Field "last offset delta".
    let count = u32::from_be_bytes(array_at(bytes, 23)).checked_add(1);
    let expected = (frame.base_offset, Some(frame.bytes), Some(frame.offset_count));
    if (offset, len, count) == expected { Ok(()) } else { wrong("another") }
}

/// Returns the first record that reaches a time. What does not open is not refused here: its consumer
/// is told; it begins with the batch.
fn first_at_time(batch: &Batch, time_ms: i64, from: u64) -> Option<(u64, i64)> {
    let header = batch.header();
    let whole = Some((batch.base_offset().max(from), header.max_timestamp));
    let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
    let Ok(records) = batch.records(limit) else { return whole };
    for record in &records {
        let Ok(record) = record else { return whole };
        if record.timestamp_ms >= time_ms && record.offset >= from {
            return Some((record.offset, record.timestamp_ms));
        }
    }
    None
}

/// Gathers what is handed out.
#[derive(Default)]
struct Parts {
    parts: Vec<Bytes>,
    small: BytesMut,
}

impl Parts {
    fn push(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BELOW {
            self.small.put_slice(&bytes);
            return;
        }
        self.flush();
        self.parts.push(bytes);
    }

    fn push_batch(&mut self, batch: &Batch) {
        self.small.put_slice(batch.head());
        if batch.tail().len() < COPY_BELOW {
            self.small.put_slice(batch.tail());
            return;
        }
        self.flush();
        // The clone counts a reference.
        self.parts.push(batch.tail().clone());
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.parts
    }
}
