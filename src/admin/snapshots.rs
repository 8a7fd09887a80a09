//! Snapshots: what a shard is as files, at the entry of its last checkpoint.

use prkdb_proto::v1;
use prkdb_types::ErrorCode;
use sha2::{Digest as _, Sha256};

use crate::{
    node::{Members, Node, outcome::Failure},
    storage::{ShardCopy, SnapshotVersion},
};

/// Takes a checkpoint of every shard and returns them as files.
///
/// The catalogue does not change until the last is taken, so that no shard misses a partition that another's
/// catalogue has. Writes go on.
///
/// # Errors
/// Those of the disk.
pub(super) async fn take(node: &Node) -> Result<Vec<(u32, ShardCopy)>, Failure> {
    let _catalogue_stands_still = node.admin_lock().lock().await;
    for handle in node.shards() {
        handle.checkpoint().await?;
    }
    let mut taken = Vec::with_capacity(node.shards().len());
    for handle in node.shards() {
        let copy = handle.shard.copy().map_err(|error| Failure::from(&error))?;
        let copy = copy.ok_or_else(|| {
            let message = format!("shard {} has no checkpoint", handle.number);
            Failure::new(ErrorCode::Internal, message)
        })?;
        taken.push((handle.number, copy));
    }
    Ok(taken)
}

/// Takes a snapshot of every shard.
///
/// # Errors
/// `NotFound` where another node is meant; those of the disk.
pub(super) async fn create(
    node: &Node,
    wanted: Option<u64>,
) -> Result<v1::CreateSnapshotReply, Failure> {
    let node_id = node.node_id();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != node_id) {
        let message = format!("no node {wanted}: this is node {node_id}");
        return Err(Failure::new(ErrorCode::NodeNotFound, message)
            .with_hint("prkdb status shows the nodes and their addresses"));
    }
    let taken = take(node).await?;
    let snapshots: Result<_, Failure> =
        taken.iter().map(|(shard, copy)| message(*shard, &copy.version, 0)).collect();
    Ok(v1::CreateSnapshotReply { node_id, snapshots: snapshots? })
}

/// Returns the snapshots that the node has.
///
/// # Errors
/// Those of the disk.
pub(super) fn list(node: &Node) -> Result<v1::ListSnapshotsReply, Failure> {
    let mut snapshots = Vec::new();
    for handle in node.shards() {
        let found = handle.shard.snapshots().map_err(|error| Failure::from(&error))?;
        for (version, readers) in found {
            snapshots.push(message(handle.number, &version, readers)?);
        }
    }
    Ok(v1::ListSnapshotsReply { node_id: node.node_id(), snapshots })
}

fn message(shard: u32, version: &SnapshotVersion, readers: usize) -> Result<v1::Snapshot, Failure> {
    let members = version.membership.as_ref().map(|(_, bytes)| Members::decode(bytes));
    let members = members.transpose().map_err(|error| {
        let message = format!("the membership of shard {shard} cannot be read: {error}");
        Failure::new(ErrorCode::Corrupt, message)
    })?;
    let Members { voters, learners } = members.unwrap_or_default();
    Ok(v1::Snapshot {
        shard,
        generation: version.generation,
        term: version.applied.term,
        index: version.applied.index,
        voters,
        learners,
        bytes: version.bytes,
        sha256: Sha256::digest(&version.manifest).to_vec().into(),
        readers: u32::try_from(readers).unwrap_or(u32::MAX),
    })
}
