//! The beginnings of partitions go that are beyond a retention, or that somebody truncates.
//!
//! Where there is a key index, the keys go first whose latest record would go: each gets a tombstone, on
//! the condition that it still has that version. Only then the partition begins later.

use std::{sync::Arc, time::Duration};

use prkdb_types::headers::Operation;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{BYTES_AT_ONCE, KEYS_AT_ONCE, next_look};
use crate::{
    node::{
        core::{Node, ShardHandle},
        outcome::{Failure, Outcome, WrittenKind},
    },
    storage::{
        TrimPoint,
        sequencer::{LogClock, WriteRequest},
    },
};

/// So often it is looked for partitions that hold too much.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Keys that are looked at at once.
const LOOKS_AT_ONCE: usize = 20_000;

/// Trims a shard until `stop`.
pub(super) async fn run(node: Arc<Node>, handle: Arc<ShardHandle>, stop: CancellationToken) {
    let mut leading = handle.leading();
    // Ages go by the log's time, also where nothing is written: a clock that is set forward is not believed.
    let mut clock = LogClock::default();
    // The first time is believed.
    clock.now(node.clock().wall_ms(), node.clock().monotonic());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = next_look(&mut leading, LOOK_EVERY) => if !leads { return },
        }
        let now = clock.now(node.clock().wall_ms(), node.clock().monotonic());
        let now_ms = now.ms.max(handle.shard.log_time_ms());
        for overdue in handle.shard.overdue(now_ms) {
            let partition = (overdue.partition, overdue.collection);
            let trimmed = tokio::select! {
                () = stop.cancelled() => return,
                trimmed = trim(&node, &handle, partition, (overdue.begun, overdue.point)) => trimmed,
            };
            if let Err(failure) = trimmed {
                debug!(shard = handle.number, partition = overdue.partition, %failure, "trimmed later");
            }
        }
    }
}

/// Lets a partition begin later, keys first, that began at an offset when the point was found.
///
/// # Errors
/// Those of the writes; some may be done then.
///
/// Cancel safety: what is written is right by itself.
pub(crate) async fn trim(
    node: &Node,
    handle: &ShardHandle,
    (partition, collection): (u32, u32),
    (begun, point): (Option<u64>, TrimPoint),
) -> Result<(), Failure> {
    let mut has_written = false;
    let place = (partition, collection);
    let written = async {
        sweep_before(node, handle, place, point.log_start, &mut has_written).await?;
        let Some(point) = handle.shard.still_to_trim(partition, begun, point) else {
            return Ok(None);
        };
        let request = WriteRequest::trim(partition, point, node.clock().wall_ms());
        node.write(handle.number, request, None).await.map(Some)
    };
    let written = written.await;
    // Keys that have gone are gone.
    let in_part = |failure: Failure| {
        let outcome = if has_written { Outcome::Unknown } else { failure.outcome };
        Failure { outcome, ..failure }
    };
    let written = written.map_err(in_part)?;
    let (log_start, revision) = (point.log_start, written.map(|written| written.revision));
    debug!(shard = handle.number, partition, log_start, revision, "trimmed");
    Ok(())
}

async fn sweep_before(
    node: &Node,
    handle: &ShardHandle,
    place: (u32, u32),
    log_start: u64,
    has_written: &mut bool,
) -> Result<(), Failure> {
    let (partition, collection) = place;
    let mut behind: Option<Vec<u8>> = None;
    loop {
        let at_once = (LOOKS_AT_ONCE, KEYS_AT_ONCE, BYTES_AT_ONCE);
        let (found, last) = handle.shard.keys_before(place, log_start, behind.as_deref(), at_once);
        if !found.keys.is_empty() {
            let (keys, reason) = (found.keys, Operation::Trimmed);
            let request = WriteRequest::Sweep { partition, collection, keys, reason };
            let written = node.write(handle.number, request, None).await?;
            *has_written |= written.kind == WrittenKind::Appended;
        }
        let Some(last) = last else { return Ok(()) };
        behind = Some(last);
        // Others get their turn.
        tokio::task::yield_now().await;
    }
}
