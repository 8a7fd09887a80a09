//! What is expired, case by case.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use prkdb_types::{
    Isolation, ProducerStamp,
    headers::{Operation, Ttl},
    transaction::RangeRead,
};

use super::engine::{COLLECTION, Engine, batch, partition_of, put};
use crate::storage::{
    ShardSnapshot, bug,
    log::entry::Payload,
    sequencer::{
        Answer, Basis, Condition, ConflictKind, KeyChange, KeyRead, Transaction, Verdict,
        WriteRequest,
    },
};

fn expiring(key: &[u8], ms: u64) -> WriteRequest {
    let mut request = put(key, b"v", None, Condition::None);
    if let WriteRequest::Put { ttl, .. } = &mut request {
        *ttl = Some(Ttl::Ms(ms));
    }
    request
}

#[test]
fn a_sweep_takes_what_is_expired_and_was_not_written_since() {
    let sweep = |versions: &[(&[u8], u64)]| WriteRequest::Sweep {
        partition: partition_of(versions[0].0),
        collection: COLLECTION,
        keys: versions.iter().map(|(key, at)| (Bytes::copy_from_slice(key), *at)).collect(),
        reason: Operation::Expired,
    };
    let takes = |engine: &mut Engine, request: &WriteRequest| match engine.decide(request) {
        Verdict::Accepted { .. } => true,
        Verdict::Answered { answer: Answer::Absent { .. }, .. } => false,
        other => panic!("{other:?}"),
    };
    let prepared = || {
        let mut engine = Engine::new();
        let old = engine.accept(&expiring(b"a", 10));
        let young = engine.accept(&expiring(b"d", 10_000));
        engine.commit();
        engine.now_ms += 100;
        (engine, old, young)
    };
    let (mut engine, old, young) = prepared();
    assert!(!takes(&mut engine, &sweep(&[(b"d", young)])), "it lasts");
    assert!(!takes(&mut engine, &sweep(&[(b"a", old + 7)])), "another version");
    // It is written anew, and that is not applied yet.
    engine.accept(&put(b"a", b"new", None, Condition::None));
    let verdict = engine.decide(&sweep(&[(b"a", old)]));
    let waits = matches!(verdict, Verdict::Answered { rests_on: Some(_), .. });
    assert!(waits, "it was written to, if that is applied: {verdict:?}");
    engine.commit();
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap().unwrap().value, &b"new"[..]);

    let (mut engine, old, _) = prepared();
    assert!(takes(&mut engine, &sweep(&[(b"a", old)])));
    assert_eq!(engine.commit().unwrap().frames.len(), 1);
    assert_eq!(engine.shard.keys(COLLECTION), 1);
    assert!(!takes(&mut engine, &sweep(&[(b"a", old)])), "it has its tombstone");

    // The checks above see what is planted.
    let (mut engine, _, young) = prepared();
    let planted = bug::plant(bug::Bug::SweptUnexpired);
    assert!(takes(&mut engine, &sweep(&[(b"d", young)])));
    drop(planted);
    let (mut engine, old, _) = prepared();
    engine.accept(&put(b"a", b"new", None, Condition::None));
    let _planted = bug::plant(bug::Bug::SweptUnseen);
    assert!(takes(&mut engine, &sweep(&[(b"a", old)])));
    engine.commit();
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap(), None, "the new value is lost");
}

#[test]
fn a_sweep_waits_for_batches_that_may_write_its_keys() {
    let mut engine = Engine::new();
    let version = engine.accept(&put(b"a", b"v", None, Condition::None));
    engine.commit();
    let partition = partition_of(b"a");
    let records = [(b"a".to_vec(), Some(b"new".to_vec()))];
    let into = |records| batch(partition, records, ProducerStamp::NONE);
    let sweep = |version| WriteRequest::Sweep {
        partition,
        collection: COLLECTION,
        keys: vec![(Bytes::from_static(b"a"), version)],
        reason: Operation::Trimmed,
    };
    // Not as the engine of these tests does, which commits what is waited for.
    let decide = |engine: &mut Engine, version| {
        engine.shard.decide(&mut engine.sequencer, &sweep(version), engine.now_ms)
    };
    engine.accept(&into(&records));
    let verdict = decide(&mut engine, version);
    assert!(matches!(verdict, Verdict::WaitFor(_)), "{verdict:?}");
    engine.commit();
    let verdict = decide(&mut engine, version);
    assert!(matches!(verdict, Verdict::Answered { .. }), "it was written anew: {verdict:?}");
    let version = engine.shard.get(COLLECTION, b"a").unwrap().unwrap().version;
    // Another key of the partition is written: this one must not be passed over.
    engine.accept(&into(&[(other_of(partition), Some(b"other".to_vec()))]));
    let planted = bug::plant(bug::Bug::SweepPassesOver);
    let verdict = decide(&mut engine, version);
    assert!(matches!(verdict, Verdict::Answered { .. }), "it is passed over: {verdict:?}");
    drop(planted);
    assert!(matches!(decide(&mut engine, version), Verdict::WaitFor(_)));
    engine.commit();
    assert!(matches!(decide(&mut engine, version), Verdict::Accepted { .. }));
    engine.commit();
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap(), None);
}

/// Returns a key of a partition that is not "a".
fn other_of(partition: u32) -> Vec<u8> {
    let mut keys = (b'b'..=u8::MAX).map(|key| vec![key]);
    keys.find(|key| partition_of(key) == partition).unwrap()
}

