//! What a shard's leader does by itself, beside the writes of others: keys whose time is over get their
//! tombstones ([`expiry`]), what is beyond a retention goes ([`retention`]), and what nobody can need any
//! more is taken out of the log ([`cleaning`]).
//!
//! The first two are decisions, and stand in the log. The third is this replica's own affair.

mod cleaning;
mod expiry;
mod retention;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::core::{Node, ShardHandle};

pub(super) use cleaning::{Cleaner, CleanerParts};
pub(crate) use retention::trim;

/// Waits for the next look; only while this replica leads. False where it never will again.
async fn next_look(leading: &mut watch::Receiver<u64>, every: Duration) -> bool {
    tokio::time::sleep(every).await;
    leading.wait_for(|term| *term != 0).await.is_ok()
}

/// Starts what decides, until `stop`.
pub(super) fn start(
    node: &Arc<Node>,
    handle: &Arc<ShardHandle>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let expiry = expiry::run(Arc::clone(node), Arc::clone(handle), stop.clone());
    let retention = retention::run(Arc::clone(node), Arc::clone(handle), stop.clone());
    vec![tokio::spawn(expiry), tokio::spawn(retention)]
}
