//! What a shard's leader does by itself, beside the writes of others: keys whose time is over get their
//! tombstones ([`expiry`]), and what is beyond a retention goes ([`retention`]).
//!
//! Both are decisions, and stand in the log. What nobody can need any more is then taken out of the log by
//! each replica for itself: that is the driver's.

mod expiry;
mod retention;

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    core::{Node, ShardHandle},
    raft::Group,
};
use crate::{driver::Purge, storage::log::entry::LogId};

pub(crate) use retention::trim;

/// Keys, and bytes of keys, that get their tombstones in one batch.
const KEYS_AT_ONCE: usize = 1000;
const BYTES_AT_ONCE: usize = 256 << 10;

/// The purge mark of a log that Raft orders.
#[derive(Debug)]
pub(super) struct ThroughRaft {
    pub(super) group: Arc<Group>,
    pub(super) consensus: Handle,
}

impl Purge for ThroughRaft {
    fn purge(&self, up_to: LogId) -> Result<(), String> {
        self.consensus.block_on(self.group.purge(up_to)).map_err(|error| error.to_string())
    }
}

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
