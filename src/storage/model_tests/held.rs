//! Snapshots that are kept while the shard goes on, and transactions that rest on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use prkdb_types::{ErrorCode, Isolation, transaction::RangeRead};

use super::{
    Kept, Model,
    engine::{COLLECTION, Engine, partition_of},
};
use crate::storage::{
    ShardSnapshot,
    sequencer::{Answer, Basis, KeyChange, Transaction, Verdict, WriteRequest},
};

/// A snapshot, and the values and versions that it must have for ever.
pub(super) struct Held {
    snapshot: Arc<ShardSnapshot>,
    content: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
}

impl Held {
    pub(super) fn take(engine: &mut Engine, model: &Model) -> Self {
        engine.commit();
        let live = model.keys().filter_map(|key| Some((key, engine.live(model, key)?)));
        let content = live.map(|(key, kept)| (key.clone(), (kept.value.clone(), kept.version)));
        Self { content: content.collect(), snapshot: Arc::new(engine.shard.snapshot()) }
    }

    pub(super) fn check(&self) {
        let mut values = self.snapshot.values();
        let all = self.snapshot.range(COLLECTION, Bound::Unbounded, Bound::Unbounded);
        let read = all.map(|(key, leaf)| {
            let found = values.read(leaf).unwrap();
            assert_eq!(self.snapshot.version(COLLECTION, &key), Some(found.version));
            (key, (found.value.to_vec(), found.version))
        });
        assert_eq!(read.collect::<BTreeMap<_, _>>(), self.content);
    }

    /// Writes on this snapshot, and says of what is decided whether it may be.
    pub(super) fn transact(
        &self,
        engine: &mut Engine,
        model: &mut Model,
        writes: Vec<(u8, Option<u8>)>,
        isolation: Isolation,
    ) {
        engine.commit();
        let writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = writes
            .into_iter()
            .map(|(key, value)| (vec![key], value.map(|value| vec![value; 20])))
            .collect();
        let change = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| KeyChange {
            partition: partition_of(key),
            collection: COLLECTION,
            key: key.clone().into(),
            value: value.clone().map(Bytes::from),
        };
        let range =
            RangeRead { collection: COLLECTION, from: Bound::Unbounded, to: Bound::Unbounded };
        let request = WriteRequest::Transaction(Arc::new(Transaction {
            basis: Basis::Snapshot(Arc::clone(&self.snapshot)),
            isolation,
            changes: writes.iter().map(change).collect(),
            reads: Vec::new(),
            ranges: vec![range],
            timestamp_ms: 2,
            producers: BTreeMap::new(),
        }));
        let every: BTreeSet<Vec<u8>> = match isolation {
            Isolation::Snapshot => writes.keys().cloned().collect(),
            Isolation::Serializable => (0..12).map(|key| vec![key]).collect(),
        };
        let then = |key: &Vec<u8>| self.content.get(key).map(|(_, version)| *version);
        let now = |key: &Vec<u8>| engine.live(model, key).map(|kept| kept.version);
        let changed: Vec<_> = every.iter().filter(|key| then(key) != now(key)).cloned().collect();
        // Such a key may have been written and taken away meanwhile.
        let is_doubtful = every.iter().any(|key| then(key).is_none() && now(key).is_none());
        match engine.decide(&request) {
            Verdict::Accepted { .. } => {
                assert!(changed.is_empty(), "{isolation:?}: {changed:?} were changed");
                let commit = engine.commits.len();
                let mut offsets = BTreeMap::new();
                for (key, value) in writes {
                    let partition = partition_of(&key);
                    let next = || engine.shard.partition_state(partition).unwrap().next_offset;
                    let offset = offsets.entry(partition).or_insert_with(next);
                    let version = *offset;
                    *offset += 1;
                    match value {
                        Some(value) => {
                            model.insert(key, Kept { value, version, ttl_ms: None, commit })
                        }
                        None => model.remove(&key),
                    };
                }
            }
            Verdict::Answered { answer: Answer::Refused(refusal), .. } => {
                let code = refusal.code;
                assert!(matches!(code, ErrorCode::ConflictDetected | ErrorCode::SnapshotGone));
                assert!(!changed.is_empty() || is_doubtful, "{isolation:?}: {refusal:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
