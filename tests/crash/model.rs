//! What a log must be after any number of operations: the oracle.

use std::collections::BTreeMap;

use prkdb::storage::log::{
    Log,
    entry::{Entry, Frame, LogId, Payload, Vote},
    header::Lsn,
};

/// An operation as it was given to a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Entry(Entry),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Sync,
}

/// Vote, purge mark and entries above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogModel {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    last: Option<LogId>,
    /// The next offset of each partition. A log does not tell them; they are not compared.
    next_offsets: BTreeMap<u32, u64>,
}

impl PartialEq for LogModel {
    fn eq(&self, other: &Self) -> bool {
        (self.vote, self.purged, self.last) == (other.vote, other.purged, other.last)
            && self.entries == other.entries
    }
}

impl LogModel {
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Entry(entry) => {
                for frame in frames_of(entry) {
                    let next = frame.base_offset + u64::from(frame.record_count);
                    self.next_offsets.insert(frame.partition, next);
                }
                self.entries.insert(entry.id.index, entry.clone());
                self.last = Some(entry.id);
            }
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Truncate(kept) => {
                let gone = self.entries.split_off(&kept.map_or(0, |id| id.index + 1));
                for frame in gone.values().rev().flat_map(|entry| frames_of(entry).iter().rev()) {
                    self.next_offsets.insert(frame.partition, frame.base_offset);
                }
                self.last = *kept;
            }
            Op::Purge(mark) => {
                self.purged = Some(*mark);
                self.entries.retain(|index, _| *index > mark.index);
                if self.last.is_none_or(|last| last.index < mark.index) {
                    self.last = Some(*mark);
                }
            }
            Op::Sync => {}
        }
    }

    /// Returns the last entry, or else the purge mark.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn next_offset(&self, partition: u32) -> u64 {
        self.next_offsets.get(&partition).copied().unwrap_or_default()
    }

    /// Reads what a log says it holds.
    pub(crate) fn of(log: &Log) -> Result<Self, String> {
        let state = log.state();
        let mut read =
            Self { vote: log.vote(), purged: state.purged, last: state.last, ..Self::default() };
        let first = state.purged.map_or(0, |mark| mark.index + 1);
        let end = state.last.map_or(0, |last| last.index + 1);
        let mut next = first;
        while next < end {
            let piece =
                log.plan_read(next..end, u64::MAX).run().map_err(|error| error.to_string())?;
            if piece.is_empty() {
                return Err(format!("entry {next} cannot be read and the last is {end}"));
            }
            for entry in piece {
                if entry.id.index != next {
                    return Err(format!("entry {} stands where {next} belongs", entry.id.index));
                }
                if log.log_id_at(next) != Some(entry.id) {
                    return Err(format!("entry {next} has another name in the index"));
                }
                next += 1;
                read.entries.insert(entry.id.index, entry);
            }
        }
        Ok(read)
    }

    /// Checks that offsets are dense in each partition, from the first one that is seen.
    pub(crate) fn check_offsets(&self) -> Result<(), String> {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            for frame in frames_of(entry) {
                let expected = next.entry(frame.partition).or_insert(frame.base_offset);
                if *expected != frame.base_offset {
                    return Err(format!("entry {}: offsets are not dense", entry.id.index));
                }
                *expected += u64::from(frame.record_count);
            }
        }
        Ok(())
    }
}

/// Returns the frames that count.
fn frames_of(entry: &Entry) -> &[Frame] {
    match &entry.payload {
        Payload::Normal(write) if !entry.is_void => &write.frames,
        _ => &[],
    }
}

/// A moment of a history.
#[derive(Clone, Copy, Debug)]
struct Moment {
    boundary: u64,
    /// How many operations the log had been given.
    attempted: usize,
    /// How many of them it had said are synced.
    acknowledged: usize,
}

/// All that was done to a log, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    ops: Vec<(Lsn, Op)>,
    /// What the log must be after so many operations.
    states: Vec<LogModel>,
    moments: Vec<Moment>,
    acknowledged: usize,
}

impl History {
    /// Returns a history that goes on from a recovered state.
    pub(crate) fn from_state(state: LogModel) -> Self {
        Self { states: vec![state], ..Self::default() }
    }

    pub(crate) fn push(&mut self, lsn: Lsn, op: Op, boundary: u64) {
        let mut state = self.states[self.states.len() - 1].clone();
        state.apply(&op);
        self.states.push(state);
        self.ops.push((lsn, op));
        self.note(boundary);
    }

    /// Hears that everything up to a number is synced.
    pub(crate) fn acknowledge(&mut self, synced_lsn: Lsn, boundary: u64) {
        self.acknowledged = self.ops.partition_point(|(lsn, _)| *lsn <= synced_lsn);
        self.note(boundary);
    }

    /// Hears of it as if it had been said earlier.
    pub(crate) fn acknowledge_at(&mut self, synced_lsn: Lsn, boundary: u64) {
        let late: Vec<Moment> =
            self.moments.extract_if(.., |moment| moment.boundary > boundary).collect();
        assert!(late.is_empty(), "nothing was given while the group was written");
        self.acknowledge(synced_lsn, boundary);
    }

    /// Returns how many operations have a number up to this one.
    pub(crate) fn count_up_to(&self, lsn: Lsn) -> usize {
        self.ops.partition_point(|(own, _)| *own <= lsn)
    }

    /// Returns the state after so many operations.
    pub(crate) fn state(&self, count: usize) -> &LogModel {
        &self.states[count]
    }

    fn note(&mut self, boundary: u64) {
        let (attempted, acknowledged) = (self.ops.len(), self.acknowledged);
        self.moments.push(Moment { boundary, attempted, acknowledged });
    }

    pub(crate) fn ops(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().map(|(_, op)| op)
    }

    pub(crate) fn last_state(&self) -> &LogModel {
        &self.states[self.states.len() - 1]
    }

    /// Returns how many operations were acknowledged and attempted at a boundary.
    pub(crate) fn bounds_at(&self, boundary: u64) -> (usize, usize) {
        let count = self.moments.partition_point(|moment| moment.boundary <= boundary);
        count
            .checked_sub(1)
            .map_or((0, 0), |at| (self.moments[at].acknowledged, self.moments[at].attempted))
    }

    /// Returns how many operations made up a recovered state: at least those acknowledged, at most
    /// those attempted, and no other ones.
    pub(crate) fn explain(
        &self,
        read: &LogModel,
        (acknowledged, attempted): (usize, usize),
    ) -> Result<usize, String> {
        let found = (acknowledged..=attempted).rev().find(|count| self.states[*count] == *read);
        found.ok_or_else(|| {
            let earlier = self.states.iter().position(|state| state == read);
            format!(
                "recovered state is that of {earlier:?} operations, acknowledged {acknowledged}, \
                 attempted {attempted}: vote {:?}, purged {:?}, last {:?}",
                read.vote, read.purged, read.last
            )
        })
    }
}
