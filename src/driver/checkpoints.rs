//! The thread that takes a shard's checkpoints: as they are due, and when somebody asks.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    signal::{Wake, lock},
    threads::Shared,
};
use crate::storage::{CheckpointDone, CheckpointJob, StorageError};

/// Somebody who waits for a checkpoint.
pub(super) type Asked = oneshot::Sender<Result<(), StorageError>>;

/// A handle to a shard's checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpointer(Arc<Shared>);

impl Checkpointer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Lets it be looked whether one is due.
    pub(crate) fn wake(&self) {
        self.0.checkpoint.wake();
    }

    /// Returns once there is a checkpoint of everything that was applied before the call. Nothing is sent
    /// where the thread ends first.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Result<(), StorageError>> {
        let (done, answer) = oneshot::channel();
        lock(&self.0.asked).push(done);
        self.0.checkpoint.wake();
        answer
    }
}

/// Takes checkpoints. Without one the next start reads more.
pub(super) fn run(shared: &Shared) {
    while shared.checkpoint.wait(None) != Wake::Stop {
        let asked = std::mem::take(&mut *lock(&shared.asked));
        let job = if asked.is_empty() {
            shared.shard.next_checkpoint()
        } else {
            shared.shard.checkpoint_now()
        };
        let result = job.map_or(Ok(()), |job| take(shared, job));
        let mut result = Some(result);
        for done in asked {
            // An error is told to the first who asked; the others find no checkpoint of theirs.
            let _sent = done.send(result.take().unwrap_or(Ok(())));
        }
    }
    lock(&shared.asked).clear();
}

fn take(shared: &Shared, job: CheckpointJob) -> Result<(), StorageError> {
    let (index, started) = (job.applied().index, shared.clock.monotonic());
    debug!(shard = shared.number, index, "checkpoint");
    let (finished, result) = job.run();
    let took = shared.clock.monotonic().saturating_sub(started);
    shared.shard.checkpointed(finished, &result);
    match result {
        Ok(CheckpointDone::Written { bytes }) => {
            shared.observer.checkpointed(bytes, took);
            Ok(())
        }
        Ok(CheckpointDone::NoRoom) => {
            warn!(shard = shared.number, index, "no room for a checkpoint");
            Ok(())
        }
        Err(error) => {
            warn!(shard = shared.number, index, %error, "checkpoint not written");
            Err(error)
        }
    }
}
