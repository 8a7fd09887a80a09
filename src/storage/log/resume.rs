//! Where a recovery may begin to read: behind the last entry that a checkpoint covers.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    entry::LogId,
    fold::Chain,
    header::Lsn,
    index::{Past, Place},
    segment::HardState,
    segments::Segments,
    writer::Log,
};
use crate::storage::{StorageError, bug::bug};

/// What the log adds up to behind an entry that was synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Resume {
    /// The log.
    pub(in crate::storage) log_id: u64,
    /// The entry.
    pub(in crate::storage) applied: LogId,
    /// Its number in this log.
    pub(in crate::storage) lsn: Lsn,
    /// Its header's CRC, which the next entry names.
    pub(in crate::storage) header_crc: u32,
    /// The segment it lies in.
    pub(in crate::storage) segment: u64,
    /// Where it starts there.
    pub(in crate::storage) start: u64,
    /// Where it ends.
    pub(in crate::storage) position: u64,
    /// The segments before that one, and how many bytes of each are used.
    pub(in crate::storage) sealed: Vec<(u64, u64)>,
    /// Vote, committed index and purge mark: no older than the entry.
    pub(in crate::storage) hard_state: HardState,
    /// Where the entries up to it lie.
    pub(in crate::storage) past: Past,
    /// The sequencer's chain.
    pub(in crate::storage) chain: Chain,
    /// The next offset of each partition.
    pub(in crate::storage) next_offsets: BTreeMap<u32, u64>,
}

impl Resume {
    /// Returns the entry and where it is; nothing for one of another replica.
    pub(super) fn covered(&self) -> Option<(LogId, Place)> {
        let place = Place {
            segment: u32::try_from(self.segment).ok()?,
            position: u32::try_from(self.start).ok()?,
        };
        (!self.is_installed()).then_some((self.applied, place))
    }

    /// Returns whether the state is that of a snapshot of another replica. Reading then begins behind an entry
    /// that may be any: the entries up to the checkpoint's lie in history segments alone.
    pub(in crate::storage) fn is_installed(&self) -> bool {
        self.past.stretches.is_empty()
    }
}

/// What is to be looked up of an entry, for reading to begin behind it.
#[derive(Debug)]
pub(in crate::storage) struct ResumePlan {
    log_id: u64,
    applied: LogId,
    place: Place,
    synced_lsn: Lsn,
    hard_state: HardState,
    past: Past,
    sealed: Vec<(u64, u64)>,
    segments: Arc<Segments>,
}

impl Log {
    /// Settles how reading begins behind an entry that is applied; `None` as long as it is not known
    /// to be synced.
    pub(in crate::storage) fn plan_resume(&self, applied: LogId) -> Option<ResumePlan> {
        let place = self.fold.index.place(applied.index).or_else(|| self.covered_at(applied))?;
        if !self.is_synced(applied) {
            return None;
        }
        let past = self.fold.index.past(applied.index);
        if past.stretches.is_empty() {
            return None;
        }
        Some(ResumePlan {
            log_id: self.log_id,
            applied,
            place,
            synced_lsn: self.synced_lsn,
            hard_state: HardState { committed: Some(applied.index), ..self.placed_state },
            past,
            // As they are at the entry: a cleaning may replace some while the checkpoint is written.
            sealed: self.segments.sealed_before(u64::from(place.segment)),
            segments: self.segments(),
        })
    }

    /// Returns whether an entry that is applied is known to be synced.
    pub(in crate::storage) fn is_synced(&self, applied: LogId) -> bool {
        // What has left the cache was.
        let lsn = self.tail.lsn_of(applied.index);
        lsn.is_none_or(|lsn| lsn <= self.synced_lsn) || bug!(CheckpointAheadOfSync)
    }

    /// Returns where the entry is that the last checkpoint ends in, if it is that one: its slot may be gone.
    fn covered_at(&self, applied: LogId) -> Option<Place> {
        self.covered.filter(|(id, _)| *id == applied).map(|(_, place)| place)
    }

    /// Hears that a checkpoint covers the entries up to one, where the chain is so: their places are
    /// forgotten, unless the newest entries in memory need them.
    pub(in crate::storage) fn covered(&mut self, applied: LogId, chain: Chain) {
        if let Some(place) = self.fold.index.place(applied.index) {
            self.covered = Some((applied, place));
        }
        // Those in memory keep theirs.
        let last = match self.tail.first_index() {
            Some(first) => first.checked_sub(1).map(|before| before.min(applied.index)),
            None => Some(applied.index),
        };
        self.fold.covered(applied.index, chain, last);
    }
}

impl ResumePlan {
    /// Looks it up; the chain and the next offsets are those of the state at the entry.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub(in crate::storage) fn run(
        self,
        chain: Chain,
        next_offsets: BTreeMap<u32, u64>,
    ) -> Result<Resume, StorageError> {
        let number = u64::from(self.place.segment);
        let lost =
            |reason: String| StorageError::Discontinuous { index: self.applied.index, reason };
        let segment = self
            .segments
            .get(number)
            .ok_or_else(|| lost(format!("segment {number} is not part of the log")))?;
        let position = u64::from(self.place.position);
        let (header, header_crc) = segment.read_header(position)?;
        if (header.term, header.index) != (self.applied.term, self.applied.index) {
            let expected = format!("entry {}", self.applied.index);
            return Err(segment.corrupt(position, &expected, &format!("entry {}", header.index)));
        }
        if header.lsn > self.synced_lsn && !bug!(CheckpointAheadOfSync) {
            return Err(lost("it is not known to be synced".to_owned()));
        }
        Ok(Resume {
            log_id: self.log_id,
            applied: self.applied,
            lsn: header.lsn,
            header_crc,
            segment: number,
            start: position,
            position: position + header.total_bytes(),
            sealed: self.sealed,
            hard_state: self.hard_state,
            past: self.past,
            chain,
            next_offsets,
        })
    }
}
