//! The log becomes state: at the start up to the committed index it saved, then entry by entry.

use std::{collections::VecDeque, sync::atomic::Ordering};

use bytes::Bytes;

use super::Shard;
use crate::storage::{
    StorageError,
    kv::state::Applied,
    log::{
        Place,
        entry::{Entry, LogId},
        read_placed,
    },
};

/// Entries are read back in pieces of this size.
const FOLD_BYTES: u64 = 4 << 20;

impl Shard {
    pub(super) fn fold_committed(&self) -> Result<(), StorageError> {
        let log = self.log();
        let (first, committed) = (log.first_index(), log.committed().map(|id| id.index));
        drop(log);
        // A log without entries may have a state that was installed.
        let last = first.and(committed);
        let applied = self.state().applied().map(|applied| applied.index + 1);
        let mut next = applied.or(first).unwrap_or_default();
        while let Some(committed) = last.filter(|last| next <= *last) {
            let plan = self.log().plan_fold(next..committed + 1, FOLD_BYTES);
            let entries = plan.run()?;
            let ids: Vec<LogId> = entries.iter().map(|entry| entry.id).collect();
            let Some(last) = ids.last() else { break };
            next = last.index + 1;
            let places: Vec<Place> = {
                let log = self.log();
                ids.iter().filter_map(|id| log.locate(id.index)).map(|(_, place)| place).collect()
            };
            let mut state = self.state();
            for (entry, place) in entries.iter().zip(places) {
                state.apply(entry, place)?;
                self.stream().append(entry, place);
            }
            drop(state);
            // As soon as they are due, so that no more than a segment's frames are in memory.
            self.write_sidecars();
        }
        self.publish(&mut self.state());
        Ok(())
    }

    pub(super) fn write_sidecars(&self) {
        while let Some(job) = self.next_sidecar() {
            let result = job.run();
            self.sidecar_done(&job, result);
        }
    }

    /// Lets readers see what was applied.
    pub(super) fn publish(&self, state: &mut super::State) {
        let left = self.groups_with_readers.load(Ordering::Relaxed);
        // A reader may set it again meanwhile: then one group fewer is shown, or one more.
        self.groups_with_readers.store(left.saturating_sub(1), Ordering::Relaxed);
        state.publish(&self.roots, &self.catalog, left > 0);
        // Behind the roots: who sees this time sees what had the place of an expired value.
        self.log_time_ms.store(state.log_time_ms(), Ordering::Release);
        let effects = state.take_effects();
        if !effects.is_empty() {
            let stats = |partition| state.partition(partition).copied();
            self.stream().take_effects(effects, state.log_time_ms(), stats);
        }
    }

    /// Returns the last entry applied, and the last membership with the entry that set it.
    pub fn applied(&self) -> (Option<LogId>, Option<(LogId, Bytes)>) {
        let state = self.state();
        (state.applied(), state.membership().cloned())
    }

    /// Applies an entry without frames.
    pub fn apply_blank(&self, id: LogId) {
        self.state().apply_blank(id);
    }

    /// Applies a membership.
    pub fn apply_membership(&self, id: LogId, membership: Bytes) {
        self.state().apply_membership(id, membership);
    }

    /// Applies one normal entry that stands in the log.
    ///
    /// # Errors
    /// As [`Shard::apply_all`].
    pub fn apply(&self, id: LogId) -> Result<Applied, StorageError> {
        let mut applied = self.apply_all(&[id])?;
        applied.pop_front().ok_or_else(|| StorageError::Apply {
            index: id.index,
            reason: "it has no frames".to_owned(),
        })
    }

    /// Applies entries that stand in the log, in order, and publishes once what readers see. Returns
    /// one answer for each entry with frames.
    ///
    /// # Errors
    /// [`StorageError::Apply`] if an entry contradicts the state: a defect, after which the shard
    /// must not go on.
    pub fn apply_all(&self, ids: &[LogId]) -> Result<VecDeque<Applied>, StorageError> {
        let mut located = Vec::with_capacity(ids.len());
        {
            let log = self.log();
            for id in ids {
                located.push((*id, log.locate(id.index)));
            }
        }
        let mut answers = VecDeque::with_capacity(ids.len());
        let mut entries: Vec<(Entry, Place)> = Vec::with_capacity(ids.len());
        let mut state = self.state();
        for (id, found) in located {
            let (cached, place) = found.ok_or_else(|| StorageError::Apply {
                index: id.index,
                reason: "it is not in the log".to_owned(),
            })?;
            let entry = match cached {
                Some(entry) => entry,
                None => read_placed(Some(place), &self.segments, id.index)?,
            };
            answers.extend(state.apply(&entry, place)?);
            entries.push((entry, place));
        }
        {
            let mut stream = self.stream();
            for (entry, place) in &entries {
                stream.append(entry, *place);
            }
        }
        self.publish(&mut state);
        drop(state);
        if let Some(last) = ids.last() {
            self.log().applied(last.index);
        }
        Ok(answers)
    }
}
