//! The writer of a log: entries are appended in memory, and leave as groups that a driver writes
//! and syncs.
//!
//! `append` never waits and never fails for want of room: an entry gets its place when its group is
//! cut ([`Log::next_flush`]), in the active segment or, if it does not fit, in the next prepared one.
//! One group is under way at a time; what arrives meanwhile makes the next one. A group's entries
//! count as durable when [`Log::flushed`] hears that its sync returned, and not before.
//!
//! A failed write or sync ends the log: nothing is written after it, nothing is tried again.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    entry::{Control, Entry, Item, LogId, Payload, Stamp, Vote},
    fold::Fold,
    header::Lsn,
    index::{EntryIndex, Place, Stretch},
    job::FlushJob,
    options::LogOptions,
    prepare::Preparation,
    segment::{HardState, SEGMENT_HEADER_BYTES, SegmentHeader},
    segments::{Segment, Segments},
    tail::TailCache,
};
use crate::storage::{StorageError, bug::bug, disk::Disk};

/// One replica's log of one shard.
#[derive(Debug)]
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) log_id: u64,
    pub(super) segments: Arc<Segments>,
    pub(super) fold: Fold,
    /// The entry that the last checkpoint ends in, and where it is.
    pub(super) covered: Option<(LogId, Place)>,
    /// Vote and purge mark of the entries that have a place: what a page may repeat. A page that
    /// told more would speak of entries that stand behind it, or that never reach the disk.
    pub(super) placed_state: HardState,
    pub(super) tail: TailCache,
    pub(super) pending: VecDeque<Pending>,
    pub(super) pending_bytes: u64,
    pub(super) active: Option<Active>,
    /// Where the next segment is tied to the log.
    pub(super) joint: Joint,
    pub(super) preparation: Preparation,
    pub(super) next_lsn: Lsn,
    pub(super) synced_lsn: Lsn,
    /// Bytes written since the start, and those that were read at it.
    pub(super) grown_bytes: u64,
    pub(super) group_in_flight: bool,
    /// What was written and is not synced: the last number, and in which segment.
    pub(super) unsynced: Option<(Lsn, Arc<Segment>)>,
    pub(super) has_failed: bool,
    /// Highest LSN that a SYNC entry, or the start, has made needless to repeat.
    pub(super) marked_lsn: Lsn,
    /// The committed index that the newest header on disk, or on its way there, has.
    pub(super) marked_committed: Option<u64>,
    /// The unused tail of the segment before this start. It is given back when the segment after it
    /// is synced: until then it may hold the only evidence of the watermark.
    pub(super) stale_tail: Option<(Arc<Segment>, Range<u64>)>,
    /// The time that new segments carry, told by the driver.
    pub(super) now_ms: i64,
}

/// An item that waits for its group.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) lsn: Lsn,
    pub(super) item: Item,
    pub(super) bytes: u64,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    /// The next byte to write; 0 = not even the header is written.
    pub(super) position: u64,
    pub(super) capacity: u64,
}

/// What the next segment's header says about the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Joint {
    pub(super) predecessor: u64,
    pub(super) cut_lsn: Lsn,
    pub(super) cut_position: u64,
    /// Header CRC of the last entry.
    pub(super) prev_crc: u32,
}

/// The log's ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The purge mark.
    pub purged: Option<LogId>,
    /// The last entry, or else the purge mark.
    pub last: Option<LogId>,
}

