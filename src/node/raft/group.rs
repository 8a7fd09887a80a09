//! One shard's consensus, as the rest of the node sees it.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use openraft::{
    BasicNode, Config, Raft, ServerState, SnapshotPolicy,
    errors::{ClientWriteError, InitializeError, RaftError},
    raft::ClientWriteResult,
    type_config::alias::CommittedLeaderIdOf,
};
use tokio::sync::watch;

use super::{
    log_store::LogStore,
    network::NoPeers,
    state_machine::StateMachine,
    types::{Once, Proposal, TypeConfig},
};
use crate::{
    driver::{Checkpointer, Flusher},
    node::{NodeError, growth::Growth},
    storage::{
        Shard,
        kv::state::Applied,
        log::entry::{LogId, Write},
    },
};

/// The mark is moved within this time, or later.
const PURGE_LIMIT: Duration = Duration::from_secs(10);

/// Settings of a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupOptions {
    /// The shard.
    pub(crate) shard: u32,
    /// This replica's id in it, used once for ever.
    pub(crate) replica: u64,
    /// Where the node answers its peers.
    pub(crate) address: String,
    /// Interval of heartbeats.
    pub(crate) heartbeat: Duration,
    /// Shortest and longest time without a leader before an election.
    pub(crate) election_timeout: (Duration, Duration),
}

/// How a proposal ended.
#[derive(Clone, Debug)]
pub(crate) enum ProposalEnd {
    /// Its entry was applied; it may be void.
    Applied(Applied),
    /// It was refused before its entry was appended.
    Refused,
    /// Its entry was discarded, or consensus stopped: nobody knows.
    Unknown(String),
}

/// Who leads, as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// This replica, in this term, and its first entry of the term is applied.
    Leading(u64),
    /// This replica, in this term; its first entry is not applied yet.
    Starting(u64),
    /// Another replica, or nobody.
    Following,
    /// Consensus has stopped.
    Stopped,
}

/// One shard's consensus.
pub(crate) struct Group {
    raft: Raft<TypeConfig, StateMachine>,
    shard: Arc<Shard>,
    options: GroupOptions,
    applied: watch::Receiver<Option<LogId>>,
    growth: Arc<Growth>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("options", &self.options).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl GroupOptions {
    fn config(&self) -> Config {
        let (shortest, longest) = self.election_timeout;
        Config {
            cluster_name: format!("shard-{}", self.shard),
            heartbeat_interval: millis(self.heartbeat),
            heartbeat_min_interval: Some(millis(self.heartbeat)),
            election_timeout_min: millis(shortest),
            election_timeout_max: millis(longest),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(2 * millis(longest)),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_leader_restore: Some(false),
            max_payload_entries: 1024,
            max_append_entries: Some(4096),
            api_batch_linger_ms: 0,
            purge_batch_size: 1024,
            install_snapshot_timeout: 60_000,
            ..Config::default()
        }
    }
}

impl Group {
    /// Starts consensus on the current runtime.
    ///
    /// # Errors
    /// [`NodeError::Consensus`].
    pub(crate) async fn start(
        options: GroupOptions,
        shard: Arc<Shard>,
        (flusher, checkpointer): (Flusher, Checkpointer),
    ) -> Result<Self, NodeError> {
        let failed = |reason: String| NodeError::Consensus { shard: options.shard, reason };
        let config = options.config().validate().map_err(|error| failed(error.to_string()))?;
        let log = LogStore::new(Arc::clone(&shard), flusher.clone());
        let growth = Arc::new(Growth::default());
        let (state_machine, applied) =
            StateMachine::new(Arc::clone(&shard), (flusher, checkpointer), Arc::clone(&growth));
        let raft = Raft::new(options.replica, Arc::new(config), NoPeers, log, state_machine)
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { raft, shard, options, applied, growth })
    }

    /// Returns those who wait for partitions to grow.
    pub(crate) fn growth(&self) -> &Arc<Growth> {
        &self.growth
    }

    /// Makes this replica the only voter of a new shard; does nothing in one that has begun.
    ///
    /// # Errors
    /// [`NodeError::Consensus`].
    pub(crate) async fn initialize(&self) -> Result<(), NodeError> {
        let node = BasicNode { addr: self.options.address.clone() };
        match self.raft.initialize(BTreeMap::from([(self.options.replica, node)])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(self.failed(error.to_string())),
        }
    }

    fn failed(&self, reason: String) -> NodeError {
        NodeError::Consensus { shard: self.options.shard, reason }
    }

    /// Returns who leads now.
    pub(crate) fn leadership(&self) -> Leadership {
        let metrics = self.raft.metrics();
        // The guard is not held across an await: it would block the core.
        let metrics = openraft_rt::WatchReceiver::borrow_watched(&metrics);
        if metrics.running_state.is_err() {
            return Leadership::Stopped;
        }
        if metrics.state != ServerState::Leader {
            return Leadership::Following;
        }
        let term = metrics.current_term;
        if self.applied.borrow().is_some_and(|applied| applied.term == term) {
            Leadership::Leading(term)
        } else {
            Leadership::Starting(term)
        }
    }

