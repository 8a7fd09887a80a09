//! A snapshot of another replica takes the place of the beginning of a log.
//!
//! Nothing of the log is moved or cut. A manifest says from where on the log is read, and what lies before
//! that counts no more. Where the log has the snapshot's last entry, it is read from behind that one: what
//! stands there was acknowledged, and stays. Where it has another in its place, or none, it is read from its end.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    entry::{Control, Item, LogId},
    fold::Chain,
    header::{EntryHeader, Kind, Lsn},
    index::Past,
    resume::Resume,
    segment::HardState,
    segments::Segment,
    writer::Log,
};
use crate::storage::{StorageError, bug::bug};

/// From where on a log is read when a snapshot has taken the place of what lies before.
#[derive(Debug)]
pub(in crate::storage) struct Footing {
    segment: Arc<Segment>,
    start: u64,
    header: EntryHeader,
    header_crc: u32,
    /// The entries behind it stay.
    pub(in crate::storage) keeps_own: bool,
}

impl Log {
    /// Appends an entry that says nothing, for the log to be read from behind it.
    ///
    /// # Errors
    /// [`StorageError::Failed`] after a failed write.
    pub fn mark(&mut self) -> Result<Lsn, StorageError> {
        self.check_usable()?;
        self.marked_committed = self.fold.hard_state.committed;
        self.enqueue(Item::Control(Control::Sync), Item::Control(Control::Sync).encoded_bytes());
        self.marked_lsn = self.last_lsn();
        Ok(self.marked_lsn)
    }

    /// Returns from where on the log would be read if a snapshot ended in an entry; `None` as long as that is
    /// not synced: where the log does not have the entry, this takes a [`Log::mark`] behind which is nothing.
    ///
    /// # Errors
    /// [`StorageError::Failed`]; [`StorageError::Snapshot`] where the log contradicts it;
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub(in crate::storage) fn footing(
        &self,
        applied: LogId,
        mark: Lsn,
    ) -> Result<Option<Footing>, StorageError> {
        self.check_usable()?;
        let own = self.fold.index.id_at(applied.index);
        let HardState { committed, purged, .. } = self.fold.hard_state;
        let is_other = own != Some(applied) && committed >= Some(applied.index);
        if is_other || purged.is_some_and(|mark| mark.index >= applied.index) {
            let reason = format!(
                "the log has committed up to {} and purged up to {}",
                committed.unwrap_or_default(),
                purged.map_or(0, |mark| mark.index)
            );
            return Err(StorageError::Snapshot { index: applied.index, reason });
        }
        if own == Some(applied) && !bug!(InstallDropsOwn) {
            return self.footing_at(applied);
        }
        let is_quiet = self.pending.is_empty()
            && !self.group_in_flight
            && self.unsynced.is_none()
            && (self.last_lsn(), self.synced_lsn) == (mark, mark);
        let Some(active) = self.active.as_ref().filter(|_| is_quiet) else { return Ok(None) };
        let start = active.position - Item::Control(Control::Sync).encoded_bytes();
        let (header, header_crc) = active.segment.read_header(start)?;
        if (header.kind, header.lsn) != (Kind::Sync, mark) {
            let found = format!("{:?} entry {}", header.kind, header.lsn);
            return Err(active.segment.corrupt(start, &format!("the mark {mark}"), &found));
        }
        let segment = Arc::clone(&active.segment);
        Ok(Some(Footing { segment, start, header, header_crc, keeps_own: false }))
    }

    fn footing_at(&self, applied: LogId) -> Result<Option<Footing>, StorageError> {
        let is_synced = self.tail.lsn_of(applied.index).is_none_or(|lsn| lsn <= self.synced_lsn);
        let Some(place) = self.fold.index.place(applied.index).filter(|_| is_synced) else {
            return Ok(None);
        };
        let lost = || StorageError::Discontinuous {
            index: applied.index,
            reason: "its segment is not part of the log".to_owned(),
        };
        let segment = self.segments.get(place.segment.into()).ok_or_else(lost)?;
        let start = u64::from(place.position);
        let (header, header_crc) = segment.read_header(start)?;
        if (header.term, header.index) != (applied.term, applied.index) {
            let expected = format!("entry {}", applied.index);
            return Err(segment.corrupt(start, &expected, &format!("entry {}", header.index)));
        }
        Ok(Some(Footing { segment, start, header, header_crc, keeps_own: true }))
    }

    /// Returns how reading begins when a snapshot has taken its place.
    pub(in crate::storage) fn resume_at(
        &self,
        footing: &Footing,
        applied: LogId,
        history: &[Arc<Segment>],
    ) -> Resume {
        let len = |segment: &Arc<Segment>| segment.sealed_len().unwrap_or_default();
        Resume {
            log_id: self.log_id,
            applied,
            lsn: footing.header.lsn,
            header_crc: footing.header_crc,
            segment: footing.segment.number,
            start: footing.start,
            position: footing.start + footing.header.total_bytes(),
            sealed: history.iter().map(|segment| (segment.number, len(segment))).collect(),
            hard_state: HardState {
                vote: self.placed_state.vote,
                purged: Some(applied),
                committed: Some(applied.index),
            },
            past: Past::default(),
            chain: Chain::default(),
            next_offsets: BTreeMap::new(),
        }
    }

    /// Goes on behind a snapshot, which lies in history segments. Returns the segments that count no more.
    pub(in crate::storage) fn installed(
        &mut self,
        footing: &Footing,
        applied: LogId,
        sums: (Chain, BTreeMap<u32, u64>),
        history: &[Arc<Segment>],
    ) -> Vec<Arc<Segment>> {
        self.fold.installed(applied, sums, footing.keeps_own);
        self.covered = None;
        self.placed_state.adopt(Control::Purge(applied));
        if footing.keeps_own {
            self.tail.drop_up_to(applied.index);
        } else {
            self.tail.truncate_after(None);
        }
        self.preparation.log_bytes +=
            history.iter().filter_map(|segment| segment.sealed_len()).sum::<u64>();
        self.segments.begin_with(history, footing.segment.number)
    }

    /// Accepts nothing any more: what the directory says is not known.
    pub(in crate::storage) fn fail(&mut self) {
        self.has_failed = true;
    }
}
