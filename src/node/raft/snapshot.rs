//! Snapshots, as openraft sees them: the shard's last checkpoint.
//!
//! A checkpoint is what the log below the purge mark is replaced by. There is one replica: none is ever
//! sent or installed. Where openraft insists on one, as at a start with a purge mark and a checkpoint that
//! was damaged, it is taken.

use std::{io, sync::Arc};

use openraft::{
    RaftSnapshotBuilder, Snapshot, StoredMembership,
    type_config::alias::{SnapshotMetaOf, SnapshotOf},
};

use super::types::{TypeConfig, membership_from_bytes, to_log_id};
use crate::{driver::Checkpointer, storage::Shard};

/// Builds the snapshot that the shard's last checkpoint is, or takes one.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) shard: Arc<Shard>,
    pub(super) checkpointer: Checkpointer,
    /// It must have everything that is applied.
    pub(super) is_forced: bool,
}

/// Returns the error of everything that needs another replica.
pub(super) fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this version installs no snapshots")
}

/// Returns the last checkpoint; `None` where there is none.
///
/// # Errors
/// For a membership that cannot be read.
pub(super) fn last(shard: &Shard) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
    let Some((applied, membership)) = shard.last_snapshot() else { return Ok(None) };
    let last_membership = match membership {
        Some((id, bytes)) => {
            StoredMembership::new(Some(to_log_id(id)), membership_from_bytes(&bytes)?)
        }
        None => StoredMembership::default(),
    };
    let last_log_id = Some(to_log_id(applied));
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
    Ok(Some(Snapshot { meta, snapshot: () }))
}

impl RaftSnapshotBuilder<TypeConfig> for Checkpoints {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        if self.is_forced {
            let applied = self.shard.applied().0;
            let asked = self.checkpointer.ask().await;
            asked.map_err(io::Error::other)?.map_err(io::Error::other)?;
            let last = self.shard.last_checkpoint().map(|(last, _)| last.index);
            if last < applied.map(|applied| applied.index) {
                return Err(io::Error::other("the disk has no room for a checkpoint"));
            }
        }
        last(&self.shard)?.ok_or_else(|| io::Error::other("the shard has no checkpoint yet"))
    }
}
