//! What became of a record.
//!
//! A batch has one fate, which all its records share: a delivery is a reference to it and the record's place
//! in the batch.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::error::ClientError;

/// A record that is durable and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The number of the partition in its collection.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: u64,
    /// The shard's time when its batch was appended, in milliseconds since 1970.
    pub append_time_ms: i64,
}

/// What becomes of a record: a future that ends when its batch is answered.
///
/// Dropping it costs nothing and changes nothing for the record.
///
/// Cancel safety: it may be dropped and polled at will; once the batch is answered, every poll says the same.
#[derive(Debug)]
pub struct Delivery {
    fate: Arc<Fate>,
    ordinal: u32,
    /// Its place among those who wait.
    place: Option<usize>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Fate {
    outcome: OnceLock<Result<Delivered, ClientError>>,
    /// Those who wait. A dropped delivery leaves its waker until the batch is answered.
    wakers: Mutex<Vec<Waker>>,
}

impl Fate {
    /// Tells the batch's fate, where it was not told before. `outcome` is that of its first record.
    pub(super) fn settle(&self, outcome: Result<Delivered, ClientError>) {
        if self.outcome.set(outcome).is_err() {
            return;
        }
        let wakers = std::mem::take(&mut *self.lock());
        for waker in wakers {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    pub(super) fn new(fate: Arc<Fate>, ordinal: u32) -> Self {
        Self { fate, ordinal, place: None }
    }

    /// Returns what became of the record, if its batch is answered.
    pub fn outcome(&self) -> Option<Result<Delivered, ClientError>> {
        let told = self.fate.outcome.get()?;
        Some(match told {
            Ok(first) => {
                let offset = first.offset.saturating_add(u64::from(self.ordinal));
                Ok(Delivered { offset, ..*first })
            }
            Err(error) => Err(error.clone()),
        })
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        // The reference is counted once per wait, not per record.
        let fate = Arc::clone(&self.fate);
        let mut wakers = fate.lock();
        // It may have been told since; whoever tells it takes the wakers after.
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        if let Some(waker) = self.place.and_then(|place| wakers.get_mut(place)) {
            waker.clone_from(context.waker());
        } else {
            self.place = Some(wakers.len());
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Delivered = Delivered { partition: 2, offset: 40, append_time_ms: 9 };

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let fate = Arc::new(Fate::default());
        let waiting: Vec<_> =
            (0..3).map(|ordinal| tokio::spawn(Delivery::new(Arc::clone(&fate), ordinal))).collect();
        tokio::task::yield_now().await;
        assert!(Delivery::new(Arc::clone(&fate), 0).outcome().is_none());
        fate.settle(Ok(FIRST));
        fate.settle(Err(ClientError::Closed));
        for (offset, waiting) in (40..).zip(waiting) {
            assert_eq!(waiting.await.unwrap().unwrap(), Delivered { offset, ..FIRST });
        }
        let late = Delivery::new(fate, 5);
        assert_eq!(late.await.unwrap().offset, 45);
    }

    #[tokio::test]
    async fn a_delivery_polled_often_waits_once() {
        let fate = Arc::new(Fate::default());
        let mut delivery = Delivery::new(Arc::clone(&fate), 0);
        for _ in 0..10 {
            let soon = std::time::Duration::ZERO;
            assert!(tokio::time::timeout(soon, &mut delivery).await.is_err());
        }
        assert_eq!(fate.lock().len(), 1);
        fate.settle(Err(ClientError::Closed));
        assert!(delivery.await.is_err());
    }
}
