//! What is expired, case by case.

use bytes::Bytes;
use prkdb_types::headers::{Operation, Ttl};

use super::engine::{COLLECTION, Engine, partition_of, put};
use crate::storage::{
    bug,
    log::entry::Payload,
    sequencer::{Answer, Condition, Verdict, WriteRequest},
};

#[test]
fn a_sweep_takes_what_is_expired_and_was_not_written_since() {
    let expiring = |key: &[u8], ms| {
        let mut request = put(key, b"v", None, Condition::None);
        if let WriteRequest::Put { ttl, .. } = &mut request {
            *ttl = Some(Ttl::Ms(ms));
        }
        request
    };
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
    assert!(!takes(&mut engine, &sweep(&[(b"a", old)])), "it was written to");
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
fn what_is_expired_is_so_by_what_precedes_and_not_by_the_clock() {
    let mut engine = Engine::new();
    let mut request = put(b"a", b"v", None, Condition::None);
    if let WriteRequest::Put { ttl, .. } = &mut request {
        *ttl = Some(Ttl::Ms(10));
    }
    let version = engine.accept(&request);
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
    assert!(matches!(engine.decide(&absent), Verdict::Accepted { .. }));
    assert_eq!(engine.commit().unwrap().frames[0].replaced, None);
}
