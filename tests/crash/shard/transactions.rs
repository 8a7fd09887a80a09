//! Transactions of a load.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prkdb::storage::sequencer::{Basis, KeyChange, Transaction, WriteRequest};
use prkdb_types::Isolation;

use super::{COLLECTION, Life, Load, PARTITION_TTL_MS, partition_of};

impl Load {
    /// A transaction over all partitions: all of it is in the entry, or nothing.
    pub(super) fn write_transaction(&mut self) {
        let mut changes = BTreeMap::new();
        for _ in 0..=self.below(6) {
            let key = [u8::try_from(self.below(18)).unwrap()];
            let value = (self.below(4) > 0).then(|| vec![9; 30]);
            changes.insert(key, value);
        }
        let change = |(key, value): (&[u8; 1], &Option<Vec<u8>>)| KeyChange {
            partition: partition_of(key),
            collection: COLLECTION,
            key: Bytes::copy_from_slice(key),
            value: value.clone().map(Bytes::from),
        };
        // What is under way is applied first: the snapshot is of all of it.
        self.take();
        let request = WriteRequest::Transaction(Arc::new(Transaction {
            basis: Basis::Snapshot(Arc::new(self.shard.snapshot())),
            isolation: Isolation::Snapshot,
            changes: changes.iter().map(change).collect(),
            reads: Vec::new(),
            ranges: Vec::new(),
            timestamp_ms: 6,
            producers: BTreeMap::new(),
        }));
        self.accept(&request).unwrap();
        for (key, value) in changes {
            let partition = partition_of(&key);
            let version = self.gathered.next_offsets.get(&partition).copied().unwrap_or(0);
            self.streamed(partition, (6, Some(key.to_vec()), value.clone()));
            self.gathered.lives.remove(&key[..]);
            if value.is_some() && partition == 3 {
                self.gathered.lives.insert(key.to_vec(), Life::For(PARTITION_TTL_MS));
            }
            match value {
                Some(value) => self.gathered.keys.insert(key.to_vec(), (value, version)),
                None => self.gathered.keys.remove(&key[..]),
            };
            self.gathered.next_offsets.insert(partition, version + 1);
        }
    }
}
