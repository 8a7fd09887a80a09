//! Tombstones for keys whose time is over.
//!
//! A key that is expired is gone for readers as soon as the log's time says so; its tombstone frees what
//! the index keeps of it. The first one of a group also carries the log's time on, where nothing else is
//! written: so a key is gone at most about a second late on a log that is idle.

use std::{sync::Arc, time::Duration};

use prkdb_types::headers::Operation;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{BYTES_AT_ONCE, KEYS_AT_ONCE, next_look};
use crate::{
    node::{
        core::{Node, ShardHandle},
        outcome::WrittenKind,
    },
    storage::sequencer::WriteRequest,
};

/// So often it is looked for keys that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two batches others get their turn: at most 50,000 keys a second.
const PAUSE: Duration = Duration::from_millis(20);
/// A batch is not waited for longer than this.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Sweeps a shard until `stop`.
pub(super) async fn run(node: Arc<Node>, handle: Arc<ShardHandle>, stop: CancellationToken) {
    let mut leading = handle.leading();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = next_look(&mut leading, LOOK_EVERY) => if !leads { return },
        }
        while !stop.is_cancelled() && sweep(&node, &handle).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Appends one batch of tombstones. Returns whether there may be more.
async fn sweep(node: &Node, handle: &ShardHandle) -> bool {
    let now_ms = node.clock().wall_ms().max(handle.shard.log_time_ms());
    if handle.shard.next_expiry_ms().is_none_or(|next_ms| next_ms > now_ms) {
        return false;
    }
    let Some(expired) = handle.shard.expired(now_ms, KEYS_AT_ONCE, BYTES_AT_ONCE) else {
        return false;
    };
    let count = expired.keys.len();
    let request = WriteRequest::Sweep {
        partition: expired.partition,
        collection: expired.collection,
        keys: expired.keys,
        reason: Operation::Expired,
    };
    let deadline = Some(Instant::now() + WRITE_LIMIT);
    match node.write(handle.number, request, deadline).await {
        Ok(written) => {
            debug!(shard = handle.number, count, revision = written.revision, "keys expired");
            written.kind == WrittenKind::Appended
        }
        Err(failure) => {
            debug!(shard = handle.number, count, %failure, "expired keys are swept later");
            false
        }
    }
}
