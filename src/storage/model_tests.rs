//! The engine, driven inline on a simulated disk, against a plain map.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use prkdb_types::{
    BatchBuilder, Compression, ErrorCode, ProducerStamp, ShardCommand,
    command::{PartitionDrop, PartitionPut, ShardChange},
};
use proptest::prelude::*;

use super::{
    Shard, ShardOptions,
    clock::SeededRng,
    disk::{Disk as _, sim::SimDisk},
    kv::{catalog::CONTROL_PARTITION, state::Applied},
    log::{
        PrepareMode,
        entry::{Entry, LogId, Payload},
    },
    sequencer::{
        Answer, CheckedBatch, Condition, KeyRules, Keyless, Sequencer, SequencerLimits, Verdict,
        WriteRequest,
    },
};

const DIR: &str = "/shard";
const COLLECTION: u32 = 1;
const PARTITIONS: u32 = 3;

const LIMITS: SequencerLimits = SequencerLimits {
    entry_bytes_max: 64 << 10,
    in_flight_bytes_max: 1 << 20,
    in_flight_entries_max: 16,
    index_bytes_max: u64::MAX,
};

/// A shard with its driver, its one replica's Raft reduced to "what is synced is committed".
struct Engine {
    disk: SimDisk,
    shard: Shard,
    sequencer: Sequencer,
    term: u64,
    last_index: u64,
}

impl Engine {
    fn new() -> Self {
        let disk = SimDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut engine = Self::open(disk, 1);
        let commands = (1..=PARTITIONS)
            .map(|partition| ShardCommand {
                id: partition.into(),
                version: 1,
                change: Some(ShardChange::PartitionPut(PartitionPut {
                    partition,
                    collection: COLLECTION,
                    number: partition - 1,
                    key_index: true,
                })),
            })
            .collect();
        engine.accept(&WriteRequest::Control { commands, timestamp_ms: 0 });
        engine.commit();
        engine
    }

    fn open(disk: SimDisk, term: u64) -> Self {
        let options = ShardOptions {
            shard: 1,
            cluster_id: [1; 16],
            segment_bytes_first: 16 << 10,
            segment_bytes_max: 64 << 10,
            tail_cache_bytes: 4 << 10,
            producer_bytes_max: 1 << 20,
            checkpoint_bytes: u64::MAX,
        };
        let rng = &mut SeededRng::new(7);
        let (shard, _) =
            Shard::open(Arc::new(disk.clone()), Path::new(DIR), &options, rng, 0).unwrap();
        // What recovery believes is committed where there is one replica; a node learns it from Raft.
        let last = shard.log_state().last.map_or(0, |id| id.index);
        let applied = shard.applied().0.map_or(0, |id| id.index);
        let mut engine =
            Self { disk, shard, sequencer: Sequencer::open(term, LIMITS), term, last_index: last };
        for index in applied + 1..=last {
            engine.apply(index);
        }
        engine.append(Payload::Blank);
        engine
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
        let applied = self.shard.apply_all(&[id]).unwrap().pop_front();
        if let Some(applied) = &applied {
            self.sequencer.resolved(applied.sequence);
        }
        applied
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

    fn commit(&mut self) -> Option<Applied> {
        let write = self.sequencer.take_entry()?;
        let applied = self.append(Payload::Normal(write));
        assert!(!applied.as_ref().unwrap().is_void);
        applied
    }

    fn decide(&mut self, request: &WriteRequest) -> Verdict {
        loop {
            match self.shard.decide(&mut self.sequencer, request, 5) {
                Verdict::Full | Verdict::WaitFor(_) => self.commit().map(drop).unwrap(),
                verdict => return verdict,
            }
        }
    }

    /// Returns the base offset given.
    fn accept(&mut self, request: &WriteRequest) -> u64 {
        match self.decide(request) {
            Verdict::Accepted { base_offset, .. } => base_offset,
            other => panic!("{other:?}"),
        }
    }

    fn restart(self) -> Self {
        self.shard.mark_synced();
        self.drive();
        Self::open(self.disk.clone(), self.term + 1)
    }

    fn crash(self) -> Self {
        Self::open(self.disk.clone_image(), self.term + 1)
    }
}

fn partition_of(key: &[u8]) -> u32 {
    1 + u32::from(key[0]) % PARTITIONS
}

fn put(
    key: &[u8],
    value: &[u8],
    producer: Option<ProducerStamp>,
    condition: Condition,
) -> WriteRequest {
    WriteRequest::Put {
        partition: partition_of(key),
        collection: COLLECTION,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        timestamp_ms: 3,
        producer,
        condition,
    }
}

fn delete(key: &[u8]) -> WriteRequest {
    WriteRequest::Delete {
        partition: partition_of(key),
        collection: COLLECTION,
        key: Bytes::copy_from_slice(key),
        timestamp_ms: 3,
        producer: None,
        condition: Condition::None,
    }
}

fn batch(
    partition: u32,
    records: &[(Vec<u8>, Option<Vec<u8>>)],
    stamp: ProducerStamp,
) -> WriteRequest {
    let mut builder = BatchBuilder::new(stamp, Compression::Lz4);
    for (key, value) in records {
        builder.push(4, Some(key), value.as_deref(), &[]).unwrap();
    }
    let rules = KeyRules {
        bytes_max: 100,
        value_bytes_max: 1000,
        records_max: 4096,
        decompressed_bytes_max: 1 << 20,
        number: partition,
        partition_of: &partition_of,
        keyless: Keyless::Refused,
    };
    let batch = CheckedBatch::check(builder.finish().unwrap().to_bytes(), Some(&rules)).unwrap();
    WriteRequest::Batch { partition, collection: COLLECTION, batch }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    IfAbsent(u8, Vec<u8>),
    IfVersion(u8, bool),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    Commit,
    Restart,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = || prop::collection::vec(any::<u8>(), 0..200);
    let step = prop_oneof![
        6 => (0..12u8, value()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..12u8, value()).prop_map(|(k, v)| Step::IfAbsent(k, v)),
        2 => (0..12u8, any::<bool>()).prop_map(|(k, is_right)| Step::IfVersion(k, is_right)),
        2 => (0..12u8).prop_map(Step::Delete),
        2 => prop::collection::vec((0..12u8, any::<Option<u8>>()), 1..20).prop_map(Step::Batch),
        4 => Just(Step::Commit),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 20..120)
}

/// Value and version of each key.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn check(engine: &Engine, model: &Model) {
    for key in 0..12u8 {
        let found = engine.shard.get(COLLECTION, &[key]).unwrap();
        let found = found.map(|found| (found.value.to_vec(), found.version));
        assert_eq!(found.as_ref(), model.get(&vec![key]), "key {key}");
    }
    let snapshot = engine.shard.scan(COLLECTION).unwrap();
    let all = snapshot.range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let keys: Vec<Vec<u8>> = all.map(|(key, _)| key.to_vec()).collect();
    assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
}

