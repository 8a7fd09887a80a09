//! What is left of an entry: the records that somebody can still need.

use std::{collections::BTreeMap, sync::Arc};

use prkdb_types::{DecompressLimit, RecordView, batch::Retained};

use crate::storage::{
    StorageError,
    bug::bug,
    kv::{
        catalog::CONTROL_PARTITION,
        state::{DECOMPRESSED_BYTES_MAX, State},
        tree::Root,
    },
    log::{
        Place,
        entry::{Entry, Frame, Payload, Write, batch_positions},
    },
};

/// The shard as it was when a cleaning began. What is needless then stays so.
#[derive(Debug)]
pub(super) struct View {
    roots: BTreeMap<u32, Root>,
    partitions: BTreeMap<u32, Hosted>,
    /// A tombstone that was appended at this time or before may go; none may for `None`.
    tombstones_before_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Hosted {
    collection: u32,
    log_start: u64,
    is_compacted: bool,
}

/// What is left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// `None`: nothing.
    pub(super) entry: Option<Entry>,
    /// Tombstones among it that will go one day.
    pub(super) tombstones: u64,
}

impl View {
    pub(super) fn of(state: &State, grace_ms: u64, tombstones_go: bool) -> Self {
        let catalog = state.catalog();
        let hosted = catalog.partitions.values().map(|put| {
            let stats = state.partition(put.partition);
            let hosted = Hosted {
                collection: put.collection,
                log_start: stats.map_or(0, |stats| stats.log_start),
                is_compacted: put.compact && put.key_index,
            };
            (put.partition, hosted)
        });
        let cut_ms = state.log_time_ms().saturating_sub_unsigned(grace_ms);
        Self {
            roots: state.roots(),
            partitions: hosted.collect(),
            tombstones_before_ms: tombstones_go.then_some(cut_ms),
        }
    }

    /// Returns the collection of a partition that has a key index, and whether its records may go.
    pub(super) fn keyed(&self, partition: u32) -> Option<(u32, bool)> {
        let hosted = self.partitions.get(&partition)?;
        self.roots
            .contains_key(&hosted.collection)
            .then_some((hosted.collection, hosted.is_compacted))
    }

    /// Returns what is left of an entry that lies at a place.
    pub(super) fn left_of(&self, entry: &Entry, place: Place) -> Result<Left, StorageError> {
        let Payload::Normal(write) = &entry.payload else { return Ok(Left::default()) };
        if entry.is_void {
            return Ok(Left::default());
        }
        let (mut frames, mut tombstones) = (Vec::new(), 0);
        for (frame, position) in write.frames.iter().zip(batch_positions(write)) {
            let place = Place { position: place.position + position, ..place };
            let left = self.left_of_frame(write, frame, place, &mut tombstones);
            let left = left.map_err(|error| StorageError::Apply {
                index: entry.id.index,
                reason: error.to_string(),
            })?;
            frames.extend(left);
        }
        if frames.is_empty() {
            return Ok(Left::default());
        }
        let write = Write { frames, ..Write::clone(write) };
        // The clone shares the batches.
        let entry = Entry { payload: Payload::Normal(Arc::new(write)), ..entry.clone() };
        Ok(Left { entry: Some(entry), tombstones })
    }

    fn left_of_frame(
        &self,
        write: &Write,
        frame: &Frame,
        place: Place,
        tombstones: &mut u64,
    ) -> Result<Option<Frame>, prkdb_types::BatchError> {
        if frame.partition == CONTROL_PARTITION {
            return Ok(Some(frame.clone()));
        }
        let Some(hosted) = self.partitions.get(&frame.partition) else { return Ok(None) };
        if frame.base_offset + u64::from(frame.record_count) <= hosted.log_start {
            return Ok(None);
        }
        let root = self.roots.get(&hosted.collection).filter(|_| hosted.is_compacted);
        let Some(root) = root else {
            return Ok(Some(frame.clone()));
        };
        let are_old = self.tombstones_before_ms.is_some_and(|cut| write.append_time_ms <= cut);
        let keeps = |start: u32, record: &RecordView<'_>| {
            let Some(key) = record.key else { return true };
            if record.value.is_none() {
                *tombstones += u64::from(!are_old);
                return !are_old && !bug!(CleanForgetsTombstones);
            }
            bug!(CleanKeepsReplaced)
                || root.get(key).is_some_and(|leaf| {
                    (leaf.segment, leaf.position, leaf.start)
                        == (place.segment, place.position, start)
                })
        };
        let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
        Ok(match frame.batch.retain(limit, keeps)? {
            Retained::All => Some(frame.clone()),
            Retained::Some(batch) => {
                let Frame { partition, record_count, base_offset, .. } = *frame;
                Some(Frame { partition, record_count, base_offset, batch })
            }
            Retained::None => None,
        })
    }
}
