//! The engine, driven inline on a simulated disk, against a plain map.

mod engine;
mod held;
mod trims;
mod ttl;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use prkdb_types::{
    ErrorCode, Isolation, ProducerStamp, ShardCommand,
    command::{PartitionDrop, ShardChange},
    headers::{Operation, Ttl},
    transaction::RangeRead,
};
use proptest::{prelude::*, test_runner::TestRunner};

use self::{
    engine::{COLLECTION, Engine, PARTITIONS, batch, delete, partition_of, put},
    held::Held,
};
use super::{
    bug::{self, Bug},
    kv::{catalog::CONTROL_PARTITION, state::Expired},
    log::entry::Payload,
    sequencer::{Answer, Basis, Condition, KeyChange, Transaction, Verdict, WriteRequest},
};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>, Option<u8>),
    IfAbsent(u8, Vec<u8>),
    IfVersion(u8, bool),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    /// The clock goes on.
    Wait(u8),
    /// Expired keys get their tombstones, so many at most.
    Sweep(usize),
    Commit,
    /// A checkpoint is taken, and what nobody needs goes from the log.
    Clean,
    /// A snapshot is taken and kept.
    Hold,
    /// Keys written on the snapshot taken last.
    Transaction(Vec<(u8, Option<u8>)>, Isolation),
    Restart,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = || prop::collection::vec(any::<u8>(), 0..200);
    let step = prop_oneof![
        6 => (0..12u8, value(), prop::option::weighted(0.4, any::<u8>()))
            .prop_map(|(k, v, ttl)| Step::Put(k, v, ttl)),
        2 => any::<u8>().prop_map(Step::Wait),
        2 => (1..5usize).prop_map(Step::Sweep),
        2 => (0..12u8, value()).prop_map(|(k, v)| Step::IfAbsent(k, v)),
        2 => (0..12u8, any::<bool>()).prop_map(|(k, is_right)| Step::IfVersion(k, is_right)),
        2 => (0..12u8).prop_map(Step::Delete),
        2 => prop::collection::vec((0..12u8, any::<Option<u8>>()), 1..20).prop_map(Step::Batch),
        4 => Just(Step::Commit),
        2 => Just(Step::Hold),
        3 => (prop::collection::vec((0..12u8, any::<Option<u8>>()), 1..5), any::<bool>()).prop_map(
            |(writes, is_strict)| {
                let strict = if is_strict { Isolation::Serializable } else { Isolation::Snapshot };
                Step::Transaction(writes, strict)
            }
        ),
        1 => Just(Step::Clean),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 20..=200)
}

/// What a key has.
#[derive(Clone, Debug)]
struct Kept {
    value: Vec<u8>,
    version: u64,
    /// How long it lasts.
    ttl_ms: Option<u8>,
    /// The number of the entry it is in, from whose time on it does.
    commit: usize,
}

type Model = BTreeMap<Vec<u8>, Kept>;

fn check(engine: &Engine, model: &Model) {
    for key in 0..12u8 {
        let found = engine.shard.get(COLLECTION, &[key]).unwrap();
        let found = found.map(|found| (found.value.to_vec(), found.version));
        let kept = engine.live(model, &[key]);
        assert_eq!(found, kept.map(|it| (it.value.clone(), it.version)), "key {key}");
    }
    let snapshot = engine.shard.scan(COLLECTION).unwrap();
    let all = snapshot.range(Bound::Unbounded, Bound::Unbounded);
    let keys: Vec<Vec<u8>> = all.map(|(key, _)| key).collect();
    let live = model.keys().filter(|key| engine.live(model, key).is_some());
    assert_eq!(keys, live.cloned().collect::<Vec<_>>());
}