#[test]
fn a_value_put_twice_at_once_expires_once() {
    let mut engine = Engine::new();
    engine.accept(&expiring(b"a", 10));
    engine.accept(&expiring(b"a", 10));
    engine.commit();
    engine.accept(&expiring(b"a", 10));
    engine.commit();
    assert!(engine.shard.next_expiry_ms().is_some());
    engine.now_ms += 1000;
    engine.accept(&put(b"b", b"v", None, Condition::None));
    engine.commit();
    let snapshot = engine.shard.scan(COLLECTION).unwrap();
    let live: Vec<_> = snapshot.range(Bound::Unbounded, Bound::Unbounded).map(|it| it.0).collect();
    assert_eq!(live, [b"b"]);
    assert_eq!(engine.shard.expired(engine.now_ms, 10, 1000).unwrap().keys.len(), 1);
}

#[test]
fn what_is_expired_is_so_by_what_precedes_and_not_by_the_clock() {
    let mut engine = Engine::new();
    let version = engine.accept(&expiring(b"a", 10));
    engine.commit();
    engine.now_ms += 1000;
    // Readers see the value: no entry has brought the time on.
    assert!(engine.shard.get(COLLECTION, b"a").unwrap().is_some());
    let absent = put(b"a", b"w", None, Condition::IfAbsent);
    assert!(matches!(engine.decide(&absent), Verdict::Answered { .. }));
    // An entry that was taken, and is not applied, has.
    engine.accept(&put(b"b", b"v", None, Condition::None));
    let taken = engine.sequencer.take_entry().unwrap();
    match engine.decide(&put(b"a", b"w", None, Condition::IfVersion(version))) {
        Verdict::Answered { rests_on, answer: Answer::Refused(refusal) } => {
            assert_eq!((rests_on, refusal.current_version), (Some(taken.sequence), None));
        }
        other => panic!("{other:?}"),
    }
    engine.append(Payload::Normal(taken));
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap(), None);
    let planted = bug::plant(bug::Bug::ExpiryNotRead);
    assert!(engine.shard.get(COLLECTION, b"a").unwrap().is_some());
    drop(planted);
    assert!(matches!(engine.decide(&absent), Verdict::Accepted { .. }));
    assert_eq!(engine.commit().unwrap().frames[0].replaced, None);
}

#[test]
fn what_expired_since_a_snapshot_was_changed_for_its_transaction() {
    #[derive(Clone, Copy, Debug)]
    enum Rests {
        OnTheKey,
        OnARange,
        OnWriting,
    }
    let outcome = |engine: &mut Engine, snapshot: &Arc<ShardSnapshot>, rests: Rests| {
        let change = |key: &'static [u8]| KeyChange {
            partition: partition_of(key),
            collection: COLLECTION,
            key: Bytes::from_static(key),
            value: Some(Bytes::from_static(b"x")),
        };
        let read = KeyRead {
            partition: partition_of(b"a"),
            collection: COLLECTION,
            key: Bytes::from_static(b"a"),
        };
        let [from, to] = [b"a", b"b"].map(|key| Bytes::from_static(key));
        let (from, to) = (Bound::Included(from), Bound::Excluded(to));
        let range = RangeRead { collection: COLLECTION, from, to };
        let request = WriteRequest::Transaction(Arc::new(Transaction {
            basis: Basis::Snapshot(Arc::clone(snapshot)),
            isolation: Isolation::Serializable,
            changes: vec![change(if matches!(rests, Rests::OnWriting) { b"a" } else { b"z" })],
            reads: if matches!(rests, Rests::OnTheKey) { vec![read] } else { Vec::new() },
            ranges: if matches!(rests, Rests::OnARange) { vec![range] } else { Vec::new() },
            timestamp_ms: 1,
            producers: BTreeMap::new(),
        }));
        match engine.decide(&request) {
            Verdict::Accepted { .. } => None,
            Verdict::Answered { answer: Answer::Refused(refusal), rests_on } => {
                Some((refusal.conflict.unwrap().kind, rests_on))
            }
            other => panic!("{other:?}"),
        }
    };
    let all = [
        (Rests::OnTheKey, ConflictKind::Read),
        (Rests::OnARange, ConflictKind::Range),
        (Rests::OnWriting, ConflictKind::Written),
    ];
    for (rests, kind) in all {
        let mut engine = Engine::new();
        engine.accept(&expiring(b"a", 10));
        engine.commit();
        let before = Arc::new(engine.shard.snapshot());
        assert!(before.leaf(COLLECTION, b"a").is_some());
        engine.now_ms += 1000;
        // An entry that is taken brings the time, and what is refused for it waits until it is applied.
        engine.accept(&put(b"b", b"v", None, Condition::None));
        let taken = engine.sequencer.take_entry().unwrap();
        let refused = outcome(&mut engine, &before, rests);
        assert_eq!(refused, Some((kind, Some(taken.sequence))), "{rests:?}");
        engine.append(Payload::Normal(taken));
        assert_eq!(outcome(&mut engine, &before, rests), Some((kind, None)), "{rests:?}");
        // Who saw that it was expired has no conflict.
        let after = Arc::new(engine.shard.snapshot());
        assert_eq!(after.leaf(COLLECTION, b"a"), None);
        assert_eq!(outcome(&mut engine, &after, rests), None, "{rests:?}");
    }
    // One that is put and expires between the two has no value at both ends.
    let mut engine = Engine::new();
    let before = Arc::new(engine.shard.snapshot());
    engine.accept(&expiring(b"a", 10));
    engine.commit();
    engine.now_ms += 1000;
    engine.accept(&put(b"b", b"v", None, Condition::None));
    engine.commit();
    assert_eq!(engine.shard.get(COLLECTION, b"a").unwrap(), None);
    let refused = outcome(&mut engine, &before, Rests::OnWriting);
    assert_eq!(refused, Some((ConflictKind::Written, None)));
}
