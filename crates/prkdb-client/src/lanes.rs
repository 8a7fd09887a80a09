//! Lanes: the producers that single writes go out under.
//!
//! A lane is one random producer id with at most one write in flight, so its sequence in a partition is
//! always the number of its records there. A lane whose write ended unknown is never used again: its next
//! sequence would be a guess. Dropping a [`LaneGuard`] with a write in flight retires the lane.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prkdb_proto::v1::Producer;
use prkdb_types::limits::EXCHANGE_LANES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ClientError;

/// Sequences have 31 bits and begin again at 0, as in Kafka.
const SEQUENCE_MASK: u32 = u32::MAX >> 1;
/// Producer ids are below this: they travel as a signed number.
const PRODUCER_MASK: u64 = u64::MAX >> 1;

/// A partition of a collection, by numbers that are never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) collection: u32,
    pub(crate) partition: u32,
}

/// Returns the sequence `records` after `sequence`.
pub(crate) fn sequence_after(sequence: u32, records: u32) -> u32 {
    sequence.wrapping_add(records) & SEQUENCE_MASK
}

/// Draws a producer id: 63 random bits.
pub(crate) fn draw_producer_id() -> Result<u64, ClientError> {
    getrandom::u64()
        .map(|bits| bits & PRODUCER_MASK)
        .map_err(|source| ClientError::Random { source })
}

#[derive(Debug)]
struct Lane {
    producer_id: u64,
    /// The next sequence per partition; absent = 0.
    sequences: HashMap<PartitionKey, u32>,
}

/// The lanes of a client.
#[derive(Debug)]
pub(crate) struct Lanes {
    permits: Arc<Semaphore>,
    /// The one used last is used next, so that few calls at a time keep few producers.
    free: Mutex<Vec<Lane>>,
}

impl Lanes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(EXCHANGE_LANES_MAX)),
            free: Mutex::new(Vec::new()),
        })
    }

    /// Takes a free lane, or a new one, or waits until one comes back.
    ///
    /// Cancel safety: dropping the future takes no lane.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<LaneGuard, ClientError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_closed| ClientError::Closed)?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = match free {
            Some(lane) => lane,
            None => Lane { producer_id: draw_producer_id()?, sequences: HashMap::new() },
        };
        Ok(LaneGuard {
            lanes: Arc::clone(self),
            lane: Some(lane),
            in_flight: false,
            _permit: permit,
        })
    }
}

/// A lane in use.
#[derive(Debug)]
pub(crate) struct LaneGuard {
    lanes: Arc<Lanes>,
    /// Always there until the guard is dropped.
    lane: Option<Lane>,
    in_flight: bool,
    /// Comes back after the lane: whoever gets it finds the lane free.
    _permit: OwnedSemaphorePermit,
}

impl LaneGuard {
    /// Returns the identity of the next write to a partition.
    pub(crate) fn producer(&self, key: PartitionKey) -> Producer {
        let lane = self.lane.as_ref();
        Producer {
            id: lane.map_or(0, |lane| lane.producer_id),
            epoch: 0,
            sequence: lane.and_then(|lane| lane.sequences.get(&key)).copied().unwrap_or(0),
        }
    }

    /// Says whether a write is under way whose outcome is not known.
    pub(crate) fn set_in_flight(&mut self, in_flight: bool) {
        self.in_flight = in_flight;
    }

    /// Counts a write that was applied.
    pub(crate) fn advance(&mut self, key: PartitionKey) {
        self.advance_by(key, 1);
    }

    /// Counts records that were applied.
    pub(crate) fn advance_by(&mut self, key: PartitionKey, records: u32) {
        if let Some(lane) = &mut self.lane {
            let sequence = lane.sequences.entry(key).or_insert(0);
            *sequence = sequence_after(*sequence, records);
        }
    }

    /// Goes on under a new producer: the cluster has forgotten this one.
    pub(crate) fn renew(&mut self) -> Result<(), ClientError> {
        self.lane = Some(Lane { producer_id: draw_producer_id()?, sequences: HashMap::new() });
        Ok(())
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        if self.in_flight {
            return;
        }
        if let Some(lane) = self.lane.take() {
            self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey = PartitionKey { collection: 1, partition: 0 };

    #[test]
    fn sequences_wrap_at_two_to_the_31() {
        assert_eq!(sequence_after(SEQUENCE_MASK, 1), 0);
        assert_eq!(sequence_after(SEQUENCE_MASK - 1, 5), 3);
        assert_eq!(sequence_after(7, 0), 7);
    }

    #[tokio::test]
    async fn a_settled_lane_is_used_again_and_counts_on() {
        let lanes = Lanes::new();
        let mut first = lanes.take().await.unwrap();
        let producer = first.producer(KEY);
        first.advance(KEY);
        drop(first);
        let second = lanes.take().await.unwrap();
        assert_eq!(second.producer(KEY), Producer { sequence: 1, ..producer });
    }

    #[tokio::test]
    async fn a_lane_dropped_with_a_write_in_flight_is_retired() {
        let lanes = Lanes::new();
        let mut first = lanes.take().await.unwrap();
        let id = first.producer(KEY).id;
        first.set_in_flight(true);
        drop(first);
        assert_ne!(lanes.take().await.unwrap().producer(KEY).id, id);
        assert_eq!(lanes.permits.available_permits(), EXCHANGE_LANES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_lane_after_the_last_waits_for_one_to_come_back() {
        let lanes = Lanes::new();
        let mut held = Vec::new();
        for _ in 0..EXCHANGE_LANES_MAX {
            held.push(lanes.take().await.unwrap());
        }
        let mut waiting = Box::pin(lanes.take());
        let soon = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        held.pop();
        waiting.await.unwrap();
    }
}
