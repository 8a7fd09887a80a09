//! What the sequencer makes of a transaction as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use prkdb::storage::sequencer::{
    Basis, ConflictKind, KeyChange, Refusal, Transaction, WriteRequest,
};
use prkdb_types::{ErrorCode, Isolation, ProducerStamp, limits};

use super::rig::{COLLECTION, Engine, LIMITS, OTHER, Outcome, Pace, Tx, partition_of};

fn change(request: &WriteRequest, edit: impl FnOnce(&mut Vec<KeyChange>)) -> WriteRequest {
    let WriteRequest::Transaction(transaction) = request else { panic!("no transaction") };
    let mut transaction = (**transaction).clone();
    edit(&mut transaction.changes);
    WriteRequest::Transaction(transaction.into())
}

fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// A transaction that writes to all partitions of two collections.
fn broad(engine: &Engine, value: u32) -> Tx {
    let mut tx = engine.begin(Isolation::Snapshot);
    for key in 0..6 {
        tx.put(key, value);
        let (key, value) = ([key], value.to_be_bytes());
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        tx.buffer.put(OTHER, key, value).unwrap();
    }
    tx
}

#[test]
fn all_partitions_and_collections_of_a_shard_are_written_in_one_entry() {
    for pace in [Pace::Early, Pace::Late] {
        let mut engine = Engine::new(pace);
        let before = engine.shard.revision();
        let tx = broad(&engine, 5);
        engine.commit(&tx).unwrap();
        engine.settle();
        assert_eq!(engine.shard.revision(), before + 1);
        for key in 0..6 {
            assert_eq!(engine.get(key), Some(5));
            assert!(engine.shard.get(OTHER, &[key]).unwrap().is_some());
        }
        let engine = engine.restart();
        assert_eq!((engine.get(0), engine.get(5)), (Some(5), Some(5)));
    }
}

#[test]
fn keys_of_another_shard_are_refused_and_nothing_is_written() {
    let mut engine = Engine::new(Pace::Early);
    let before = engine.shard.revision();
    let request = change(&broad(&engine, 5).request(&BTreeMap::new()), |changes| {
        changes.last_mut().unwrap().partition = 77;
    });
    let refusal = refused(engine.submit(&request));
    assert_eq!(refusal.code, ErrorCode::CrossShard);
    assert!(refusal.message.contains("partition 77 is not in this shard"), "{refusal}");
    engine.settle();
    assert_eq!((engine.shard.revision(), engine.get(0)), (before, None));
}

#[test]
fn what_is_larger_than_an_entry_is_refused_with_the_name_of_the_limit() {
    let mut engine = Engine::new(Pace::Late);
    let mut tx = engine.begin(Isolation::Snapshot);
    for key in 0..100 {
        let key = Bytes::copy_from_slice(&[key]);
        tx.buffer.put(COLLECTION, key, Bytes::from(vec![0; 1000])).unwrap();
    }
    let refusal = engine.commit(&tx).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
    let limit = format!("limit {} bytes (max-message)", LIMITS.entry_bytes_max);
    assert!(refusal.message.contains(&limit), "{refusal}");
    engine.settle();
    assert_eq!(engine.next_offset(1), 0);
}

#[test]
fn a_transaction_of_more_keys_than_a_batch_takes_has_several_batches() {
    let mut engine = Engine::new(Pace::Early);
    let mut tx = engine.begin(Isolation::Snapshot);
    // All in one partition.
    let count = u64::from(limits::MAX_KEYED_BATCH_RECORDS) + 10;
    for number in 0..count {
        let mut key = vec![0];
        key.extend_from_slice(&number.to_be_bytes()[5..]);
        tx.buffer.put(COLLECTION, key.into(), Bytes::new()).unwrap();
    }
    let producers = BTreeMap::from([(1, ProducerStamp { id: 5, epoch: 0, base_sequence: 0 })]);
    let request = tx.request(&producers);
    // 14 bytes a record fit.
    assert!(matches!(engine.submit(&request), Outcome::Accepted(_)));
    assert_eq!(engine.next_offset(1), count);
    assert!(matches!(engine.submit(&request), Outcome::Duplicate(Some(_))));
    assert_eq!(engine.next_offset(1), count);
}

