//! When a checkpoint is due, and what a shard opens with.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, MutexGuard, PoisonError, TryLockError, Weak},
};

use super::Shard;
use crate::storage::{
    CheckpointDone, CheckpointFinished, CheckpointJob, CheckpointResult, SnapshotVersion,
    StorageError,
    bug::bug,
    checkpoint::Capture,
    disk::Disk,
    log::{
        Entries, Place, Segment,
        entry::{Item, LogId},
        is_history, positions, read_placed,
    },
    stream::StreamIndex,
};

/// What is known of a shard's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The least growth of the log from one to the next.
    every_bytes: u64,
    /// How far the log had grown when the last one was taken, or tried.
    grown_bytes: u64,
    /// How far it had grown when the last one was tried, if that failed.
    failed_at: Option<u64>,
    /// The last one's size.
    pub(super) bytes: u64,
    /// Where it was taken.
    pub(super) applied: Option<LogId>,
    /// The number of the last one's manifest.
    pub(super) generation: u64,
    /// The highest that was tried.
    tried_generation: u64,
    /// Whether the log was ever cleaned.
    pub(super) is_cleaned: bool,
    /// Segments that cleanings have replaced, which the last one's manifest names.
    pub(super) retired: Vec<Arc<Segment>>,
    /// Segments that no manifest names any more, for readers that still look there.
    pub(super) gone: Vec<Arc<Segment>>,
    /// Those of them that were so at the last look.
    pub(super) going: Vec<Arc<Segment>>,
    /// The snapshot of another replica that is being prepared, if it still is.
    pub(super) installing: Weak<()>,
    /// Counts those that were.
    pub(super) installs: u64,
    /// Snapshots that somebody may hold.
    pub(super) copied: Vec<Weak<SnapshotVersion>>,
    pub(super) is_under_way: bool,
    /// Segments that cannot be cleaned because they cannot be read.
    pub(super) unreadable: BTreeSet<u64>,
    /// A cleaning stopped half way: what is in memory must not be written.
    pub(super) is_broken: bool,
}

impl Checkpoints {
    pub(super) fn new(every_bytes: u64) -> Self {
        Self { every_bytes, ..Self::default() }
    }

    /// Returns whether a snapshot of another replica is prepared: what the shard has is about to go.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.strong_count() > 0
    }

    /// Returns the number of the next manifest. None is tried twice: where a commit failed the disk may name a
    /// checkpoint that nobody here knows of, and its file must stay as it is.
    pub(super) fn next_generation(&mut self) -> u64 {
        if !bug!(GenerationTriedTwice) {
            self.tried_generation = self.tried_generation.max(self.generation) + 1;
            return self.tried_generation;
        }
        self.generation + 1
    }

    /// Returns why none is begun.
    fn refuses(&self) -> Option<&'static str> {
        match (self.is_broken, self.is_installing()) {
            (true, _) => Some("the shard has failed"),
            (_, true) => Some("a snapshot of another replica is about to be installed"),
            (false, false) => None,
        }
    }

    /// Hears that a snapshot of another replica has taken the place of everything.
    pub(super) fn installed(&mut self, grown_bytes: u64, gone: &[Arc<Segment>]) {
        (self.grown_bytes, self.failed_at) = (grown_bytes, None);
        self.is_cleaned = true;
        self.retired.clear();
        self.gone.extend(gone.iter().cloned());
    }
}

impl Shard {
    pub(super) fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        // A panic ends the process; until it has, what the lock guards is whole.
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns work on a checkpoint, if one is due and none is under way: when the log has grown by the
    /// shard's interval, and by the size of the last checkpoint.
    pub fn next_checkpoint(&self) -> Option<CheckpointJob> {
        let relocation = match self.relocation.try_lock() {
            Err(TryLockError::WouldBlock) if !bug!(CheckpointInRelocation) => return None,
            held => held,
        };
        let mut known = self.checkpoints();
        let grown_bytes = self.log().grown_bytes();
        let due = known.every_bytes.max(known.bytes);
        let gives_back = grown_bytes.saturating_sub(known.grown_bytes) < due;
        if gives_back && !self.gives_back(&known, grown_bytes) {
            return None;
        }
        let job = self.capture(&mut known, grown_bytes, gives_back);
        drop((known, relocation));
        job
    }

