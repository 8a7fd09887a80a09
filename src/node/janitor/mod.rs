//! What a shard's leader does by itself, beside the writes of others: keys whose time is over get their
//! tombstones ([`expiry`]), what is beyond a retention goes ([`retention`]), and what nobody can need any
//! more is taken out of the log ([`cleaning`]).
//!
//! The first two are decisions, and stand in the log. The third is this replica's own affair.

mod cleaning;
mod expiry;
mod retention;

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::core::{Node, ShardHandle};

pub(super) use cleaning::{Cleaner, CleanerParts};
pub(crate) use retention::trim;

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
