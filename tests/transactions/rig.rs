//! A shard on a simulated disk, driven inline, and transactions on it.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use prkdb::storage::{
    Shard, ShardOptions, ShardSnapshot, TOMBSTONE_GRACE_MS,
    clock::SeededRng,
    disk::{Disk as _, sim::SimDisk},
    kv::state::Applied,
    log::{
        PrepareMode,
        entry::{Entry, LogId, Payload, Write},
    },
    sequencer::{
        Answer, Basis, KeyChange, KeyRead, Refusal, Sequencer, SequencerLimits, Transaction,
        Verdict, WriteRequest,
    },
};
use prkdb_types::{
    Isolation, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
    transaction::{Buffer, Order, RangeRead, Source},
};

const DIR: &str = "/shard";
pub(crate) const COLLECTION: u32 = 1;
/// Another collection of the same shard, with partitions of its own.
pub(crate) const OTHER: u32 = 2;
const PARTITIONS: u32 = 3;

pub(crate) const LIMITS: SequencerLimits = SequencerLimits {
    entry_bytes_max: 64 << 10,
    in_flight_bytes_max: 1 << 20,
    in_flight_entries_max: 1 << 10,
    index_bytes_max: u64::MAX,
};

/// When what was accepted is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Early,
    /// When somebody waits for it.
    Late,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the entry of this number.
    Accepted(u64),
    /// It was accepted before; the revision, if that is applied.
    Duplicate(Option<u64>),
    /// It is refused.
    Refused(Refusal),
}

pub(crate) struct Engine {
    disk: SimDisk,
    pub(crate) shard: Arc<Shard>,
    sequencer: Sequencer,
    term: u64,
    last_index: u64,
    pub(crate) pace: Pace,
    /// Entries taken and not applied.
    under_way: VecDeque<Arc<Write>>,
    /// How many were applied.
    pub(crate) applied: usize,
    /// Revisions of entries by their number, in this term.
    pub(crate) revisions: BTreeMap<u64, u64>,
}

impl Engine {
    pub(crate) fn new(pace: Pace) -> Self {
        let disk = SimDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut engine = Self::open(disk, 1, pace);
        let commands = (1..=2 * PARTITIONS)
            .map(|partition| ShardCommand {
                id: partition.into(),
                version: 1,
                change: Some(ShardChange::PartitionPut(PartitionPut {
                    partition,
                    collection: if partition <= PARTITIONS { COLLECTION } else { OTHER },
                    number: (partition - 1) % PARTITIONS,
                    key_index: true,
                    ttl_ms: 0,
                    ..PartitionPut::default()
                })),
            })
            .collect();
        engine.submit(&WriteRequest::Control { commands, timestamp_ms: 0 });
        engine.settle();
        engine
    }

    fn open(disk: SimDisk, term: u64, pace: Pace) -> Self {
        let options = ShardOptions {
            shard: 1,
            cluster_id: [1; 16],
            segment_bytes_first: 256 << 10,
            segment_bytes_max: 256 << 10,
            tail_cache_bytes: 64 << 10,
            producer_bytes_max: 1 << 20,
            checkpoint_bytes: u64::MAX,
            tombstone_grace_ms: TOMBSTONE_GRACE_MS,
        };
        let rng = &mut SeededRng::new(7);
        let (shard, _) =
            Shard::open(Arc::new(disk.clone()), Path::new(DIR), &options, rng, 0).unwrap();
        let last = shard.log_state().last.map_or(0, |id| id.index);
        let applied = shard.applied().0.map_or(0, |id| id.index);
        let mut engine = Self {
            disk,
            shard: Arc::new(shard),
            sequencer: Sequencer::open(term, LIMITS),
            term,
            last_index: last,
            pace,
            under_way: VecDeque::new(),
            applied: 0,
            revisions: BTreeMap::new(),
        };
        for index in applied + 1..=last {
            engine.apply(index);
        }
        engine.append(Payload::Blank);
        engine
    }

    pub(crate) fn restart(mut self) -> Self {
        self.settle();
        self.shard.mark_synced();
        self.drive();
        Self::open(self.disk.clone(), self.term + 1, self.pace)
    }

    fn append(&mut self, payload: Payload) -> Option<Applied> {
        self.last_index += 1;
        let id = LogId { term: self.term, index: self.last_index };
        self.shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
        self.drive();
        self.shard.set_committed(Some(id));
        self.apply(id.index)
    }

    fn apply(&mut self, index: u64) -> Option<Applied> {
        let id = self.shard.log_id_at(index).unwrap();
        self.shard.apply_all(&[id]).unwrap().pop_front()
    }

    fn drive(&self) {
        loop {
            if let Some(job) = self.shard.next_prepare() {
                let result = job.run(PrepareMode::Allocate);
                self.shard.prepared(job, result).unwrap();
            } else if let Some(job) = self.shard.next_flush() {
                let result = job.run();
                self.shard.flushed(job, result).unwrap();
            } else {
                return;
            }
        }
    }

    fn take(&mut self) {
        self.under_way.extend(self.sequencer.take_entry());
    }

    /// Applies everything that was accepted.
    pub(crate) fn settle(&mut self) {
        self.take();
        while let Some(write) = self.under_way.pop_front() {
            let sequence = write.sequence;
            let applied = self.append(Payload::Normal(write)).unwrap();
            assert!(!applied.is_void);
            self.revisions.insert(sequence, applied.revision);
            self.sequencer.resolved(sequence);
            self.applied += 1;
        }
    }

