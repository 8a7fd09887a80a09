//! The buffer against a plain map with a stack of copies.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

type Map = BTreeMap<Bytes, Option<Bytes>>;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Savepoint(u8),
    RollbackTo(u8),
    Release(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..8u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..8u8).prop_map(Step::Delete),
        2 => (0..3u8).prop_map(Step::Savepoint),
        1 => (0..3u8).prop_map(Step::RollbackTo),
        1 => (0..3u8).prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..60)
}

fn bytes(byte: u8) -> Bytes {
    Bytes::copy_from_slice(&[byte])
}

fn written(buffer: &Buffer<u32>) -> Map {
    buffer.writes().map(|(_, key, value)| (key.clone(), value.cloned())).collect()
}

/// What the writes and undos of a buffer take, counted anew.
fn naive_bytes(map: &Map) -> usize {
    map.iter().map(|(key, value)| 96 + key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

proptest! {
    #[test]
    fn savepoints_are_copies(steps in steps()) {
        let mut buffer = Buffer::new(Isolation::Snapshot, usize::MAX);
        let mut map = Map::new();
        let mut stack: Vec<(u8, Map)> = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    buffer.put(1, bytes(key), bytes(value)).unwrap();
                    map.insert(bytes(key), Some(bytes(value)));
                }
                Step::Delete(key) => {
                    buffer.delete(1, bytes(key)).unwrap();
                    map.insert(bytes(key), None);
                }
                Step::Savepoint(name) => {
                    buffer.savepoint(&name.to_string()).unwrap();
                    stack.push((name, map.clone()));
                }
                Step::RollbackTo(name) => {
                    let at = stack.iter().rposition(|(known, _)| *known == name);
                    let result = buffer.rollback_to(&name.to_string());
                    prop_assert_eq!(result.is_ok(), at.is_some());
                    if let Some(at) = at {
                        stack.truncate(at + 1);
                        map = stack[at].1.clone();
                    }
                }
                Step::Release(name) => {
                    let at = stack.iter().rposition(|(known, _)| *known == name);
                    let result = buffer.release(&name.to_string());
                    prop_assert_eq!(result.is_ok(), at.is_some());
                    if let Some(at) = at {
                        stack.truncate(at);
                    }
                }
            }
            prop_assert_eq!(written(&buffer), map.clone());
            prop_assert_eq!(buffer.len(), map.len());
            prop_assert!(buffer.bytes() >= naive_bytes(&map));
            if stack.is_empty() {
                prop_assert_eq!(buffer.bytes(), naive_bytes(&map));
            }
        }
    }

    #[test]
    fn a_merge_is_the_map_with_the_writes_in_it(
        base in prop::collection::btree_map(0..20u8, any::<u8>(), 0..20),
        writes in prop::collection::btree_map(0..20u8, any::<Option<u8>>(), 0..20),
        bounds in (0..20u8, 0..20u8),
        is_reverse in any::<bool>(),
    ) {
        let mut buffer = Buffer::new(Isolation::Snapshot, usize::MAX);
        let mut expected: BTreeMap<u8, Source<u8>> =
            base.iter().map(|(key, value)| (*key, Source::Base(*value))).collect();
        for (key, value) in &writes {
            match value {
                Some(value) => {
                    buffer.put(1, bytes(*key), bytes(*value)).unwrap();
                    expected.insert(*key, Source::Written(bytes(*value)));
                }
                None => {
                    buffer.delete(1, bytes(*key)).unwrap();
                    expected.remove(key);
                }
            }
        }
        let (low, high) = bounds;
        let is_inside = |key: &u8| (low..high).contains(key);
        let mut below: Vec<(Bytes, u8)> = base
            .iter()
            .filter(|(key, _)| is_inside(key))
            .map(|(key, value)| (bytes(*key), *value))
            .collect();
        let mut expected: Vec<(Bytes, Source<u8>)> = expected
            .into_iter()
            .filter(|(key, _)| is_inside(key))
            .map(|(key, source)| (bytes(key), source))
            .collect();
        let mut order = Order::Forward;
        if is_reverse {
            order = Order::Reverse;
            below.reverse();
            expected.reverse();
        }
        let (low, high) = ([low], [high]);
        let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
        let found: Vec<_> = buffer.merge(&1, range, order, below.into_iter()).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn reads_are_kept_where_the_isolation_asks_for_them_and_outlive_a_rollback() {
    for (isolation, count) in [(Isolation::Snapshot, 0), (Isolation::Serializable, 1)] {
        let mut buffer = Buffer::new(isolation, 100);
        buffer.savepoint("s").unwrap();
        for _ in 0..2 {
            buffer.note_read(1, bytes(1)).unwrap();
            let (from, to) = (Bound::Unbounded, Bound::Unbounded);
            buffer.note_range(RangeRead { collection: 1, from, to }).unwrap();
        }
        buffer.rollback_to("s").unwrap();
        assert_eq!(buffer.reads().keys.len(), count);
        assert_eq!(buffer.reads().ranges.len(), count);
    }
}

#[test]
fn a_limit_is_told_and_leaves_the_transaction_as_it_was() {
    let mut buffer = Buffer::new(Isolation::Snapshot, 300);
    buffer.put(1, bytes(1), Bytes::from(vec![0; 100])).unwrap();
    let error = buffer.put(1, bytes(1), Bytes::from(vec![0; 200])).unwrap_err();
    assert!(error.to_string().contains("limit 300 bytes (transaction-bytes)"), "{error}");
    assert_eq!(buffer.get(&1, &[1]).unwrap().unwrap().len(), 100);
    let mut buffer = Buffer::new(Isolation::Snapshot, usize::MAX);
    for number in 0..limits::MAX_TRANSACTION_WRITES {
        buffer.delete(1, Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
    }
    let error = buffer.delete(1, bytes(0)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    // One that it has may still change.
    buffer.delete(1, Bytes::copy_from_slice(&0usize.to_be_bytes())).unwrap();
}
