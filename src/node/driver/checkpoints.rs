//! The thread that takes a shard's checkpoints.

use tracing::{debug, warn};

use super::{Shared, Wake};
use crate::storage::CheckpointDone;

/// Takes checkpoints as they are due. Without one the next start reads more.
pub(super) fn run(shared: &Shared) {
    while shared.checkpoint.wait(None) != Wake::Stop {
        let Some(job) = shared.shard.next_checkpoint() else { continue };
        let (index, started) = (job.applied().index, shared.clock.monotonic());
        debug!(shard = shared.number, index, "checkpoint");
        let (finished, result) = job.run();
        let took = shared.clock.monotonic().saturating_sub(started);
        shared.shard.checkpointed(finished, &result);
        match result {
            Ok(CheckpointDone::Written { bytes }) => shared.metrics.checkpointed(bytes, took),
            Ok(CheckpointDone::NoRoom) => {
                warn!(shard = shared.number, index, "no room for a checkpoint");
            }
            Err(error) => warn!(shard = shared.number, index, %error, "checkpoint not written"),
        }
    }
}
