//! How the node is doing, and why it is not well.

use prkdb_proto::v1;

use super::VERSION;
use crate::{
    node::Node,
    storage::disk::{Disk as _, RealDisk},
};

/// With less of the disk free than this, the operator is told.
const DISK_LOW_PERCENT: u64 = 10;

/// With the clock ahead of a shard's time by more than this, the operator is told.
const CLOCK_SKEW_MS: i64 = 1000;

/// Returns every node of the cluster.
pub(super) fn nodes(node: &Node) -> Vec<v1::Node> {
    vec![v1::Node { id: node.node_id(), address: node.advertised().to_owned() }]
}

/// Returns the status of a node.
pub(super) fn status(node: &Node) -> v1::StatusReply {
    let space = RealDisk.space(&node.config().data_dir).ok();
    let shards = node.shards();
    let role = match shards.first() {
        Some(metadata) if metadata.is_leading() => v1::Role::Leader,
        _ => v1::Role::Follower,
    };
    let log_bytes: u64 = shards.iter().map(|handle| handle.shard.stats().log_bytes).sum();
    let leads = shards.iter().filter(|handle| handle.is_leading()).count();
    let status = v1::NodeStatus {
        id: node.node_id(),
        address: node.advertised().to_owned(),
        role: role.into(),
        version: VERSION.to_owned(),
        shards: count(shards.len()),
        leads: count(leads),
        lag: shards.iter().map(|handle| handle.lag()).max().unwrap_or_default(),
        disk_used_bytes: log_bytes,
        disk_free_bytes: space.map_or(0, |space| space.free),
        uptime_ms: u64::try_from(node.uptime().as_millis()).unwrap_or(u64::MAX),
    };
    v1::StatusReply {
        cluster_id: node.cluster_id().to_vec().into(),
        node: Some(status),
        reasons: reasons(node, space.map(|space| (space.free, space.total))),
        nodes: nodes(node),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn reasons(node: &Node, space: Option<(u64, u64)>) -> Vec<v1::Reason> {
    let mut reasons = Vec::new();
    let mut tell = |severity: v1::Severity, code: &str, shard, message: String, hint: &str| {
        reasons.push(v1::Reason {
            severity: severity.into(),
            code: code.to_owned(),
            node: Some(node.node_id()),
            shard,
            message,
            hint: hint.to_owned(),
        });
    };
    for handle in node.shards() {
        let shard = Some(handle.number);
        let number = handle.number;
        if !handle.is_leading() {
            let message = format!("shard {number} has no leader");
            tell(v1::Severity::Critical, "leaderless_shard", shard, message, "");
        }
        if handle.shard.disk_is_full() {
            let message = format!("shard {number} has no room for more of its log");
            let hint = "free space on the disk of the data directory";
            tell(v1::Severity::Critical, "disk_full", shard, message, hint);
        }
        let skew_ms = handle.clock_skew_ms();
        if skew_ms >= CLOCK_SKEW_MS {
            let message = format!(
                "the clock was set forward: the time of shard {number} is {skew_ms} ms behind it and \
                 follows slowly"
            );
            let hint = "check the machine's clock; keys expire later by that much until then. A start believes \
                        the clock: if it is right now, restart the node";
            tell(v1::Severity::Degraded, "clock_skew", shard, message, hint);
        }
        let index_bytes = handle.shard.stats().index_bytes;
        if index_bytes > node.config().index_memory {
            let message = format!("the key index of shard {number} has {index_bytes} bytes");
            let hint = "prkdb serve --index-memory SIZE";
            tell(v1::Severity::Degraded, "index_memory", shard, message, hint);
        }
    }
    if let Some((free, total)) = space
        && free < total / 100 * DISK_LOW_PERCENT
    {
        let message = format!("{free} of {total} bytes are free");
        tell(v1::Severity::Degraded, "disk_low", None, message, "");
    }
    reasons
}
