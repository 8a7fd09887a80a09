//! What a log's entries add up to: hard state, places, the sequencer's chain, next offsets.
//!
//! The same fold runs when entries are appended and when a log is recovered, so that both agree.
//! Truncation undoes it by reading the entries that go.

use std::collections::BTreeMap;

use super::{
    entry::{Control, Entry, Frame, LogId, Payload, Write},
    index::EntryIndex,
    resume::Resume,
    segment::HardState,
};
use crate::storage::StorageError;

/// The last valid entry of the sequencer's chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Chain {
    /// Its term.
    pub(in crate::storage) term: u64,
    /// Its number in the term.
    pub(in crate::storage) sequence: u64,
}

/// The sum of a log.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// Vote, committed index and purge mark.
    pub(super) hard_state: HardState,
    /// Where the entries are.
    pub(super) index: EntryIndex,
    chain: Chain,
    /// The chain at the last entry that the index has no slot for.
    past_chain: Chain,
    /// The last entry that a checkpoint covers.
    covered: Option<u64>,
    next_offsets: BTreeMap<u32, u64>,
}

/// Reads an entry that is in the log.
pub(super) type ReadEntry<'a> = dyn Fn(&EntryIndex, u64) -> Result<Entry, StorageError> + 'a;

impl Fold {
    /// Returns what the log adds up to where a checkpoint was taken.
    pub(super) fn resumed(resume: &Resume) -> Self {
        Self {
            hard_state: resume.hard_state,
            index: EntryIndex::after(&resume.past),
            chain: resume.chain,
            past_chain: resume.chain,
            covered: Some(resume.applied.index),
            next_offsets: resume.next_offsets.clone(),
        }
    }

    /// A checkpoint covers the entries up to one, where the chain is so. Drops the places of those up to
    /// `last`, if that is one. No valid entry lies between the two that has no place, so the chain is right
    /// for where the places begin then.
    pub(super) fn covered(&mut self, applied: u64, chain: Chain, last: Option<u64>) {
        if let Some(last) = last.filter(|last| self.index.place(*last).is_some()) {
            self.index.forget(last);
        }
        self.past_chain = chain;
        self.covered = Some(applied);
        self.retire();
    }

    /// The entries up to one are those of a snapshot, where chain and next offsets are so: none of them has a
    /// name or a slot here. What stands behind it stays where `keeps_own`, or else goes.
    pub(super) fn installed(
        &mut self,
        applied: LogId,
        (chain, next_offsets): (Chain, BTreeMap<u32, u64>),
        keeps_own: bool,
    ) {
        self.hard_state.adopt(Control::Purge(applied));
        self.hard_state.committed = self.hard_state.committed.max(Some(applied.index));
        self.past_chain = chain;
        self.covered = Some(applied.index);
        if keeps_own {
            self.index.begin_behind(applied.index);
        } else {
            self.index.clear();
            (self.chain, self.next_offsets) = (chain, next_offsets);
        }
    }

    /// Returns the last entry, or else the purge mark.
    pub(super) fn last(&self) -> Option<LogId> {
        // The mark may lie above the last entry; then it is the end of the log.
        self.index.last().max_by_index(self.hard_state.purged)
    }

    /// Returns the sequence of the last valid entry of a term; 0 if it has none.
    pub(super) fn last_sequence(&self, term: u64) -> u64 {
        if self.chain.term == term { self.chain.sequence } else { 0 }
    }

    /// Decides whether an entry continues its sequencer's chain.
    ///
    /// An entry is valid iff its sequencer's term equals its Raft term and its sequence is one more
    /// than that of the last valid entry of that term.
    pub(super) fn is_void(&self, id: LogId, write: &Write) -> bool {
        write.sequencer_term != id.term || write.sequence != self.last_sequence(id.term) + 1
    }

