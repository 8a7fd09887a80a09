//! How a thread of the node ends it: the first error wins, and whoever waits hears of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{NodeError, metrics::Metrics};
use crate::{driver::Observer, storage::StorageError};

/// Counts what the threads of a shard do, and ends the node when its log fails.
#[derive(Debug)]
pub(crate) struct ShardObserver {
    pub(crate) shard: u32,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: Fatal,
}

impl Observer for ShardObserver {
    fn flushed(&self, bytes: u64, entries: usize, took: Duration) {
        self.metrics.flushed(bytes, entries, took);
    }

    fn written_bytes(&self) -> u64 {
        self.metrics.appended_bytes()
    }

    fn checkpointed(&self, bytes: u64, took: Duration) {
        self.metrics.checkpointed(bytes, took);
    }

    fn cleaned(&self, read: u64, written: u64, took: Duration) {
        self.metrics.cleaned(read, written, took);
    }

    fn failed(&self, source: StorageError) {
        self.fatal.raise(NodeError::Shard { shard: self.shard, source });
    }
}

/// The error that ends the node. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fatal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    error: Mutex<Option<NodeError>>,
    raised: Notify,
}

impl Fatal {
    /// Ends the node with `error`, unless another one did.
    pub(crate) fn raise(&self, error: NodeError) {
        let mut first = self.0.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        drop(first);
        self.0.raised.notify_one();
    }

    /// Waits for the error.
    ///
    /// Cancel safety: an error that was raised is not lost.
    pub(crate) async fn raised(&self) -> NodeError {
        loop {
            if let Some(error) = self.take() {
                return error;
            }
            self.0.raised.notified().await;
        }
    }

    /// Takes the error, if there is one.
    pub(crate) fn take(&self) -> Option<NodeError> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