/// Returns how many cleanings there were.
#[expect(clippy::too_many_lines, reason = "an arm for each kind of step")]
fn run(mut engine: Engine, steps: Vec<Step>) -> usize {
    let mut model = Model::new();
    let mut held: Vec<Held> = Vec::new();
    for step in steps {
        match step {
            Step::Put(key, value, ttl_ms) => {
                let mut request = put(&[key], &value, None, Condition::None);
                if let WriteRequest::Put { ttl, .. } = &mut request {
                    *ttl = ttl_ms.map(|ttl_ms| Ttl::Ms(ttl_ms.into()));
                }
                let version = engine.accept(&request);
                let commit = engine.commits.len();
                model.insert(vec![key], Kept { value, version, ttl_ms, commit });
            }
            Step::Wait(ms) => engine.now_ms += i64::from(ms),
            Step::Sweep(keys_max) => {
                engine.commit();
                let due = engine.shard.expired(engine.now_ms, keys_max, 1000);
                let Some(Expired { collection, partition, keys }) = due else { continue };
                assert!(keys.len() <= keys_max);
                let request = WriteRequest::Sweep {
                    partition,
                    collection,
                    keys: keys.clone(),
                    reason: Operation::Expired,
                };
                engine.accept(&request);
                for (key, version) in keys {
                    let gone = model.remove(&key[..]).unwrap();
                    let from_ms = engine.commits[gone.commit];
                    assert!(from_ms + i64::from(gone.ttl_ms.unwrap()) <= engine.now_ms);
                    assert_eq!(gone.version, version);
                }
            }
            Step::IfAbsent(key, value) => {
                let verdict = engine.decide(&put(&[key], &value, None, Condition::IfAbsent));
                match (verdict, engine.live(&model, &[key])) {
                    (Verdict::Accepted { base_offset, .. }, None) => {
                        let (version, commit) = (base_offset, engine.commits.len());
                        model.insert(vec![key], Kept { value, version, ttl_ms: None, commit });
                    }
                    (Verdict::Answered { answer: Answer::Refused(refusal), .. }, Some(known)) => {
                        assert_eq!(refusal.code, ErrorCode::VersionMismatch);
                        assert_eq!(refusal.current_version, Some(known.version));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::IfVersion(key, is_right) => {
                // As it was applied: an answer that waits for it sees the same.
                let known = model.get(&vec![key]).map(|kept| kept.version);
                let wanted = known.map_or(0, |version| version + u64::from(!is_right));
                let request = put(&[key], b"cas", None, Condition::IfVersion(wanted));
                let verdict = engine.decide(&request);
                let known = engine.live(&model, &[key]).map(|kept| kept.version);
                match verdict {
                    Verdict::Accepted { base_offset, .. } => {
                        assert!(is_right && known.is_some());
                        let (value, commit) = (b"cas".to_vec(), engine.commits.len());
                        let kept = Kept { value, version: base_offset, ttl_ms: None, commit };
                        model.insert(vec![key], kept);
                    }
                    Verdict::Answered { answer: Answer::Refused(refusal), .. } => {
                        assert_eq!(refusal.current_version, known);
                        assert!(!is_right || known.is_none());
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Delete(key) => {
                let verdict = engine.decide(&delete(&[key]));
                let is_live = engine.live(&model, &[key]).is_some();
                match verdict {
                    Verdict::Accepted { .. } => {
                        assert!(is_live);
                        model.remove(&vec![key]);
                    }
                    // One that is expired waits for its sweep.
                    Verdict::Answered { answer: Answer::Absent { .. }, .. } => assert!(!is_live),
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
                        Some(value) => {
                            let commit = engine.commits.len();
                            model.insert(key, Kept { value, version, ttl_ms: None, commit })
                        }
                        None => model.remove(&key),
                    };
                }
            }
            Step::Clean => {
                engine.commit();
                engine.clean();
                check(&engine, &model);
            }
            Step::Hold => held.push(Held::take(&mut engine, &model)),
            Step::Transaction(writes, isolation) => {
                if let Some(held) = held.last() {
                    held.transact(&mut engine, &mut model, writes, isolation);
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
    held.iter().for_each(Held::check);
    engine.cleanings
}

/// The long run sets more.
fn cases() -> u32 {
    std::env::var("PRKDB_MODEL_CASES").map_or(2000, |number| number.parse().unwrap())
}

#[test]
fn the_engine_agrees_with_a_map() {
    let cleanings = AtomicUsize::new(0);
    let config =
        ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(cases()) };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            cleanings.fetch_add(run(Engine::new(), steps), Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    let cleanings = cleanings.into_inner();
    assert!(cleanings > 1000, "{cleanings} cleanings in {} cases", cases());
}

#[test]
fn planted_cleanings_are_seen_by_the_map() {
    let planted = bug::plant(Bug::CleanForgetsKeys);
    let found = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(2000)
    })
    .run(&steps(), |steps| {
        run(Engine::new(), steps);
        Ok(())
    });
    drop(planted);
    assert!(found.is_err());
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

#[test]
fn a_range_of_a_collection_that_goes_is_waited_for() {
    let mut engine = Engine::new();
    engine.accept(&put(b"a", b"1", None, Condition::None));
    engine.commit();
    let snapshot = Arc::new(engine.shard.snapshot());
    let partition = partition_of(b"a");
    let commands = vec![ShardCommand {
        id: partition.into(),
        version: 2,
        change: Some(ShardChange::PartitionDrop(PartitionDrop { partition })),
    }];
    engine.accept(&WriteRequest::Control { commands, timestamp_ms: 0 });
    let request = WriteRequest::Transaction(Arc::new(Transaction {
        basis: Basis::Snapshot(snapshot),
        isolation: Isolation::Serializable,
        changes: vec![KeyChange {
            partition: partition_of(b"b"),
            collection: COLLECTION,
            key: Bytes::from_static(b"b"),
            value: Some(Bytes::from_static(b"1")),
        }],
        reads: Vec::new(),
        ranges: vec![RangeRead {
            collection: COLLECTION,
            from: Bound::Unbounded,
            to: Bound::Unbounded,
        }],
        timestamp_ms: 1,
        producers: BTreeMap::new(),
    }));
    assert_ne!(partition_of(b"b"), partition);
    let verdict = engine.shard.decide(&mut engine.sequencer, &request, engine.now_ms);
    assert!(matches!(verdict, Verdict::WaitFor(_)), "{verdict:?}");
}