    /// Adds an entry whose void flag is set.
    ///
    /// # Errors
    /// [`StorageError::Discontinuous`] if it leaves a hole in the log or in a partition's offsets.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), StorageError> {
        let id = entry.id;
        let refuse = |reason: String| StorageError::Discontinuous { index: id.index, reason };
        match self.last() {
            Some(last) if last.index.checked_add(1) != Some(id.index) => {
                return Err(refuse(format!("the last entry is {}", last.index)));
            }
            Some(last) if last.term > id.term => {
                return Err(refuse(format!(
                    "its term is {}, the last one's {}",
                    id.term, last.term
                )));
            }
            _ => {}
        }
        if let Payload::Normal(write) = &entry.payload
            && !entry.is_void
        {
            for (at, frame) in write.frames.iter().enumerate() {
                let next = self.next_offsets.entry(frame.partition).or_default();
                if *next != frame.base_offset {
                    let reason = format!(
                        "partition {} has base offset {}, its next is {next}",
                        frame.partition, frame.base_offset
                    );
                    self.take_back(write.frames.get(..at).unwrap_or_default());
                    return Err(refuse(reason));
                }
                *next += u64::from(frame.record_count);
            }
            self.chain = Chain { term: id.term, sequence: write.sequence };
        }
        if self.index.last().is_some_and(|last| last.index + 1 != id.index) {
            // The purge mark was set above the last entry: the log goes on behind the mark.
            self.index.clear();
            self.past_chain = Chain::default();
        }
        self.index.push(id);
        Ok(())
    }

    /// Adds a control entry.
    ///
    /// # Errors
    /// Those of `read`, for the entries that a truncation takes away.
    pub(super) fn control(
        &mut self,
        control: Control,
        read: &ReadEntry<'_>,
    ) -> Result<(), StorageError> {
        self.hard_state.adopt(control);
        match control {
            Control::Truncate(kept) => self.truncate(kept, read),
            Control::Purge(_) => {
                self.retire();
                Ok(())
            }
            Control::Vote(_) | Control::Sync => Ok(()),
        }
    }

    /// What lies at or below the purge mark is history: Raft does not ask for it any more. Without a
    /// checkpoint the state is built of it.
    fn retire(&mut self) {
        if let (Some(mark), Some(covered)) = (self.hard_state.purged, self.covered) {
            self.index.retire(mark.index.min(covered));
        }
    }

    /// Gives back the offsets of frames that were added last.
    fn take_back(&mut self, frames: &[Frame]) {
        for frame in frames.iter().rev() {
            self.next_offsets.insert(frame.partition, frame.base_offset);
        }
    }

    fn truncate(&mut self, kept: Option<LogId>, read: &ReadEntry<'_>) -> Result<(), StorageError> {
        let kept_index = kept.map(|id| id.index);
        let first_gone = kept_index.map_or(0, |index| index + 1);
        while let Some(last) = self.index.last().filter(|last| last.index >= first_gone) {
            let entry = read(&self.index, last.index)?;
            if let Payload::Normal(write) = &entry.payload
                && !entry.is_void
            {
                self.take_back(&write.frames);
            }
            self.index.truncate_after(last.index.checked_sub(1));
        }
        self.index.truncate_after(kept_index);
        self.chain = self.chain_at_end(read)?;
        Ok(())
    }

    /// Finds the last valid entry by walking back; it is nearly always the last one.
    fn chain_at_end(&self, read: &ReadEntry<'_>) -> Result<Chain, StorageError> {
        let first = self.index.first_slot();
        let end = self.index.last().map_or(first, |last| last.index + 1);
        for index in (first..end).rev() {
            let entry = read(&self.index, index)?;
            if let Payload::Normal(write) = &entry.payload
                && !entry.is_void
            {
                return Ok(Chain { term: entry.id.term, sequence: write.sequence });
            }
        }
        Ok(self.past_chain)
    }
}

/// The later of two positions in the log.
trait MaxByIndex {
    fn max_by_index(self, other: Self) -> Self;
}

impl MaxByIndex for Option<LogId> {
    fn max_by_index(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if b.index > a.index { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
