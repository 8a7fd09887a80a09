//! Loads: the same seed gives the same operations, jobs and boundaries.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prkdb::storage::{
    StorageError,
    clock::{Rng as _, SeededRng},
    disk::Disk,
    log::{
        PrepareMode,
        entry::{Entry, Frame, LogId, Payload, Vote, Write},
    },
};
use prkdb_types::{BatchBuilder, Compression, ProducerStamp};

use super::{
    model::Op,
    rig::{DIR, Rig},
};

/// Draws operations that continue a log as Raft would.
pub(crate) struct Source {
    rng: SeededRng,
    term: u64,
    sequence: u64,
    /// Entries a truncation may still take.
    entries: BTreeMap<u64, Entry>,
    last: Option<LogId>,
    purged: Option<LogId>,
}

impl Source {
    /// Returns a source that goes on behind what a log holds.
    pub(crate) fn after(rig: &Rig, seed: u64) -> Self {
        let state = rig.history.last_state();
        let last = state.last();
        let voted = state.vote.map_or(0, |vote| vote.term);
        Self {
            rng: SeededRng::new(seed),
            term: voted.max(last.map_or(0, |last| last.term)),
            sequence: 0,
            entries: state.entries().map(|entry| (entry.id.index, entry.clone())).collect(),
            last,
            purged: state.purged,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn next_id(&self) -> LogId {
        LogId { term: self.term, index: self.last.map_or(0, |last| last.index + 1) }
    }

    fn entry(&mut self, payload: Payload, is_void: bool) -> Op {
        let entry = Entry { id: self.next_id(), is_void, payload };
        self.last = Some(entry.id);
        self.entries.insert(entry.id.index, entry.clone());
        Op::Entry(entry)
    }

    /// A new term: a vote, perhaps a truncation, and the blank entry.
    pub(crate) fn new_term(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        self.term += 1;
        let replica = 1 + self.below(3);
        for is_committed in [false, true] {
            rig.give(Op::Vote(Vote { term: self.term, replica, is_committed }))?;
        }
        let floor = self.purged.map_or(0, |mark| mark.index + 1);
        let take = self.below(4);
        if let Some(last) = self.last
            && take > 0
            && last.index >= floor + take
        {
            let kept = self.entries.get(&(last.index - take)).map(|entry| entry.id);
            rig.give(Op::Truncate(kept))?;
            self.entries.retain(|index, _| kept.is_some_and(|kept| *index <= kept.index));
            self.last = kept;
        }
        self.sequence = 0;
        let blank = self.entry(Payload::Blank, false);
        rig.give(blank)
    }

    pub(crate) fn write(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        let frame_count = if self.below(3) == 0 { 2 + self.below(4) } else { 1 };
        let is_large = self.below(12) == 0;
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let mut frames = Vec::new();
        for _ in 0..frame_count {
            let partition = u32::try_from(1 + self.below(4)).unwrap();
            let base = *next
                .entry(partition)
                .or_insert_with(|| rig.history.last_state().next_offset(partition));
            let frame = self.frame(partition, base, is_large);
            next.insert(partition, base + u64::from(frame.record_count));
            frames.push(frame);
        }
        // Now and then the sequencer's chain is broken: the entry is void and has no offsets.
        let is_void = self.below(25) == 0;
        self.sequence += 1;
        let write = Write {
            sequencer_term: self.term,
            sequence: self.sequence + u64::from(is_void),
            append_time_ms: i64::try_from(self.sequence).unwrap(),
            frames,
        };
        let op = self.entry(Payload::Normal(Arc::new(write)), is_void);
        if is_void {
            self.sequence -= 1;
        }
        rig.give(op)
    }

    fn frame(&mut self, partition: u32, base_offset: u64, is_large: bool) -> Frame {
        let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 3 };
        let mut builder = BatchBuilder::new(stamp, Compression::None);
        for _ in 0..=self.below(3) {
            let len = if is_large { 1500 + self.below(3000) } else { self.below(260) };
            let value: Vec<u8> = (0..len).map(|_| self.rng.next_u64().to_le_bytes()[0]).collect();
            let key = [u8::try_from(self.below(20)).unwrap()];
            builder.push(1000, Some(&key), Some(&value), &[]).unwrap();
        }
        let record_count = builder.count();
        let mut batch = builder.finish().unwrap();
        batch.set_base_offset(base_offset);
        Frame { partition, record_count, base_offset, batch }
    }

    pub(crate) fn membership(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        let len = usize::try_from(self.below(90)).unwrap();
        let op = self.entry(Payload::Membership(Bytes::from(vec![3; len])), false);
        rig.give(op)
    }

    /// Moves the purge mark to an entry that is synced.
    pub(crate) fn purge(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        let Some(mark) = self.entries.values().nth(2).map(|entry| entry.id) else { return Ok(()) };
        self.purge_to(rig, mark)
    }

    fn purge_to(&mut self, rig: &mut Rig, mark: LogId) -> Result<(), StorageError> {
        self.purged = Some(mark);
        self.entries.retain(|index, _| *index > mark.index);
        if self.last.is_none_or(|last| last.index < mark.index) {
            self.last = Some(mark);
        }
        rig.give(Op::Purge(mark))
    }

    /// Moves the purge mark above the last entry, as an installed snapshot does.
    pub(crate) fn jump(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        let mark = LogId { term: self.term, index: self.last.map_or(0, |last| last.index) + 5 };
        self.purge_to(rig, mark)
    }

    fn step(&mut self, rig: &mut Rig) -> Result<(), StorageError> {
        match self.below(40) {
            0 | 1 => self.new_term(rig)?,
            2 => self.membership(rig)?,
            3 => self.purge(rig)?,
            4 | 5 => rig.give(Op::Sync)?,
            6 => rig.log.set_committed(self.last),
            _ => self.write(rig)?,
        }
        Ok(())
    }
}

/// Runs the load of a seed until it has `entries` entries.
pub(crate) fn run(rig: &mut Rig, seed: u64, entries: usize) -> Result<(), StorageError> {
    let mut source = Source::after(rig, seed);
    source.new_term(rig)?;
    let mut given = 0;
    while given < entries {
        source.step(rig)?;
        given = rig.history.ops().filter(|op| matches!(op, Op::Entry(_))).count();
        rig.mode = if source.below(8) == 0 { PrepareMode::Zero } else { PrepareMode::Allocate };
        // Sometimes entries gather, sometimes only some of the jobs are run.
        match source.below(5) {
            0 => {}
            1 => drop(rig.flush_one()?),
            2 => drop(rig.prepare_one()?),
            _ => rig.drive()?,
        }
        if given == entries / 2 && rig.full_count == 0 {
            meet_full_disk(rig, &mut source, seed)?;
        }
        if given == entries * 3 / 4 && seed % 2 == 1 && source.below(2) == 0 {
            source.jump(rig)?;
        }
    }
    rig.drive()?;
    rig.give(Op::Sync)?;
    rig.drive()
}

/// Fills what is prepared while the disk has no room, and goes on when it has.
fn meet_full_disk(rig: &mut Rig, source: &mut Source, seed: u64) -> Result<(), StorageError> {
    let space = rig.disk.space(std::path::Path::new(DIR)).unwrap();
    rig.disk.set_capacity(Some(space.total - space.free));
    while !(rig.full_count > 0 && rig.log.has_unflushed() && rig.log.next_flush().is_none()) {
        source.write(rig)?;
        rig.drive()?;
    }
    assert!(rig.log.disk_is_full(), "load {seed}: a log without room says so");
    rig.give(Op::Vote(Vote { term: source.term, replica: 1, is_committed: true }))?;
    rig.disk.set_capacity(None);
    rig.drive()?;
    let goes_on = !rig.log.has_unflushed() && !rig.log.disk_is_full();
    assert!(goes_on, "load {seed}: a log goes on by itself");
    Ok(())
}
