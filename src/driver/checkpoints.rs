//! The thread that takes a shard's checkpoints: as they are due, and when somebody asks. It also does what no
//! checkpoint may be taken beside.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    signal::{Wake, lock},
    threads::Shared,
};
use crate::storage::{CheckpointDone, CheckpointJob, Shard, StorageError};

/// Why there is no checkpoint of what was applied.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoCheckpoint {
    /// The disk is too full.
    #[error("the disk has no room for it")]
    NoRoom,
    /// None may be taken now.
    #[error("{0}")]
    NotNow(&'static str),
    /// It could not be written.
    #[error("{0}")]
    Failed(#[source] Arc<StorageError>),
}

/// Somebody who waits for a checkpoint.
pub(super) struct Asked {
    /// What it must have.
    applied: Option<u64>,
    done: oneshot::Sender<Result<(), NoCheckpoint>>,
}

/// Work that is done between two checkpoints.
type Work = Box<dyn FnOnce(&Shard) + Send>;

/// What the thread was told to do; nothing more once it has ended.
#[derive(Default)]
pub(super) struct Orders {
    asked: Vec<Asked>,
    works: VecDeque<Work>,
    has_ended: bool,
}

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

    /// Returns once there is a checkpoint of everything that was applied before the call, or why there is
    /// none. Nothing is sent where the thread ends first, or has.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Result<(), NoCheckpoint>> {
        let (done, answer) = oneshot::channel();
        let applied = self.0.shard.applied().0.map(|id| id.index);
        self.order(|orders| orders.asked.push(Asked { applied, done }));
        answer
    }

    /// Does some work beside which no checkpoint is taken. Nothing is sent where the thread ends first, or
    /// has.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, answer) = oneshot::channel();
        let work: Work = Box::new(move |shard| {
            // Nobody waits any more: whoever asked was stopped.
            let _sent = done.send(work(shard));
        });
        self.order(|orders| orders.works.push_back(work));
        answer
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        let mut orders = lock(&self.0.orders);
        if !orders.has_ended {
            give(&mut orders);
            drop(orders);
            self.0.checkpoint.wake();
        }
    }
}

/// Takes checkpoints. Without one the next start reads more.
pub(super) fn run(shared: &Shared) {
    while shared.checkpoint.wait(None) != Wake::Stop {
        loop {
            let work = lock(&shared.orders).works.pop_front();
            let Some(work) = work else { break };
            work(&shared.shard);
        }
        let asked = std::mem::take(&mut lock(&shared.orders).asked);
        let job = if asked.is_empty() {
            shared.shard.next_checkpoint()
        } else {
            shared.shard.checkpoint_now()
        };
        let taken = job.map_or(Ok(()), |job| take(shared, job));
        for one in asked {
            answer(shared, one, &taken);
        }
    }
    end(shared);
}

/// Takes no orders any more, and drops those there are: who waits for them hears of it.
pub(super) fn end(shared: &Shared) {
    let mut orders = lock(&shared.orders);
    orders.has_ended = true;
    let left = (std::mem::take(&mut orders.asked), std::mem::take(&mut orders.works));
    // Not under the lock.
    drop(orders);
    drop(left);
}

/// Answers, unless what was applied has to be synced before: then it is asked again at the next look.
fn answer(shared: &Shared, one: Asked, taken: &Result<(), NoCheckpoint>) {
    let last = shared.shard.last_checkpoint().map(|(last, _)| last.index);
    let answer = if last >= one.applied {
        Ok(())
    } else if let Err(why) = taken {
        // The clone counts a reference.
        Err(why.clone())
    } else if let Some(why) = shared.shard.takes_no_checkpoint() {
        Err(NoCheckpoint::NotNow(why))
    } else {
        let mut orders = lock(&shared.orders);
        if !orders.has_ended {
            orders.asked.push(one);
        }
        return;
    };
    // Nobody waits any more: whoever asked was stopped.
    let _sent = one.done.send(answer);
}

fn take(shared: &Shared, job: CheckpointJob) -> Result<(), NoCheckpoint> {
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
            Err(NoCheckpoint::NoRoom)
        }
        Err(error) => {
            warn!(shard = shared.number, index, %error, "checkpoint not written");
            Err(NoCheckpoint::Failed(Arc::new(error)))
        }
    }
}
