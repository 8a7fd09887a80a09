//! Writes to a shard, decided by bytes, with checkpoints, kills and power cuts between, against a model.
//!
//! Each write is decided as the model decides it. After each crash every key, every version and every end
//! of a partition are those of the model at the last entry there is.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use prkdb::storage::{
    Shard,
    disk::sim::{Loss, SimDisk},
    log::entry::{Entry, LogId, Payload, Vote},
    sequencer::{Answer, CheckedBatch, Condition, Sequencer, Verdict, WriteRequest},
};
use prkdb_types::{
    BatchBuilder, Compression, ErrorCode, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
};

use super::{
    base::drive,
    loads::{
        rig::new_disk,
        shard::{CHECKPOINT_BYTES, COLLECTION, LIMITS, try_open_with},
    },
    source::Source,
};

const OPERATIONS_MAX: usize = 150;
const PARTITIONS: u32 = 3;
/// A partition without key index.
const EVENTS: u32 = 4;

/// What the shard must be after an entry.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    next_offsets: BTreeMap<u32, u64>,
    /// What each producer sent last, and the offset it got.
    sent: BTreeMap<i64, (WriteRequest, u64, i32)>,
}

struct Life {
    disk: SimDisk,
    shard: Shard,
    sequencer: Sequencer,
    term: u64,
    gathered: Model,
    /// After the entry of each index.
    models: Vec<Model>,
}

fn open(disk: &SimDisk) -> Shard {
    try_open_with(disk, CHECKPOINT_BYTES).expect("what was synced opens")
}

impl Life {
    fn begin(disk: SimDisk) -> Self {
        let shard = open(&disk);
        let sequencer = Sequencer::open(1, LIMITS);
        let (gathered, models) = (Model::default(), Vec::new());
        let mut life = Self { disk, shard, sequencer, term: 1, gathered, models };
        life.append(Payload::Blank);
        let commands = (1..=EVENTS)
            .map(|partition| ShardCommand {
                id: partition.into(),
                version: 1,
                change: Some(ShardChange::PartitionPut(PartitionPut {
                    partition,
                    collection: if partition == EVENTS { 2 } else { COLLECTION },
                    number: (partition - 1) % PARTITIONS,
                    key_index: partition != EVENTS,
                    ..PartitionPut::default()
                })),
            })
            .collect();
        let control = WriteRequest::Control { commands, timestamp_ms: 0 };
        let accepted = life.decide(&control);
        assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
        life.take();
        life
    }

    /// Appends, and says that it is synced; apply follows.
    fn append(&mut self, payload: Payload) {
        let id = LogId { term: self.term, index: self.models.len() as u64 };
        let entry = Entry { id, is_void: false, payload };
        self.shard.append(vec![entry]).expect("memory does not fail");
        self.models.push(self.gathered.clone());
        drive(&self.shard);
        self.shard.set_committed(Some(id));
        for applied in self.shard.apply_all(&[id]).expect("what is committed is applied") {
            self.sequencer.resolved(applied.sequence);
        }
    }

    fn take(&mut self) {
        if let Some(write) = self.sequencer.take_entry() {
            self.append(Payload::Normal(write));
        }
    }

    fn decide(&mut self, request: &WriteRequest) -> Verdict {
        loop {
            match self.shard.decide(&mut self.sequencer, request, 5) {
                Verdict::Full | Verdict::WaitFor(_) => self.take(),
                verdict => return verdict,
            }
        }
    }

    fn stamp(&self, producer: i64) -> ProducerStamp {
        let base_sequence = self.gathered.sent.get(&producer).map_or(0, |(_, _, next)| *next);
        ProducerStamp { id: producer, epoch: 0, base_sequence }
    }

    fn end(&mut self, partition: u32, offset: u64, count: u64) {
        let next = self.gathered.next_offsets.entry(partition).or_default();
        assert_eq!(offset, *next, "offsets of partition {partition} are dense");
        *next += count;
    }