impl Log {
    /// Appends entries in memory and returns the number of the last one. Sets their void flags.
    ///
    /// # Errors
    /// [`StorageError::Discontinuous`] if an entry does not continue the log, and
    /// [`StorageError::Failed`] after a failed write.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<Lsn, StorageError> {
        self.check_usable()?;
        for mut entry in entries {
            if let Payload::Normal(write) = &entry.payload {
                entry.is_void = self.fold.is_void(entry.id, write);
            }
            self.fold.push(&entry)?;
            let item = Item::Entry(entry.clone());
            let bytes = item.encoded_bytes();
            self.tail.push(entry, bytes, self.next_lsn);
            self.enqueue(item, bytes);
        }
        Ok(self.last_lsn())
    }

    /// Remembers a vote; it is durable when the number returned is synced.
    ///
    /// # Errors
    /// [`StorageError::Failed`] after a failed write.
    pub fn save_vote(&mut self, vote: Vote) -> Result<Lsn, StorageError> {
        self.control(Control::Vote(vote))
    }

    /// Drops every entry behind `kept`; durable when the number returned is synced.
    ///
    /// # Errors
    /// [`StorageError::Failed`] after a failed write, and what reading the dropped entries meets.
    pub fn truncate_after(&mut self, kept: Option<LogId>) -> Result<Lsn, StorageError> {
        let lsn = self.control(Control::Truncate(kept))?;
        self.tail.truncate_after(kept.map(|id| id.index));
        Ok(lsn)
    }

    /// Moves the purge mark; durable when the number returned is synced. Deletes nothing.
    ///
    /// # Errors
    /// [`StorageError::Failed`] after a failed write.
    pub fn purge(&mut self, up_to: LogId) -> Result<Lsn, StorageError> {
        self.control(Control::Purge(up_to))
    }

    /// Remembers the committed index; it rides in the next header.
    pub fn set_committed(&mut self, committed: Option<LogId>) {
        let index = committed.map(|id| id.index);
        if index > self.fold.hard_state.committed {
            self.fold.hard_state.committed = index;
        }
    }

    /// Returns the committed index as last remembered, with its term looked up in the log.
    pub fn committed(&self) -> Option<LogId> {
        let index = self.fold.hard_state.committed?;
        self.fold.index.id_at(index).or(self.fold.hard_state.purged.filter(|p| p.index >= index))
    }

    /// Returns the last vote.
    pub fn vote(&self) -> Option<Vote> {
        self.fold.hard_state.vote
    }

    /// Returns the sequence of the last entry of a term that is not void; 0 if there is none.
    pub fn last_sequence(&self, term: u64) -> u64 {
        self.fold.last_sequence(term)
    }

    /// Returns the index of the first entry the log holds, purged or not.
    pub fn first_index(&self) -> Option<u64> {
        self.fold.index.first().map(|id| id.index)
    }

    /// Returns how many bytes of entries are in memory.
    pub fn tail_cache_bytes(&self) -> u64 {
        self.tail.bytes()
    }

    /// Returns how many bytes the segments have.
    pub fn log_bytes(&self) -> u64 {
        self.preparation.log_bytes
    }

    /// Returns how many bytes were read at the start and written since.
    pub(in crate::storage) fn grown_bytes(&self) -> u64 {
        self.grown_bytes
    }

    /// Returns the ends of the log.
    pub fn state(&self) -> LogState {
        LogState { purged: self.fold.hard_state.purged, last: self.fold.last() }
    }

    /// Returns the name of the entry at `index`, if it stands above the purge mark.
    pub fn log_id_at(&self, index: u64) -> Option<LogId> {
        let purged = self.fold.hard_state.purged;
        if purged.is_some_and(|mark| index <= mark.index) {
            return purged.filter(|mark| mark.index == index);
        }
        self.fold.index.id_at(index)
    }

    /// Appends one SYNC entry if anything was appended or committed since the last one.
    pub fn mark_synced(&mut self) -> Option<Lsn> {
        let committed = self.fold.hard_state.committed;
        let is_marked = self.last_lsn() <= self.marked_lsn && committed <= self.marked_committed;
        if self.has_failed || is_marked {
            return None;
        }
        self.marked_committed = committed;
        self.enqueue(Item::Control(Control::Sync), Item::Control(Control::Sync).encoded_bytes());
        self.marked_lsn = self.last_lsn();
        Some(self.last_lsn())
    }

    /// Returns the highest number known synced.
    pub fn synced_lsn(&self) -> Lsn {
        self.synced_lsn
    }

    /// Returns whether anything waits to be written or is being written.
    pub fn has_unflushed(&self) -> bool {
        !self.pending.is_empty() || self.group_in_flight || self.unsynced.is_some()
    }

    /// Returns how many bytes wait to be written.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Tells the log the time, for the headers of new segments.
    pub fn set_now(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// Returns where the entries of a segment lie that are known by their segment alone.
    pub(in crate::storage) fn stretches_in(&self, segment: u64) -> Vec<Stretch> {
        self.fold.index.stretches_in(segment)
    }

    /// Returns where the log lives, and its id.
    pub(in crate::storage) fn home(&self) -> (Arc<dyn Disk>, &Path, u64) {
        (Arc::clone(&self.disk), &self.dir, self.log_id)
    }

    /// Returns the segments, for readers that do not take the writer's lock.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// Cuts the next group. `None`: nothing waits, a group is under way, the log has failed, or no
    /// prepared segment has room yet ([`Log::next_prepare`] then has work).
    pub fn next_flush(&mut self) -> Option<FlushJob> {
        if self.has_failed || self.group_in_flight {
            return None;
        }
        let first_bytes = self.pending.front()?.bytes;
        let is_rolling = !self.active.as_ref().is_some_and(|active| active.has_room(first_bytes));
        if is_rolling && self.unsynced.is_some() {
            // What is not synced lies in one segment, as one group's would.
            return None;
        }
        if is_rolling {
            self.roll(first_bytes)?;
        }
        let job = self.cut_group()?;
        self.group_in_flight = true;
        Some(job)
    }

    /// Hears how a group ended, and returns the highest number that is now synced.
    ///
    /// # Errors
    /// [`StorageError::Io`]: the log has failed. Every waiter's outcome is unknown, and the process
    /// must end.
    #[expect(clippy::needless_pass_by_value, reason = "a job ends here: it must not run again")]
    pub fn flushed(&mut self, job: FlushJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.group_in_flight = false;
        if let Err(source) = result {
            self.has_failed = true;
            return Err(StorageError::io("write and sync segment", &job.segment.path)(source));
        }
        self.grown_bytes += job.bytes;
        job.segment.advance(job.end);
        // One sync covers what was written before to the same file.
        self.unsynced = None;
        self.note_synced(job.last_lsn);
        Ok(self.synced_lsn)
    }

    pub(super) fn note_synced(&mut self, lsn: Lsn) {
        self.synced_lsn = self.synced_lsn.max(lsn);
        if let Some((segment, tail)) = self.stale_tail.take() {
            self.preparation.trim_later(segment, tail);
        }
    }

    /// Says how far the state machine is: older entries may leave the tail cache.
    pub fn applied(&mut self, index: u64) {
        self.tail.evict(index, self.synced_lsn);
    }

    fn control(&mut self, control: Control) -> Result<Lsn, StorageError> {
        self.check_usable()?;
        let Self { fold, tail, segments, .. } = self;
        let folded = fold.control(control, &|index, at| read_one(index, tail, segments, at));
        // A truncation that stopped half way is not in the queue: nothing may be added behind it.
        self.has_failed |= folded.is_err();
        folded?;
        let item = Item::Control(control);
        let bytes = item.encoded_bytes();
        self.enqueue(item, bytes);
        Ok(self.last_lsn())
    }

    pub(super) fn enqueue(&mut self, item: Item, bytes: u64) {
        self.pending.push_back(Pending { lsn: self.next_lsn, item, bytes });
        self.pending_bytes += bytes;
        self.next_lsn += 1;
    }

    pub(super) fn last_lsn(&self) -> Lsn {
        self.next_lsn - 1
    }

    pub(super) fn check_usable(&self) -> Result<(), StorageError> {
        if self.has_failed {
            return Err(StorageError::Failed { path: self.dir.clone() });
        }
        Ok(())
    }

    /// Goes on in the next prepared segment that has room for an entry.
    fn roll(&mut self, entry_bytes: u64) -> Option<()> {
        let next = self.preparation.take(SEGMENT_HEADER_BYTES as u64 + entry_bytes)?;
        if let Some(full) = self.active.take() {
            full.segment.seal(full.position);
            self.preparation.trim(&full);
            self.joint.predecessor = full.segment.number;
            (self.joint.cut_lsn, self.joint.cut_position) = (0, 0);
        }
        self.segments.insert(&next.segment);
        self.active = Some(next);
        Some(())
    }

    fn cut_group(&mut self) -> Option<FlushJob> {
        let header = self.header_if_new();
        let active = self.active.as_mut()?;
        let start = active.position;
        let mut parts = Vec::new();
        if let Some(header) = header {
            parts.push(Bytes::copy_from_slice(header.encode().as_slice()));
            active.position = SEGMENT_HEADER_BYTES as u64;
        }
        let segment_number = u32::try_from(active.segment.number).ok()?;
        let mut job = FlushJob {
            segment: Arc::clone(&active.segment),
            position: start,
            end: start,
            parts,
            bytes: 0,
            entries: 0,
            last_lsn: 0,
        };
        while let Some(front) = self.pending.front()
            && active.has_room(front.bytes)
            // A SYNC speaks for what was synced before its own group was begun.
            && (job.entries == 0 || front.item != Item::Control(Control::Sync))
            && (job.entries == 0 || job.bytes + front.bytes <= self.options.group_bytes_max)
            && let Some(next) = self.pending.pop_front()
        {
            let stamp = Stamp {
                lsn: next.lsn,
                synced_lsn: (self.synced_lsn + u64::from(bug!(WatermarkOffByOne)))
                    .min(next.lsn - 1),
                committed: self.fold.hard_state.committed,
                prev_crc: self.joint.prev_crc,
            };
            let encoded = next.item.encode(stamp, &active.segment.seed);
            debug_assert_eq!(encoded.len, next.bytes, "an entry has the size it was queued with");
            match &next.item {
                Item::Entry(entry) => {
                    let position = u32::try_from(active.position).ok()?;
                    let place = Place { segment: segment_number, position };
                    self.fold.index.set_place(entry.id, place);
                }
                Item::Control(control) => self.placed_state.adopt(*control),
            }
            self.joint.prev_crc = encoded.header_crc;
            active.position += encoded.len;
            self.pending_bytes -= next.bytes;
            job.bytes += encoded.len;
            job.entries += 1;
            job.last_lsn = next.lsn;
            job.parts.extend(encoded.parts);
        }
        job.end = active.position;
        Some(job)
    }

    /// Returns the header of the active segment if nothing is written to it yet.
    fn header_if_new(&self) -> Option<SegmentHeader> {
        let active = self.active.as_ref().filter(|active| active.position == 0)?;
        let first = self.pending.front()?;
        // The first replicated entry stands at or after the one this group begins with.
        let first_index = self.pending.iter().find_map(|pending| match &pending.item {
            Item::Entry(entry) => Some(entry.id.index),
            Item::Control(_) => None,
        });
        let end = self.fold.last().map_or(0, |last| last.index + 1);
        Some(SegmentHeader {
            shard: self.options.shard,
            cluster_id: self.options.cluster_id,
            log_id: self.log_id,
            number: active.segment.number,
            predecessor: self.joint.predecessor,
            cut_lsn: self.joint.cut_lsn,
            cut_position: self.joint.cut_position,
            prev_crc: self.joint.prev_crc,
            first_lsn: first.lsn,
            first_index: first_index.unwrap_or(end),
            synced_lsn: self.synced_lsn,
            hard_state: HardState {
                committed: self.fold.hard_state.committed,
                ..self.placed_state
            },
            created_ms: self.now_ms,
        })
    }
}

impl Active {
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let start = self.position.max(SEGMENT_HEADER_BYTES as u64);
        start + bytes <= self.capacity
    }
}

/// Reads an entry from the tail cache or from its segment.
pub(super) fn read_one(
    index: &EntryIndex,
    tail: &TailCache,
    segments: &Segments,
    at: u64,
) -> Result<Entry, StorageError> {
    if let Some(entry) = tail.get(at) {
        return Ok(entry.clone());
    }
    super::reader::read_placed(index.place(at), segments, at)
}
