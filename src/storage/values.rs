//! The values that leaves of the key index point at.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use prkdb_types::{BatchError, DecompressLimit, RecordView, Records};

use super::{
    Found, StorageError,
    kv::{state::DECOMPRESSED_BYTES_MAX, tree::Leaf},
    log::{PinnedSegments, Segment},
};

/// Batches that a reader keeps. Neighbouring keys of one load lie in a batch for each partition.
const KEPT_MAX: usize = 16;
/// Bytes of the batches that a reader keeps, beside the one it reads from.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Reads the values of many leaves: a batch that was read lately is not read, decompressed and walked
/// again for each of its records.
#[derive(Debug)]
pub struct ValueReader {
    segments: PinnedSegments,
    kept: VecDeque<Kept>,
}

/// A batch.
#[derive(Debug)]
struct Kept {
    segment: Arc<Segment>,
    position: u32,
    records: Records,
}

impl ValueReader {
    /// Returns a reader of what the keys of a snapshot point at.
    pub(super) fn new(segments: &PinnedSegments) -> Self {
        // The clone counts a reference.
        Self { segments: segments.clone(), kept: VecDeque::new() }
    }

    /// Reads the record at a leaf.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn read(&mut self, leaf: Leaf) -> Result<Found, StorageError> {
        let is_kept = |kept: &&Kept| {
            (kept.segment.number, kept.position) == (u64::from(leaf.segment), leaf.position)
        };
        if let Some(kept) = self.kept.iter().find(is_kept) {
            return kept.read(leaf);
        }
        let segment = known(self.segments.get(u64::from(leaf.segment)), leaf)?;
        let records = records(&segment, leaf)?;
        let kept = Kept { segment, position: leaf.position, records };
        let found = kept.read(leaf);
        self.kept.truncate(KEPT_MAX - 1);
        while self.kept.iter().map(Kept::bytes).sum::<usize>() > KEPT_BYTES_MAX {
            self.kept.pop_back();
        }
        self.kept.push_front(kept);
        found
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.records.payload_len()
    }

    fn read(&self, leaf: Leaf) -> Result<Found, StorageError> {
        let record = self.records.get_at(leaf.start);
        found(&self.segment, leaf, &record.map_err(|error| damaged(&self.segment, leaf, &error))?)
    }
}

/// Reads the record at a leaf from its segment, if that is part of the log.
///
/// # Errors
/// [`StorageError::Io`] and [`StorageError::Corrupt`].
pub(super) fn read(segment: Option<&Segment>, leaf: Leaf) -> Result<Found, StorageError> {
    let segment = known(segment, leaf)?;
    segment
        .with_record(u64::from(leaf.position), leaf.start, |record| found(segment, leaf, record))?
}

/// Reads the record at a leaf with its headers; one without a value has an empty one.
///
/// # Errors
/// As [`read`].
pub(super) fn read_with_headers(
    segment: Option<&Segment>,
    leaf: Leaf,
) -> Result<(Found, Vec<(String, Bytes)>), StorageError> {
    let segment = known(segment, leaf)?;
    segment.with_record(u64::from(leaf.position), leaf.start, |record| {
        let own = |(name, value): (&str, Option<&[u8]>)| {
            (name.to_owned(), Bytes::copy_from_slice(value.unwrap_or_default()))
        };
        Ok((found(segment, leaf, record)?, record.headers().map(own).collect()))
    })?
}

fn known<S>(segment: Option<S>, leaf: Leaf) -> Result<S, StorageError> {
    segment.ok_or_else(|| StorageError::Discontinuous {
        index: leaf.version,
        reason: format!("segment {} is not part of the log", leaf.segment),
    })
}

fn records(segment: &Segment, leaf: Leaf) -> Result<Records, StorageError> {
    segment
        .read_batch(u64::from(leaf.position))?
        .records(DecompressLimit::new(DECOMPRESSED_BYTES_MAX))
        .map_err(|error| damaged(segment, leaf, &error))
}

fn found(segment: &Segment, leaf: Leaf, record: &RecordView<'_>) -> Result<Found, StorageError> {
    if record.offset != leaf.version {
        return Err(corrupt(segment, leaf, &format!("that of offset {}", record.offset)));
    }
    let value = record.value_bytes_alone();
    Ok(Found {
        value: value.ok_or_else(|| corrupt(segment, leaf, "a tombstone"))?,
        version: leaf.version,
        partition: leaf.partition,
        timestamp_ms: record.timestamp_ms,
        expires_ms: leaf.expires_ms,
    })
}

fn damaged(segment: &Segment, leaf: Leaf, error: &BatchError) -> StorageError {
    corrupt(segment, leaf, &error.to_string())
}

fn corrupt(segment: &Segment, leaf: Leaf, found: &str) -> StorageError {
    segment.corrupt(u64::from(leaf.position), "a batch with the record", found)
}