    fn condition(&self, source: &mut Source<'_>, key: &[u8]) -> (Condition, bool) {
        let found = self.gathered.keys.get(key).map(|(_, version)| *version);
        match source.below(4) {
            0 => (Condition::IfAbsent, found.is_none()),
            1 => {
                let version = u64::from(source.byte());
                (Condition::IfVersion(version), found == Some(version))
            }
            2 => (found.map_or(Condition::IfAbsent, Condition::IfVersion), true),
            _ => (Condition::None, true),
        }
    }

    /// A put or a delete of one key, decided as the model decides it.
    fn write_one(&mut self, source: &mut Source<'_>) {
        let shape = source.byte();
        let key = vec![shape & 15];
        let partition = 1 + u32::from(key[0]) % PARTITIONS;
        let (condition, holds) = self.condition(source, &key);
        let is_put = shape & 0xc0 != 0;
        let value = is_put.then(|| vec![shape; usize::from(source.byte()) * 2]);
        let producer = (shape & 0x20 != 0).then_some(10 + i64::from(partition));
        let stamp = producer.map(|producer| self.stamp(producer));
        let bytes = Bytes::from(key.clone());
        let (collection, timestamp_ms) = (COLLECTION, 3);
        let request = match &value {
            Some(value) => WriteRequest::Put {
                partition,
                collection,
                key: bytes,
                value: Bytes::from(value.clone()),
                timestamp_ms,
                producer: stamp,
                condition,
                ttl: None,
                headers: Vec::new(),
            },
            None => WriteRequest::Delete {
                partition,
                collection,
                key: bytes,
                timestamp_ms,
                producer: stamp,
                condition,
            },
        };
        let is_there = self.gathered.keys.contains_key(&key);
        match self.decide(&request) {
            Verdict::Accepted { base_offset, .. } => {
                assert!(holds && (is_put || is_there), "{request:?} was accepted");
                self.end(partition, base_offset, 1);
                match value {
                    Some(value) => self.gathered.keys.insert(key, (value, base_offset)),
                    None => self.gathered.keys.remove(&key),
                };
                if let (Some(producer), Some(stamp)) = (producer, stamp) {
                    let next = stamp.base_sequence + 1;
                    self.gathered.sent.insert(producer, (request, base_offset, next));
                }
            }
            Verdict::Answered { answer: Answer::Absent { .. }, .. } => {
                assert!(!is_put && !is_there, "{request:?} found nothing");
            }
            Verdict::Answered { answer: Answer::Refused(refusal), .. } => {
                assert!(!holds, "{request:?}: {refusal}");
                assert_eq!(refusal.code, ErrorCode::VersionMismatch);
            }
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// A batch of events, which no index knows.
    fn write_events(&mut self, source: &mut Source<'_>) {
        let shape = source.byte();
        let codec = Compression::ALL[usize::from(shape >> 4) % Compression::ALL.len()];
        let mut builder = BatchBuilder::new(self.stamp(30), codec);
        for record in 0..=shape & 15 {
            let value = vec![record; usize::from(shape)];
            builder.push(i64::from(record), None, Some(&value), &[]).expect("it fits");
        }
        let count = builder.count();
        let bytes = builder.finish_bytes().expect("it holds a record");
        let batch = CheckedBatch::check(bytes, None).expect("it is right");
        let request = WriteRequest::Batch { partition: EVENTS, collection: 2, batch };
        match self.decide(&request) {
            Verdict::Accepted { base_offset, .. } => {
                self.end(EVENTS, base_offset, count.into());
                let next = self.stamp(30).base_sequence + i32::try_from(count).expect("a few");
                self.gathered.sent.insert(30, (request, base_offset, next));
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a producer sent last is known again, whatever happened since.
    fn repeat(&mut self, source: &mut Source<'_>) {
        let nth = usize::from(source.below(4));
        let Some((request, offset, _)) = self.gathered.sent.values().nth(nth).cloned() else {
            return;
        };
        match self.decide(&request) {
            Verdict::Answered { answer: Answer::Duplicate { base_offset, .. }, .. } => {
                assert_eq!(base_offset, offset, "a repeat gets the first answer");
            }
            other => panic!("a repeat is {other:?}"),
        }
    }

    fn checkpoint(&self) {
        self.shard.mark_synced();
        drive(&self.shard);
        if let Some(job) = self.shard.checkpoint_now() {
            let (finished, result) = job.run();
            self.shard.checkpointed(finished, &result);
            result.expect("memory does not fail");
        }
    }

    fn sidecars(&self) {
        while let Some(job) = self.shard.next_sidecar() {
            let result = job.run();
            self.shard.sidecar_done(&job, result);
        }
    }

    /// Ends the life, and begins another on what is left; what was gathered and not taken is gone.
    fn crash(mut self, source: &mut Source<'_>) -> Self {
        self.disk = match source.below(4) {
            0 => self.disk.crash_image(Loss::All),
            1 => self.disk.crash_image(Loss::Coins(source.long())),
            _ => self.disk.clone_image(),
        };
        self.shard = open(&self.disk);
        let count = self.shard.log_state().last.map_or(0, |last| last.index + 1);
        assert_eq!(count, self.models.len() as u64, "every entry was synced");
        let applied = self.shard.applied().0.map_or(0, |id| id.index + 1);
        let ids = (applied..count).map(|index| self.shard.log_id_at(index).expect("it is there"));
        let ids: Vec<LogId> = ids.collect();
        let _applied = self.shard.apply_all(&ids).expect("what was synced is applied");
        self.gathered = self.models.last().cloned().unwrap_or_default();
        self.check();
        self.term += 1;
        let vote = Vote { term: self.term, replica: 1, is_committed: true };
        self.shard.save_vote(vote).expect("memory does not fail");
        self.sequencer = Sequencer::open(self.term, LIMITS);
        self.append(Payload::Blank);
        self
    }

    /// Compares all keys and ends with the model of the last entry.
    fn check(&self) {
        let model = self.models.last().cloned().unwrap_or_default();
        if let Some(snapshot) = self.shard.scan(COLLECTION) {
            let all = snapshot.range(Bound::Unbounded, Bound::Unbounded);
            assert!(all.map(|(key, _)| key).eq(model.keys.keys().cloned()), "keys in order");
        }
        for (key, (value, version)) in &model.keys {
            let found = self.shard.get(COLLECTION, key).expect("it is read").expect("it is there");
            assert_eq!((&found.value[..], found.version), (&value[..], *version), "key {key:?}");
        }
        for (partition, end) in &model.next_offsets {
            assert_eq!(self.shard.stream_bounds(*partition).high_watermark, *end);
            let mut next = 0;
            while next < *end {
                let fetched = self.shard.fetch(*partition, next, 1000).expect("it is read");
                assert!(fetched.next_offset > next, "partition {partition} at {next}");
                next = fetched.next_offset;
            }
        }
    }
}

/// Operations.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut life = Life::begin(new_disk());
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        match source.below(16) {
            0 | 1 => life.take(),
            2 => life.checkpoint(),
            3 => life.sidecars(),
            4 => life = life.crash(&mut source),
            5 => life.repeat(&mut source),
            6..=8 => life.write_events(&mut source),
            _ => life.write_one(&mut source),
        }
    }
    life.take();
    let _end = life.crash(&mut Source::new(&[]));
}

/// Lives with checkpoints.
pub fn seeds() -> Vec<Vec<u8>> {
    let writes = [9, 0xe1, 3, 200, 9, 0xe2, 0, 250, 6, 0x3f, 0, 9, 1, 3, 9, 0x61, 2, 4, 0];
    vec![
        writes.to_vec(),
        [&writes[..], &[2, 4, 0], &writes[..], &[5, 0, 5, 1, 4, 1, 7, 7, 7, 7, 7, 7, 7, 7]]
            .concat(),
        [&writes.repeat(6)[..], &[3, 2, 4, 2], &writes[..], &[5, 2]].concat(),
    ]
}