    /// Waits until [`Group::leadership`] may have changed.
    ///
    /// Cancel safety: nothing is lost; ask for the leadership again.
    pub(crate) async fn leadership_changed(&self, watcher: &mut LeadershipWatch) {
        watcher.changed().await;
    }

    /// Returns a watch of the leadership.
    pub(crate) fn watch(&self) -> LeadershipWatch {
        LeadershipWatch { servers: self.raft.server_metrics(), applied: self.applied.clone() }
    }

    /// Proposes an entry decided in `term`. Returns when it is queued; `end` is called once, from the
    /// task that applies or refuses it, and must be short. Dropped uncalled: nobody knows.
    pub(crate) async fn propose(
        &self,
        term: u64,
        write: Arc<Write>,
        end: Box<dyn FnOnce(ProposalEnd) + Send>,
    ) {
        let respond = Once(Box::new(move |result: ClientWriteResult<TypeConfig>| {
            end(match result {
                Ok(response) => match response.data.0 {
                    Some(applied) => ProposalEnd::Applied(applied),
                    None => ProposalEnd::Unknown("the entry has no frames".to_owned()),
                },
                Err(ClientWriteError::ForwardToLeader(_)) => ProposalEnd::Refused,
                Err(discarded) => ProposalEnd::Unknown(discarded.to_string()),
            });
        }));
        let leader = CommittedLeaderIdOf::<TypeConfig>::new(term);
        let queued = self.raft.write(Proposal(write)).with_leader(leader).responder(respond).await;
        if let Err(error) = queued {
            // The responder was dropped with the message: its waiters know that nobody knows.
            tracing::debug!(shard = self.options.shard, %error, "proposal was not queued");
        }
    }

    /// Moves the purge mark to an entry that a checkpoint covers.
    ///
    /// # Errors
    /// [`NodeError::Consensus`]; and where the checkpoint does not reach so far.
    ///
    /// # Panics
    /// If the mark would come to lie above the last checkpoint: a defect.
    pub(crate) async fn purge(&self, up_to: LogId) -> Result<(), NodeError> {
        let covered = self.shard.last_checkpoint().map(|(covered, _)| covered.index);
        assert!(Some(up_to.index) <= covered, "the purge mark stays below the last checkpoint");
        let raft = &self.raft;
        let reaches = |id: Option<u64>| id.is_some_and(|index| index >= up_to.index);
        let failed = |error: String| self.failed(error);
        raft.trigger().snapshot().await.map_err(|error| failed(error.to_string()))?;
        let wait = raft.wait(Some(PURGE_LIMIT));
        let built = wait.metrics(
            |metrics| reaches(metrics.snapshot.as_ref().map(|id| id.index)),
            "the last checkpoint is known",
        );
        built.await.map_err(|error| failed(error.to_string()))?;
        raft.trigger().purge_log(up_to.index).await.map_err(|error| failed(error.to_string()))?;
        let purged = wait.metrics(
            |metrics| reaches(metrics.purged.as_ref().map(|id| id.index)),
            "the log is purged",
        );
        purged.await.map(drop).map_err(|error| failed(error.to_string()))
    }

    /// Returns how many entries are committed and not applied.
    pub(crate) fn lag(&self) -> u64 {
        let committed = self.shard.committed().map_or(0, |id| id.index);
        let applied = self.shard.revision();
        committed.saturating_sub(applied)
    }

    /// Stops consensus; what was proposed and not answered stays unanswered.
    ///
    /// # Errors
    /// [`NodeError::Consensus`] if a task of it panicked.
    pub(crate) async fn shutdown(&self) -> Result<(), NodeError> {
        self.raft.shutdown().await.map_err(|error| self.failed(error.to_string()))
    }

    /// Returns why consensus stopped by itself, if it did.
    pub(crate) fn stopped(&self) -> Option<NodeError> {
        let metrics = self.raft.metrics();
        let metrics = openraft_rt::WatchReceiver::borrow_watched(&metrics);
        metrics.running_state.as_ref().err().map(|fatal| self.failed(fatal.to_string()))
    }
}

type ServerWatch = openraft::type_config::alias::WatchReceiverOf<
    TypeConfig,
    openraft::metrics::RaftServerMetrics<TypeConfig>,
>;

/// Waits for changes of leadership.
pub(crate) struct LeadershipWatch {
    servers: ServerWatch,
    applied: watch::Receiver<Option<LogId>>,
}

impl LeadershipWatch {
    /// Waits for a change of what this replica knows about leaders.
    pub(crate) async fn server_changed(&mut self) -> io::Result<()> {
        openraft_rt::WatchReceiver::changed(&mut self.servers)
            .await
            .map_err(|_| io::Error::other("consensus has stopped"))
    }

    async fn changed(&mut self) {
        tokio::select! {
            _ = openraft_rt::WatchReceiver::changed(&mut self.servers) => {}
            _ = self.applied.changed() => {}
        }
    }
}
