//! Which partition a key belongs to.
//!
//! Owns Kafka's murmur2 and the two partitioners. Client and server use the same table, so they
//! agree on every key; a change here would move keys and is therefore a change of the format.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use crate::limits;

/// How many points each partition has on the ring: the more, the more even the shares.
const POINTS_PER_PARTITION: u32 = 150;

/// Kafka's `DefaultPartitioner` hash: `MurmurHash2`, 32 bits, seed `0x9747b28c`.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Kafka mixes in the length as a Java int. A slice of 2^32 bytes or more is beyond every limit.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// How a key is mapped to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partitioner {
    /// Consistent hashing over the partitions, with 150 points for each.
    Ring,
    /// `murmur2` modulo the number of partitions, as Kafka's default.
    Kafka,
}

impl Partitioner {
    /// Returns the default for a collection of `partitions` partitions.
    pub fn default_for(partitions: u32) -> Self {
        if partitions <= limits::MAX_RING_PARTITIONS { Self::Ring } else { Self::Kafka }
    }
}

/// The mapping of keys to the partitions of a collection.
#[derive(Debug, PartialEq, Eq)]
pub struct PartitionTable {
    partitions: u32,
    // Sorted; empty for `kafka`.
    ring: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    // The second key of the order: of two points with one hash the lower partition comes first.
    partition: u32,
}

/// Tables in use. Entries do not keep a table alive, so unused ones cost nothing.
static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);

type Tables = BTreeMap<(Partitioner, u32), Weak<PartitionTable>>;

impl PartitionTable {
    /// Returns the table for this many partitions: one per partitioner and count in the process.
    ///
    /// `partitions` is what [`crate::CollectionSettings::check`] accepts; other counts are taken as
    /// the nearest in `1..=MAX_PARTITIONS`.
    pub fn shared(partitioner: Partitioner, partitions: u32) -> Arc<Self> {
        let partitions = partitions.clamp(1, limits::MAX_PARTITIONS);
        // The map is whole between any two statements, so a poisoned lock guards no broken state.
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = tables.entry((partitioner, partitions)).or_default();
        if let Some(table) = slot.upgrade() {
            return table;
        }
        let table = Arc::new(Self::build(partitioner, partitions));
        *slot = Arc::downgrade(&table);
        tables.retain(|_, table| table.strong_count() > 0);
        table
    }

    fn build(partitioner: Partitioner, partitions: u32) -> Self {
        let ring = match partitioner {
            Partitioner::Ring => ring_points(partitions),
            Partitioner::Kafka => Vec::new(),
        };
        Self { partitions, ring }
    }

    /// Returns how many partitions there are, at least 1.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Returns the number of the key's partition in its collection.
    pub fn partition(&self, key: &[u8]) -> u32 {
        let hash = murmur2(key);
        let Some(first) = self.ring.first() else {
            // Kafka clears the sign before the remainder; it does not negate.
            return (hash & 0x7fff_ffff) % self.partitions;
        };
        let index = self.ring.partition_point(|point| point.hash < hash);
        self.ring.get(index).unwrap_or(first).partition
    }
}

fn ring_points(partitions: u32) -> Vec<Point> {
    let mut points: Vec<Point> = (0..partitions)
        .flat_map(|partition| (0..POINTS_PER_PARTITION).map(move |number| (partition, number)))
        .map(|(partition, number)| {
            let mut name = [0; 8];
            name[..4].copy_from_slice(&partition.to_be_bytes());
            name[4..].copy_from_slice(&number.to_be_bytes());
            Point { hash: murmur2(&name), partition }
        })
        .collect();
    points.sort_unstable();
    points
}
