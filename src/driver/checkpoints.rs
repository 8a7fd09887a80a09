//! The thread that takes a shard's checkpoints: as they are due, and when somebody asks. It also does what no
//! checkpoint may be taken beside.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    signal::{Wake, lock},
    threads::Shared,
};
use crate::storage::{CheckpointDone, CheckpointJob, Shard, StorageError};

/// Somebody who waits for a checkpoint.
pub(super) type Asked = oneshot::Sender<Result<(), StorageError>>;

/// Work that is done between two checkpoints.
pub(super) type Work = Box<dyn FnOnce(&Shard) + Send>;

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

    /// Does some work beside which no checkpoint is taken. Nothing is sent where the thread ends first.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, answer) = oneshot::channel();
        let work: Work = Box::new(move |shard| {
            // Nobody waits any more: whoever asked was stopped.
            let _sent = done.send(work(shard));
        });
        lock(&self.0.works).push_back(work);
        self.0.checkpoint.wake();
        answer
    }
}

/// Takes checkpoints. Without one the next start reads more.
pub(super) fn run(shared: &Shared) {
    while shared.checkpoint.wait(None) != Wake::Stop {
        loop {
            let work = lock(&shared.works).pop_front();
            let Some(work) = work else { break };
            work(&shared.shard);
        }
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
    lock(&shared.works).clear();
}

fn take(shared: &Shared, job: CheckpointJob) -> Result<(), StorageError> {
    let (index, started) = (job.applied().index, shared.clock.monotonic());
    debug!(shard = shared.number, index, "checkpoint");
    let (finished, result) = job.run();
    let took = shared.clock.monotonic().saturating_sub(started);
    shared.shard.checkpointed(finished, &result);
    match result {
        Ok(CheckpointDone::Written { bytes }) => {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            debug!(shard = shared.number, index, bytes, ms, "checkpoint written");
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