fn run(mut engine: Engine, steps: Vec<Step>) {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Put(key, value) => {
                let offset = engine.accept(&put(&[key], &value, None, Condition::None));
                model.insert(vec![key], (value, offset));
            }
            Step::IfAbsent(key, value) => {
                let verdict = engine.decide(&put(&[key], &value, None, Condition::IfAbsent));
                match (verdict, model.get(&vec![key])) {
                    (Verdict::Accepted { base_offset, .. }, None) => {
                        model.insert(vec![key], (value, base_offset));
                    }
                    (Verdict::Answered { answer: Answer::Refused(refusal), .. }, Some(known)) => {
                        assert_eq!(refusal.code, ErrorCode::VersionMismatch);
                        assert_eq!(refusal.current_version, Some(known.1));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::IfVersion(key, is_right) => {
                let known = model.get(&vec![key]).map(|(_, version)| *version);
                let wanted = known.map_or(0, |version| version + u64::from(!is_right));
                let request = put(&[key], b"cas", None, Condition::IfVersion(wanted));
                match engine.decide(&request) {
                    Verdict::Accepted { base_offset, .. } => {
                        assert!(is_right && known.is_some());
                        model.insert(vec![key], (b"cas".to_vec(), base_offset));
                    }
                    Verdict::Answered { answer: Answer::Refused(refusal), .. } => {
                        assert_eq!(refusal.current_version, known);
                        assert!(!is_right || known.is_none());
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Delete(key) => {
                let removed = model.remove(&vec![key]);
                match engine.decide(&delete(&[key])) {
                    Verdict::Accepted { .. } => assert!(removed.is_some()),
                    Verdict::Answered { answer: Answer::Absent { .. }, .. } => {
                        assert!(removed.is_none());
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Batch(records) => {
                let partition = 1 + u32::from(records[0].0) % PARTITIONS;
                let records: Vec<_> = records
                    .into_iter()
                    .filter(|(key, _)| partition_of(&[*key]) == partition)
                    .map(|(key, value)| (vec![key], value.map(|value| vec![value; 30])))
                    .collect();
                let offset = engine.accept(&batch(partition, &records, ProducerStamp::NONE));
                for (version, (key, value)) in (offset..).zip(records) {
                    match value {
                        Some(value) => model.insert(key, (value, version)),
                        None => model.remove(&key),
                    };
                }
            }
            Step::Commit => {
                engine.commit();
                check(&engine, &model);
            }
            Step::Restart | Step::Crash => {
                engine.commit();
                engine =
                    if matches!(step, Step::Restart) { engine.restart() } else { engine.crash() };
                check(&engine, &model);
            }
        }
    }
    engine.commit();
    check(&engine, &model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_engine_agrees_with_a_map(steps in steps()) {
        run(Engine::new(), steps);
    }
}

#[test]
fn a_repeat_gets_the_first_answer_before_and_after_apply_and_restart() {
    let mut engine = Engine::new();
    let stamp = |base_sequence| Some(ProducerStamp { id: 42, epoch: 0, base_sequence });
    let first = put(b"k", b"v", stamp(0), Condition::None);
    let offset = engine.accept(&first);
    // Not applied yet: the answer waits for the entry that is being gathered.
    let pending = engine.decide(&first);
    let Verdict::Answered { rests_on: Some(2), answer } = pending else { panic!("{pending:?}") };
    let Answer::Duplicate { base_offset, revision, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((base_offset, revision), (offset, None));
    let applied = engine.commit().unwrap();
    let expect = |engine: &mut Engine| match engine.decide(&first) {
        Verdict::Answered {
            rests_on: None,
            answer: Answer::Duplicate { base_offset, revision, .. },
        } => assert_eq!((base_offset, revision), (offset, Some(applied.revision))),
        other => panic!("{other:?}"),
    };
    expect(&mut engine);
    let mut engine = engine.restart();
    expect(&mut engine);
    let refused = |engine: &mut Engine, request: &WriteRequest| match engine.decide(request) {
        Verdict::Answered { answer: Answer::Refused(refusal), .. } => refusal.code,
        other => panic!("{other:?}"),
    };
    let other_bytes = put(b"k", b"w", stamp(0), Condition::None);
    assert_eq!(refused(&mut engine, &other_bytes), ErrorCode::SequenceReused);
    let gap = put(b"k", b"w", stamp(5), Condition::None);
    assert_eq!(refused(&mut engine, &gap), ErrorCode::OutOfOrder);
    let unknown = Some(ProducerStamp { id: 43, epoch: 0, base_sequence: 5 });
    let unknown = put(b"k", b"w", unknown, Condition::None);
    assert_eq!(refused(&mut engine, &unknown), ErrorCode::UnknownProducer);
}

#[test]
fn an_entry_of_a_broken_chain_is_void_for_ever() {
    let mut engine = Engine::new();
    engine.accept(&put(b"a", b"1", None, Condition::None));
    let lost = engine.sequencer.take_entry().unwrap();
    // The entry before it was refused: this one was decided on what never came.
    engine.accept(&put(b"b", b"2", None, Condition::None));
    let orphan = engine.sequencer.take_entry().unwrap();
    assert_eq!(orphan.sequence, lost.sequence + 1);
    let applied = engine.append(Payload::Normal(orphan)).unwrap();
    assert!(applied.is_void);
    assert_eq!(engine.shard.get(COLLECTION, b"b").unwrap(), None);
    let engine = engine.restart();
    assert_eq!(engine.shard.get(COLLECTION, b"b").unwrap(), None);
    let mut engine = engine;
    engine.accept(&put(b"a", b"3", None, Condition::None));
    assert!(!engine.commit().unwrap().is_void);
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap().unwrap().value, &b"3"[..]);
}

#[test]
fn a_dropped_partition_takes_no_write_even_before_the_drop_is_applied() {
    let mut engine = Engine::new();
    let partition = partition_of(b"a");
    engine.accept(&put(b"a", b"1", None, Condition::None));
    let commands = vec![ShardCommand {
        id: partition.into(),
        version: 2,
        change: Some(ShardChange::PartitionDrop(PartitionDrop { partition })),
    }];
    engine.accept(&WriteRequest::Control { commands, timestamp_ms: 0 });
    let verdict = engine.decide(&put(b"a", b"2", None, Condition::None));
    assert!(
        matches!(&verdict, Verdict::Answered { answer: Answer::Refused(refusal), .. }
            if refusal.code == ErrorCode::PartitionNotFound),
        "{verdict:?}"
    );
    engine.commit();
    assert_eq!(engine.shard.partition_state(partition), None);
    assert!(engine.shard.partition_state(CONTROL_PARTITION).is_some());
}
