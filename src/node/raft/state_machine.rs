//! openraft's view of a shard's applied state.
//!
//! What is ready is applied as one group, readers see it at once, and only then is anybody answered.

use std::{io, sync::Arc};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, StoredMembership,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
    type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
};
use tokio::sync::watch;

use super::{
    snapshot::{self, Checkpoints, Installer, SnapshotData},
    types::{
        Response, TypeConfig, from_log_id, membership_from_bytes, membership_to_bytes, to_log_id,
    },
};
use crate::{
    driver::{Checkpointer, Flusher},
    node::growth::Growth,
    storage::{Shard, StorageError, kv::catalog::CONTROL_PARTITION, log::entry::LogId},
};

/// Most entries of one group.
const GROUP_ENTRIES_MAX: usize = 256;
/// A group ends with the entry that brings it to so many bytes: one of records of 500 bytes is applied
/// in about a millisecond.
const GROUP_BYTES_MAX: u64 = 1 << 20;

/// The applied state of one shard.
#[derive(Debug)]
pub(super) struct StateMachine {
    shard: Arc<Shard>,
    installer: Installer,
    applied: watch::Sender<Option<LogId>>,
    growth: Arc<Growth>,
}

/// An entry of a group that waits for its answer.
type Waiting = (EntryOf<TypeConfig>, Option<ApplyResponder<TypeConfig>>);

fn bytes_of((entry, _): &Waiting) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.body_bytes(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl StateMachine {
    /// Returns a view of the shard, and where its progress can be watched.
    pub(super) fn new(
        shard: Arc<Shard>,
        (flusher, checkpointer): (Flusher, Checkpointer),
        growth: Arc<Growth>,
    ) -> (Self, watch::Receiver<Option<LogId>>) {
        let (applied, progress) = watch::channel(shard.applied().0);
        let installer = Installer { shard: Arc::clone(&shard), flusher, checkpointer };
        (Self { shard, installer, applied, growth }, progress)
    }

    fn builder(&self) -> Checkpoints {
        let checkpointer = self.installer.checkpointer.clone();
        Checkpoints { shard: Arc::clone(&self.shard), checkpointer, is_forced: false }
    }

    fn apply_group(&self, group: Vec<Waiting>) -> Result<(), StorageError> {
        let last = group.last().map(|(entry, _)| from_log_id(&entry.log_id));
        let mut normal: Vec<Waiting> = Vec::with_capacity(group.len());
        for (entry, responder) in group {
            let id = from_log_id(&entry.log_id);
            match &entry.payload {
                EntryPayload::Normal(_) => {
                    normal.push((entry, responder));
                    continue;
                }
                EntryPayload::Blank => {
                    self.apply_normal(&mut normal)?;
                    self.shard.apply_blank(id);
                }
                EntryPayload::Membership(membership) => {
                    self.apply_normal(&mut normal)?;
                    self.shard.apply_membership(id, membership_to_bytes(membership));
                }
            }
            if let Some(responder) = responder {
                responder.send(Response(None));
            }
        }
        self.apply_normal(&mut normal)?;
        self.applied.send_replace(last);
        Ok(())
    }

    fn apply_normal(&self, waiting: &mut Vec<Waiting>) -> Result<(), StorageError> {
        if waiting.is_empty() {
            return Ok(());
        }
        let ids: Vec<LogId> = waiting.iter().map(|(entry, _)| from_log_id(&entry.log_id)).collect();
        let applied = self.shard.apply_all(&ids)?;
        let grown = applied.iter().flat_map(|entry| &entry.frames).map(|frame| frame.partition);
        self.growth.grew(grown.clone());
        if grown.clone().any(|partition| partition == CONTROL_PARTITION) {
            // A partition may have gone.
            self.growth.changed();
        }
        for ((_, responder), applied) in waiting.drain(..).zip(applied) {
            if let Some(responder) = responder {
                responder.send(Response(Some(applied)));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Checkpoints;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        let (applied, membership) = self.shard.applied();
        let stored = match membership {
            Some((id, bytes)) => {
                StoredMembership::new(Some(to_log_id(id)), membership_from_bytes(&bytes)?)
            }
            None => StoredMembership::default(),
        };
        Ok((applied.map(to_log_id), stored))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut bytes = bytes_of(&first);
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX
                && group.len() < GROUP_ENTRIES_MAX
                && let Some(next) = entries.next().now_or_never().flatten()
            {
                let next = next?;
                bytes += bytes_of(&next);
                group.push(next);
            }
            self.apply_group(group).map_err(io::Error::other)?;
            if bytes >= GROUP_BYTES_MAX {
                // Decisions and appends of the shard have the same thread.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, is_forced: bool) -> Option<Checkpoints> {
        Some(Checkpoints { is_forced, ..self.builder() })
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoints {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.installer.install(meta, snapshot).await?;
        self.applied.send_replace(self.shard.applied().0);
        self.growth.changed();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        snapshot::last(&self.shard, &self.installer.checkpointer).await
    }
}
