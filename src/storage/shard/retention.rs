//! What may go of partitions because of its age or size, and keys that would go with it.

use std::ops::Bound;

use bytes::Bytes;

use super::Shard;
use crate::storage::{kv::state::Expired, stream::TrimPoint};

/// A partition whose beginning may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The partition's number in frames.
    pub partition: u32,
    /// Its collection.
    pub collection: u32,
    /// Where it began.
    pub begun: Option<u64>,
    /// Where it could begin.
    pub point: TrimPoint,
}

impl Shard {
    /// Returns the partitions that hold more than their retention says, at a time of the log.
    pub fn overdue(&self, now_ms: i64) -> Vec<Overdue> {
        let catalog = self.catalog();
        let limited = catalog.partitions.values();
        let limited = limited.filter(|put| put.retention_ms > 0 || put.retention_bytes > 0);
        // Before the points: whatever comes between is noticed then.
        let limited: Vec<_> = limited.map(|put| (put, self.log_start(put.partition))).collect();
        let stream = self.stream();
        let overdue = limited.into_iter().filter_map(|(put, begun)| {
            let cutoff_ms =
                (put.retention_ms > 0).then(|| now_ms.saturating_sub_unsigned(put.retention_ms));
            let bytes_max = (put.retention_bytes > 0).then_some(put.retention_bytes);
            let point = stream.overdue(put.partition, cutoff_ms, bytes_max)?;
            Some(Overdue { partition: put.partition, collection: put.collection, begun, point })
        });
        overdue.collect()
    }

    /// Returns how a partition is made to begin at an offset, or at its end; `None` where it does not begin
    /// before that.
    pub fn trim_point(&self, partition: u32, log_start: u64) -> Option<TrimPoint> {
        let stats = self.partition_state(partition)?;
        let log_start = log_start.min(stats.next_offset);
        let trimmed = log_start.checked_sub(stats.log_start).filter(|trimmed| *trimmed > 0)?;
        let all = stats.next_offset - stats.log_start;
        // About: records of one partition are of one kind.
        let bytes = u128::from(stats.size_bytes) * u128::from(trimmed) / u128::from(all);
        Some(TrimPoint { log_start, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) })
    }

    /// Returns where a partition begins; `None` where it is not here.
    pub fn log_start(&self, partition: u32) -> Option<u64> {
        self.partition_state(partition).map(|stats| stats.log_start)
    }

    /// Returns what of a trim is left, which was found when the partition began at `begun`: another may have
    /// come between, and what that took is not counted twice.
    pub fn still_to_trim(
        &self,
        partition: u32,
        begun: Option<u64>,
        point: TrimPoint,
    ) -> Option<TrimPoint> {
        if self.log_start(partition) == begun {
            return Some(point);
        }
        self.trim_point(partition, point.log_start)
    }

    /// Returns keys of a partition, behind one, whose latest record stands before an offset; and the last
    /// key that was looked at, if there may be more.
    pub fn keys_before(
        &self,
        (partition, collection): (u32, u32),
        log_start: u64,
        behind: Option<&[u8]>,
        (looks_max, keys_max, bytes_max): (usize, usize, usize),
    ) -> (Expired, Option<Vec<u8>>) {
        let mut found = Expired { collection, partition, keys: Vec::new() };
        let Some(snapshot) = self.scan(collection) else { return (found, None) };
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let mut keys = snapshot.every(from);
        let (mut key, mut bytes) = (Vec::new(), 0);
        for _ in 0..looks_max {
            let Some(leaf) = keys.next_into(&mut key) else { return (found, None) };
            if leaf.partition == partition && leaf.version < log_start {
                found.keys.push((Bytes::copy_from_slice(&key), leaf.version));
                bytes += key.len();
                if found.keys.len() == keys_max || bytes > bytes_max {
                    break;
                }
            }
        }
        (found, Some(key))
    }
}
