//! Sidecars of segments that are finished. Without one the index stays in memory, and the segment is not cleaned.

use tracing::warn;

use crate::storage::Shard;

/// Writes those that wait.
pub(super) fn write(number: u32, shard: &Shard) {
    while let Some(job) = shard.next_sidecar() {
        let result = job.run();
        if let Err(error) = &result {
            warn!(shard = number, file = %job.path().display(), %error, "sidecar not written");
        }
        shard.sidecar_done(&job, result);
    }
}