    pub(crate) fn submit(&mut self, request: &WriteRequest) -> Outcome {
        loop {
            let outcome = match self.shard.decide(&mut self.sequencer, request, 5) {
                Verdict::Full => {
                    self.take();
                    continue;
                }
                Verdict::WaitFor(_) => {
                    self.settle();
                    continue;
                }
                Verdict::Accepted { sequence, .. } => {
                    // An entry of its own, so that each has a revision.
                    self.take();
                    Outcome::Accepted(sequence)
                }
                Verdict::Answered { answer: Answer::Duplicate { revision, .. }, .. } => {
                    Outcome::Duplicate(revision)
                }
                Verdict::Answered { answer: Answer::Refused(refusal), .. } => {
                    Outcome::Refused(refusal)
                }
                Verdict::Answered { answer, .. } => panic!("{answer:?}"),
            };
            if self.pace == Pace::Early {
                self.settle();
            }
            return outcome;
        }
    }

    pub(crate) fn begin(&self, isolation: Isolation) -> Tx {
        Tx {
            snapshot: Arc::new(self.shard.snapshot()),
            shard: Arc::clone(&self.shard),
            buffer: Buffer::new(isolation, 1 << 20),
        }
    }

    pub(crate) fn commit(&mut self, tx: &Tx) -> Result<(), Refusal> {
        if tx.buffer.is_empty() {
            return Ok(());
        }
        match self.submit(&tx.request(&BTreeMap::new())) {
            Outcome::Refused(refusal) => Err(refusal),
            _ => Ok(()),
        }
    }

    pub(crate) fn get(&self, key: u8) -> Option<u32> {
        let found = self.shard.get(COLLECTION, &[key]).unwrap();
        found.map(|found| number(&found.value))
    }

    pub(crate) fn next_offset(&self, partition: u32) -> u64 {
        self.shard.partition_state(partition).unwrap().next_offset
    }
}

pub(crate) fn number(value: &[u8]) -> u32 {
    u32::from_be_bytes(value.try_into().unwrap())
}

pub(crate) fn partition_of(collection: u32, key: &[u8]) -> u32 {
    (collection - 1) * PARTITIONS + 1 + u32::from(key[0]) % PARTITIONS
}

/// A transaction, as the embedded engine has it.
pub(crate) struct Tx {
    pub(crate) snapshot: Arc<ShardSnapshot>,
    shard: Arc<Shard>,
    pub(crate) buffer: Buffer<u32>,
}

impl Tx {
    pub(crate) fn get(&mut self, key: u8) -> Option<u32> {
        if let Some(written) = self.buffer.get(&COLLECTION, &[key]) {
            return written.map(|value| number(value));
        }
        self.buffer.note_read(COLLECTION, Bytes::copy_from_slice(&[key])).unwrap();
        let leaf = self.snapshot.leaf(COLLECTION, &[key])?;
        Some(number(&self.shard.leaf_value(leaf).unwrap().value))
    }

    pub(crate) fn put(&mut self, key: u8, value: u32) {
        let value = Bytes::copy_from_slice(&value.to_be_bytes());
        self.buffer.put(COLLECTION, Bytes::copy_from_slice(&[key]), value).unwrap();
    }

    pub(crate) fn delete(&mut self, key: u8) {
        self.buffer.delete(COLLECTION, Bytes::copy_from_slice(&[key])).unwrap();
    }

    pub(crate) fn scan(&mut self) -> Vec<(u8, u32)> {
        self.range(0, u8::MAX)
    }

    /// Reads the keys from `from` on, below `to`.
    pub(crate) fn range(&mut self, from: u8, to: u8) -> Vec<(u8, u32)> {
        let bound = |byte| Bytes::copy_from_slice(&[byte]);
        let range = RangeRead {
            collection: COLLECTION,
            from: Bound::Included(bound(from)),
            to: Bound::Excluded(bound(to)),
        };
        self.buffer.note_range(range).unwrap();
        let (from, to) = ([from], [to]);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let base = self.snapshot.range(COLLECTION, from, to).map(|(key, leaf)| (key.into(), leaf));
        let merged = self.buffer.merge(&COLLECTION, (from, to), Order::Forward, base);
        merged
            .map(|(key, source)| {
                let value = match source {
                    Source::Written(value) => number(&value),
                    Source::Base(leaf) => number(&self.shard.leaf_value(leaf).unwrap().value),
                };
                (key[0], value)
            })
            .collect()
    }

    pub(crate) fn request(&self, producers: &BTreeMap<u32, ProducerStamp>) -> WriteRequest {
        let changes = self.buffer.writes().map(|(collection, key, value)| KeyChange {
            partition: partition_of(*collection, key),
            collection: *collection,
            key: key.clone(),
            value: value.cloned(),
        });
        let reads = self.buffer.reads();
        let keys = reads.keys.iter().flat_map(|(collection, keys)| {
            keys.iter().map(|key| KeyRead {
                partition: partition_of(*collection, key),
                collection: *collection,
                key: key.clone(),
            })
        });
        WriteRequest::Transaction(Arc::new(Transaction {
            basis: Basis::Snapshot(Arc::clone(&self.snapshot)),
            isolation: self.buffer.isolation(),
            changes: changes.collect(),
            reads: keys.collect(),
            ranges: reads.ranges.clone(),
            timestamp_ms: 3,
            producers: producers.clone(),
        }))
    }
}