    /// A checkpoint is also what gives room back: worth it where that is as much as it takes. Files of
    /// segments that were replaced can go then, and segments above the last one can be cleaned.
    fn gives_back(&self, known: &Checkpoints, grown_bytes: u64) -> bool {
        // One that failed is not tried again at once.
        let pause = known.every_bytes / 16;
        if known.failed_at.is_some_and(|at| grown_bytes.saturating_sub(at) < pause) {
            return false;
        }
        let retired: u64 = known.retired.iter().filter_map(|segment| segment.sealed_len()).sum();
        if retired > 0 && retired >= known.bytes.min(known.every_bytes) {
            return true;
        }
        let log = self.log();
        let last = known.applied.and_then(|applied| log.segment_of(applied.index));
        drop(log);
        let sealed = self.segments.sealed_before(u64::MAX);
        let above =
            sealed.iter().skip_while(|(number, _)| last.is_some_and(|last| *number != last));
        let stream = self.stream();
        let needless = above.filter_map(|(number, bytes)| {
            stream.usage_of(*number).map(|usage| usage.needless_bytes(*bytes, false))
        });
        needless.sum::<u64>() >= known.bytes.max(known.every_bytes / 4)
    }

    /// Returns work on a checkpoint, whether one is due or not; `None` where the last one has everything
    /// that is applied and synced, or one is under way. Waits for keys that are being pointed elsewhere.
    pub fn checkpoint_now(&self) -> Option<CheckpointJob> {
        let relocation = (!bug!(CheckpointInRelocation)).then(|| self.relocation());
        let mut known = self.checkpoints();
        let grown_bytes = self.log().grown_bytes();
        let job = self.capture(&mut known, grown_bytes, false);
        drop((known, relocation));
        job
    }

    /// Returns why no checkpoint is begun for now, if that is so.
    pub fn takes_no_checkpoint(&self) -> Option<&'static str> {
        self.checkpoints().refuses()
    }

    pub(super) fn relocation(&self) -> MutexGuard<'_, ()> {
        self.relocation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn capture(
        &self,
        known: &mut Checkpoints,
        grown_bytes: u64,
        gives_back: bool,
    ) -> Option<CheckpointJob> {
        if known.is_under_way || known.refuses().is_some() {
            return None;
        }
        // Saving the state takes a while, in which nothing is applied.
        if !self.applied().0.is_some_and(|applied| self.log().is_synced(applied)) {
            return None;
        }
        let (state, next_offsets, bytes_likely, streams) = {
            let state = self.state();
            let saved = state.save()?;
            let likely = state.index_bytes().max(known.bytes);
            // Apply holds the state while it adds to the streams: both are of one entry.
            (saved, state.next_offsets(), likely, self.stream().save())
        };
        let is_behind = known.applied.is_none_or(|last| state.applied.index > last.index);
        if !is_behind && known.retired.is_empty() {
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
                generation: known.next_generation(),
                is_cleaned: known.is_cleaned,
                retired: known.retired.len(),
                gives_back: gives_back || !known.retired.is_empty(),
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
        known.failed_at = Some(finished.grown_bytes);
        if let Ok(CheckpointDone::Written { bytes }) = result {
            known.failed_at = None;
            known.bytes = *bytes;
            known.applied = Some(finished.applied);
            known.generation = finished.generation;
            let gone: Vec<_> = known.retired.drain(..finished.retired).collect();
            known.gone.extend(gone.iter().cloned());
            drop(known);
            self.remove_files(&gone);
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
            if is_history(number) {
                self.restore_history(number)?;
                continue;
            }
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

impl Shard {
    /// Makes the tracks of a history segment again.
    fn restore_history(&self, number: u64) -> Result<(), StorageError> {
        let Some(segment) = self.segments.get(number) else { return Ok(()) };
        let mut entries = Entries::of_history(&segment);
        let mut found = Vec::new();
        while let Some((position, _, item)) = entries.next()? {
            if let Item::Entry(entry) = item {
                let place = Place {
                    segment: u32::try_from(number).unwrap_or(u32::MAX),
                    position: u32::try_from(position).unwrap_or(u32::MAX),
                };
                found.push((entry, place));
            }
        }
        let placed = found.iter().map(|(entry, place)| (entry, *place));
        self.stream().restore(number, placed);
        self.write_sidecars();
        Ok(())
    }
}

/// Returns the streams of a log from which nothing is applied.
pub(super) fn no_streams(home: (Arc<dyn Disk>, &Path, u64)) -> StreamIndex {
    let (disk, dir, log_id) = home;
    StreamIndex::new(disk, dir, log_id)
}
