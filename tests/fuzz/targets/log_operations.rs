//! Operations on a log, decided by bytes, with kills and power cuts between, against a model.
//!
//! After each crash the log is what it was after some of the operations: at least those that it had said
//! are synced, at most those it was given, and no other ones.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prkdb::storage::{
    disk::sim::{Loss, SimDisk},
    log::entry::{Entry, Frame, LogId, Payload, Vote, Write},
};
use prkdb_types::{BatchBuilder, Compression, ProducerStamp};

use super::{
    loads::{
        model::{History, LogModel, Op},
        rig::{Rig, new_disk},
    },
    source::Source,
};

/// More operations tell nothing more.
const OPERATIONS_MAX: usize = 120;

struct Life {
    rig: Rig,
    term: u64,
    /// The last one of the term; `None` where the term is that of an earlier life.
    sequence: Option<u64>,
}

fn begin(disk: &SimDisk, state: LogModel) -> Life {
    let as_seen = Arc::new(disk.clone());
    let rig = Rig::open(disk, as_seen, state).expect("what it said is synced opens");
    let state = rig.history.last_state();
    let voted = state.vote.map_or(0, |vote| vote.term);
    let term = voted.max(state.last().map_or(0, |last| last.term));
    Life { rig, term, sequence: None }
}

impl Life {
    fn give(&mut self, op: Op) {
        self.rig.give(op).expect("memory does not fail");
    }

    fn next_id(&self) -> LogId {
        let last = self.rig.history.last_state().last();
        LogId { term: self.term, index: last.map_or(0, |last| last.index + 1) }
    }

    fn append(&mut self, payload: Payload, is_void: bool) {
        let id = self.next_id();
        self.give(Op::Entry(Entry { id, is_void, payload }));
    }

    /// A vote, perhaps a truncation, and the blank entry.
    fn new_term(&mut self, source: &mut Source<'_>) {
        self.term += 1;
        self.sequence = Some(0);
        let replica = 1 + u64::from(source.below(3));
        for is_committed in [false, true] {
            self.give(Op::Vote(Vote { term: self.term, replica, is_committed }));
        }
        let state = self.rig.history.last_state();
        let floor = state.purged.map_or(0, |mark| mark.index + 1);
        let take = u64::from(source.below(6));
        if let Some(last) = state.last()
            && take > 0
            && last.index >= floor + take
        {
            let kept = state.entries().find(|entry| entry.id.index == last.index - take);
            let kept = kept.map(|entry| entry.id);
            self.give(Op::Truncate(kept));
        }
        self.append(Payload::Blank, false);
    }

    fn write(&mut self, source: &mut Source<'_>) {
        let Some(before) = self.sequence else { return self.new_term(source) };
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let shape = source.byte();
        let mut frames = Vec::new();
        for _ in 0..=shape & 3 {
            let partition = 1 + u32::from(source.below(4));
            let state = self.rig.history.last_state();
            let base = next.entry(partition).or_insert_with(|| state.next_offset(partition));
            let frame = frame(partition, *base, source);
            *base += u64::from(frame.record_count);
            frames.push(frame);
        }
        // Now and then the sequencer's chain is broken: the entry is void and has no offsets.
        let is_void = shape >> 4 == 15;
        if !is_void {
            self.sequence = Some(before + 1);
        }
        let write = Write {
            sequencer_term: self.term,
            sequence: before + 1 + u64::from(is_void),
            append_time_ms: i64::from(shape),
            frames,
        };
        self.append(Payload::Normal(Arc::new(write)), is_void);
    }

    fn purge(&mut self, source: &mut Source<'_>) {
        let nth = usize::from(source.below(8));
        let mark = self.rig.history.last_state().entries().nth(nth).map(|entry| entry.id);
        if let Some(mark) = mark {
            self.give(Op::Purge(mark));
        }
    }

    /// Ends the life, and begins another on what is left.
    fn crash(self, source: &mut Source<'_>) -> Self {
        let bounds = self.rig.history.bounds_at(u64::MAX);
        let Rig { disk, history, .. } = self.rig;
        let left = lose(&disk, source);
        if source.byte() & 1 != 0 {
            // Another one while it opens.
            left.record();
            drop(begin(&left, LogModel::default()));
            let images = left.take_recording();
            let at = usize::from(source.byte()) % images.len();
            let disk = images[at].to_disk();
            return resume(&lose(&disk, source), &history, bounds);
        }
        resume(&left, &history, bounds)
    }
}

fn lose(disk: &SimDisk, source: &mut Source<'_>) -> SimDisk {
    match source.below(4) {
        0 => disk.crash_image(Loss::All),
        1 => disk.crash_image(Loss::Coins(source.long())),
        _ => disk.clone_image(),
    }
}

fn resume(disk: &SimDisk, history: &History, bounds: (usize, usize)) -> Life {
    let mut life = begin(disk, LogModel::default());
    let read = LogModel::of(&life.rig.log).expect("what opened is read");
    read.check_offsets().expect("offsets are dense");
    let count = history.explain(&read, bounds).expect("it is what was written");
    life.rig.history = History::from_state(history.state(count).clone());
    let state = life.rig.history.last_state();
    let voted = state.vote.map_or(0, |vote| vote.term);
    life.term = voted.max(state.last().map_or(0, |last| last.term));
    life
}

fn frame(partition: u32, base_offset: u64, source: &mut Source<'_>) -> Frame {
    let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 3 };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    let shape = source.byte();
    for record in 0..=shape & 3 {
        let len = usize::from(shape >> 2) * if shape & 4 == 0 { 1 } else { 60 };
        builder.push(1000, Some(&[record]), Some(&vec![shape; len]), &[]).expect("it fits");
    }
    let record_count = builder.count();
    let mut batch = builder.finish().expect("it holds a record");
    batch.set_base_offset(base_offset);
    Frame { partition, record_count, base_offset, batch }
}

/// Operations.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut life = begin(&new_disk(), LogModel::default());
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        match source.below(16) {
            0 => life.new_term(&mut source),
            1 => {
                let len = usize::from(source.byte());
                if life.sequence.is_none() {
                    life.new_term(&mut source);
                }
                life.append(Payload::Membership(Bytes::from(vec![3; len])), false);
            }
            2 => life.purge(&mut source),
            3 => life.give(Op::Sync),
            4 => life.rig.log.set_committed(life.rig.history.last_state().last()),
            5 => drop(life.rig.flush_one().expect("memory does not fail")),
            6 => drop(life.rig.prepare_one().expect("memory does not fail")),
            7 | 8 => life.rig.drive().expect("memory does not fail"),
            9 => life = life.crash(&mut source),
            _ => life.write(&mut source),
        }
    }
    life.rig.drive().expect("memory does not fail");
    let _end = life.crash(&mut Source::new(&[]));
}

/// Lives that end in each way.
pub fn seeds() -> Vec<Vec<u8>> {
    let writes = [0, 1, 0, 10, 3, 0, 40, 1, 41, 2, 42, 3, 43, 10, 0, 0, 7, 7];
    vec![
        writes.to_vec(),
        [&writes[..], &[9, 0, 0], &writes[..], &[3, 7, 9, 1, 9, 9, 9, 9, 9, 9, 9, 9, 0]].concat(),
        [&writes[..], &[1, 30, 2, 1, 5, 9, 2, 1, 3, 0], &writes[..], &[4, 3, 7]].concat(),
    ]
}