#[test]
fn a_conflict_names_the_key_and_what_the_transaction_did_with_it() {
    let mut engine = Engine::new(Pace::Early);
    let isolations = [
        (Isolation::Snapshot, ConflictKind::Written),
        (Isolation::Serializable, ConflictKind::Read),
        (Isolation::Serializable, ConflictKind::Range),
    ];
    for (isolation, kind) in isolations {
        let mut tx = engine.begin(isolation);
        match kind {
            ConflictKind::Written => tx.put(3, 1),
            ConflictKind::Read => assert_eq!(tx.get(3).is_some(), engine.get(3).is_some()),
            ConflictKind::Range => drop(tx.range(2, 5)),
        }
        tx.put(9, 1);
        let mut other = engine.begin(isolation);
        other.put(3, 2);
        engine.commit(&other).unwrap();
        let refusal = engine.commit(&tx).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ConflictDetected);
        let conflict = refusal.conflict.clone().unwrap();
        assert_eq!(
            (conflict.collection, &conflict.key[..], conflict.kind),
            (COLLECTION, &[3][..], kind)
        );
        assert!(refusal.message.contains(r#"key "\x03""#), "{refusal}");
    }
}

#[test]
fn a_transaction_that_writes_nothing_is_refused() {
    let mut engine = Engine::new(Pace::Early);
    let tx = engine.begin(Isolation::Snapshot);
    let refusal = refused(engine.submit(&tx.request(&BTreeMap::new())));
    assert_eq!(refusal.code, ErrorCode::InvalidArgument);
}

/// A stamp in each partition that the broad transaction writes to.
fn stamps(id: i64, base_sequence: i32) -> BTreeMap<u32, ProducerStamp> {
    let partitions = (0..3u8).flat_map(|key| [COLLECTION, OTHER].map(|c| partition_of(c, &[key])));
    partitions.map(|number| (number, ProducerStamp { id, epoch: 0, base_sequence })).collect()
}

/// Repeats a commit before and after it is applied, and after a restart.
pub(crate) fn check_repeats() -> Result<(), String> {
    let mut engine = Engine::new(Pace::Late);
    let request = broad(&engine, 5).request(&stamps(9, 0));
    let Outcome::Accepted(entry) = engine.submit(&request) else {
        return Err("the first is not accepted".to_owned());
    };
    let expect = |found: Outcome, revision| match found {
        found if found == Outcome::Duplicate(revision) => Ok(()),
        found => Err(format!("the repeat is {found:?}")),
    };
    expect(engine.submit(&request), None)?;
    engine.settle();
    let revision = engine.revisions.get(&entry).copied();
    expect(engine.submit(&request), revision)?;
    // Somebody else writes its keys: it is still the one that was accepted.
    let other = broad(&engine, 6);
    engine.commit(&other).map_err(|refusal| refusal.to_string())?;
    expect(engine.submit(&request), revision)?;
    let mut engine = engine.restart();
    expect(engine.submit(&request), revision)?;
    engine.settle();
    if engine.get(0) == Some(6) { Ok(()) } else { Err("it was applied twice".to_owned()) }
}

#[test]
fn a_repeat_gets_the_original_answer() {
    check_repeats().unwrap();
}

#[test]
fn a_sequence_of_another_transaction_is_refused_in_whichever_partition_it_is() {
    let mut engine = Engine::new(Pace::Early);
    let request = broad(&engine, 5).request(&stamps(9, 0));
    assert!(matches!(engine.submit(&request), Outcome::Accepted(_)));
    // The same in all partitions but one, and one that has a partition more or less.
    let different = change(&request, |changes| {
        changes.last_mut().unwrap().value = Some(Bytes::from_static(b"else"));
    });
    let fewer = change(&request, |changes| {
        let partition = changes.last().unwrap().partition;
        changes.retain(|change| change.partition != partition);
    });
    assert_eq!(refused(engine.submit(&different)).code, ErrorCode::SequenceReused);
    assert!(matches!(engine.submit(&fewer), Outcome::Duplicate(_)), "a part of one is no harm");
    let gap = broad(&engine, 5).request(&stamps(9, 7));
    assert_eq!(refused(engine.submit(&gap)).code, ErrorCode::OutOfOrder);
    let next = broad(&engine, 7).request(&stamps(9, 2));
    assert!(matches!(engine.submit(&next), Outcome::Accepted(_)));
    assert_eq!(engine.get(0), Some(7));
}

#[test]
fn a_mixture_of_a_repeat_and_something_new_is_refused() {
    let mut engine = Engine::new(Pace::Early);
    let request = broad(&engine, 5).request(&stamps(9, 0));
    let fewer = change(&request, |changes| {
        let partition = changes.last().unwrap().partition;
        changes.retain(|change| change.partition != partition);
    });
    assert!(matches!(engine.submit(&fewer), Outcome::Accepted(_)));
    let refusal = refused(engine.submit(&request));
    assert_eq!(refusal.code, ErrorCode::SequenceReused);
}

#[test]
fn a_repeat_is_known_though_its_snapshot_is_lost_and_nothing_else_is_taken() {
    let mut engine = Engine::new(Pace::Early);
    let lost = |request: &WriteRequest| {
        let WriteRequest::Transaction(transaction) = request else { panic!("no transaction") };
        let transaction = Transaction { basis: Basis::Lost, ..(**transaction).clone() };
        WriteRequest::Transaction(transaction.into())
    };
    let request = broad(&engine, 5).request(&stamps(9, 0));
    assert_eq!(refused(engine.submit(&lost(&request))).code, ErrorCode::SnapshotGone);
    assert!(matches!(engine.submit(&request), Outcome::Accepted(_)));
    assert!(matches!(engine.submit(&lost(&request)), Outcome::Duplicate(Some(_))));
}
