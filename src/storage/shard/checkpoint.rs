//! When a checkpoint is due, and what a shard opens with.

use std::{
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
};

use super::Shard;
use crate::storage::{
    CheckpointDone, CheckpointFinished, CheckpointJob, CheckpointResult, StorageError,
    checkpoint::Capture,
    disk::Disk,
    log::{Place, entry::LogId, positions, read_placed},
    stream::StreamIndex,
};

/// What is known of a shard's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The least growth of the log from one to the next.
    every_bytes: u64,
    /// How far the log had grown when the last one was taken, or tried.
    grown_bytes: u64,
    /// The last one's size.
    pub(super) bytes: u64,
    /// Where it was taken.
    pub(super) applied: Option<LogId>,
    is_under_way: bool,
}

impl Checkpoints {
    pub(super) fn new(every_bytes: u64) -> Self {
        Self { every_bytes, ..Self::default() }
    }
}

impl Shard {
    fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        // A panic ends the process; until it has, what the lock guards is whole.
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns work on a checkpoint, if one is due and none is under way: when the log has grown by the
    /// shard's interval, and by the size of the last checkpoint.
    pub fn next_checkpoint(&self) -> Option<CheckpointJob> {
        let mut known = self.checkpoints();
        let grown_bytes = self.log().grown_bytes();
        let due = known.every_bytes.max(known.bytes);
        if grown_bytes.saturating_sub(known.grown_bytes) < due {
            return None;
        }
        self.capture(&mut known, grown_bytes)
    }

    /// Returns work on a checkpoint, whether one is due or not; `None` where the last one has everything
    /// that is applied and synced, or one is under way.
    pub fn checkpoint_now(&self) -> Option<CheckpointJob> {
        let mut known = self.checkpoints();
        let grown_bytes = self.log().grown_bytes();
        self.capture(&mut known, grown_bytes)
    }

    fn capture(&self, known: &mut Checkpoints, grown_bytes: u64) -> Option<CheckpointJob> {
        if known.is_under_way {
            return None;
        }
        let (state, next_offsets, bytes_likely, streams) = {
            let state = self.state();
            let saved = state.save()?;
            let likely = state.index_bytes().max(known.bytes);
            // Apply holds the state while it adds to the streams: both are of one entry.
            (saved, state.next_offsets(), likely, self.stream().save())
        };
        if known.applied.is_some_and(|last| state.applied.index <= last.index) {
            return None;
        }
        let log = self.log();
        let plan = log.plan_resume(state.applied)?;
        let (disk, dir, log_id) = log.home();
        known.is_under_way = true;
        Some(CheckpointJob {
            capture: Capture {
                disk,
                dir: dir.to_path_buf(),
                shard: self.number,
                cluster_id: self.cluster_id,
                log_id,
                state,
                next_offsets,
                streams,
                plan,
                bytes_likely,
                grown_bytes,
            },
        })
    }

    /// Hears how work on a checkpoint ended. One that failed is due again when the log has grown as much
    /// once more.
    pub fn checkpointed(&self, finished: CheckpointFinished, result: &CheckpointResult) {
        let mut known = self.checkpoints();
        known.is_under_way = false;
        known.grown_bytes = finished.grown_bytes;
        if let Ok(CheckpointDone::Written { bytes }) = result {
            known.bytes = *bytes;
            known.applied = Some(finished.applied);
            drop(known);
            self.log().covered(finished.applied, finished.chain);
        }
    }

    /// Returns where the last checkpoint was taken, and its size.
    pub fn last_checkpoint(&self) -> Option<(LogId, u64)> {
        let known = self.checkpoints();
        known.applied.map(|applied| (applied, known.bytes))
    }

    /// Maps the sidecars of segments that were not read, and makes those again that are missing.
    pub(super) fn restore_streams(&self) -> Result<(), StorageError> {
        let missing = self.stream().map_sidecars();
        for number in missing {
            let stretches = self.log().stretches_in(number);
            let mut entries = Vec::new();
            for stretch in stretches {
                let positions = positions(&self.segments, stretch)?;
                for (index, position) in (stretch.first..=stretch.last).zip(positions.iter()) {
                    let place = Place { segment: stretch.segment, position: *position };
                    entries.push((read_placed(Some(place), &self.segments, index)?, place));
                }
            }
            let placed = entries.iter().map(|(entry, place)| (entry, *place));
            self.stream().restore(number, placed);
            self.write_sidecars();
        }
        Ok(())
    }
}

/// Returns the streams of a log from which nothing is applied.
pub(super) fn no_streams(home: (Arc<dyn Disk>, &Path, u64)) -> StreamIndex {
    let (disk, dir, log_id) = home;
    StreamIndex::new(disk, dir, log_id)
}
