//! openraft's view of a shard's applied state.
//!
//! What is ready is applied as one group, readers see it at once, and only then is anybody answered.

use std::{io, sync::Arc};

use futures_util::{Stream, StreamExt as _};
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
        let mut groups = entries.ready_chunks(GROUP_ENTRIES_MAX);
        while let Some(group) = groups.next().await {
            let group = group.into_iter().collect::<Result<Vec<Waiting>, io::Error>>()?;
            self.apply_group(group).map_err(io::Error::other)?;
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
