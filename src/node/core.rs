//! What services know of the node: its shards, where a write goes, what it is doing.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use prkdb_types::ErrorCode;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    config::Config,
    growth::Growth,
    limits::{Limits, names},
    metrics::Metrics,
    outcome::{Failure, Reply, Written},
    proposer::{
        no_leader,
        queue::{Flow, PushError, QUEUE_WRITES_MAX, QueueSender},
    },
    raft::Group,
    router::{Route, Routes},
};
use crate::driver::{Checkpointer, NoCheckpoint};
use crate::storage::{
    Shard, clock::Clock, dir::DataDir, kv::catalog::Catalog, sequencer::WriteRequest,
};

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It reads its logs and waits for leaders.
    Replaying,
    /// It serves.
    Serving,
    /// It finishes what is under way.
    Stopping,
}

/// A write on its way to a proposer.
pub struct Submission {
    /// The write.
    pub request: WriteRequest,
    /// What it comes from.
    pub from: Flow,
    /// How much it counts when flows take turns.
    pub bytes: u64,
    /// When nobody waits for it any more.
    pub deadline: Option<Instant>,
    /// Where the answer goes.
    pub reply: Reply,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("request", &self.request).finish_non_exhaustive()
    }
}

/// A shard of this node.
#[derive(Debug)]
pub struct ShardHandle {
    /// Its number.
    pub number: u32,
    /// Its log and applied state.
    pub shard: Arc<Shard>,
    pub(super) group: Arc<Group>,
    pub(super) queue: QueueSender,
    /// The term its sequencer is open in; 0 = closed.
    pub(super) open_term: watch::Receiver<u64>,
    pub(super) checkpointer: Checkpointer,
    /// How far the wall clock is ahead of the log's time, where it is not followed.
    pub(super) clock_skew_ms: Arc<AtomicI64>,
}

impl ShardHandle {
    /// Returns once there is a checkpoint of everything that is applied.
    ///
    /// # Errors
    /// That it could not be written, for want of room too.
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        let failed = |reason: &dyn fmt::Display| {
            let message = format!("no checkpoint of shard {}: {reason}", self.number);
            Failure::new(ErrorCode::Internal, message)
        };
        match self.checkpointer.ask().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why @ NoCheckpoint::NoRoom)) => {
                Err(failed(&why).with_hint("free space on the disk of the data directory"))
            }
            Ok(Err(why)) => Err(failed(&why)),
            Err(_) => Err(failed(&"the node is stopping")),
        }
    }

    /// Returns whether this replica takes writes.
    pub fn is_leading(&self) -> bool {
        *self.open_term.borrow() != 0
    }

    /// Returns the term it takes writes in; 0 if it does not.
    pub fn term(&self) -> u64 {
        *self.open_term.borrow()
    }

    /// Returns a watch of the term it takes writes in.
    pub(super) fn leading(&self) -> watch::Receiver<u64> {
        self.open_term.clone()
    }

    /// Returns how many milliseconds the wall clock was ahead of the log's time at the last write: more
    /// than it may be, it is being followed slowly. 0 = it is followed.
    pub fn clock_skew_ms(&self) -> i64 {
        self.clock_skew_ms.load(Ordering::Relaxed)
    }

    /// Returns how many committed entries are not applied.
    pub fn lag(&self) -> u64 {
        self.group.lag()
    }

    /// Returns those who wait for its partitions to grow.
    pub fn growth(&self) -> &Arc<Growth> {
        self.group.growth()
    }

    /// Waits until a read sees every write acknowledged before the call.
    ///
    /// A shard with one voter acknowledges what it has applied, so its applied state is that.
    ///
    /// # Errors
    /// [`ErrorCode::NoLeader`].
    #[expect(clippy::unused_async, reason = "with more voters the leader is asked")]
    pub async fn read_barrier(&self) -> Result<(), Failure> {
        if self.is_leading() { Ok(()) } else { Err(no_leader()) }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) cluster_id: [u8; 16],
    pub(super) advertised: String,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Duration,
    pub(super) node_id: u64,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) shards: OnceLock<Vec<Arc<ShardHandle>>>,
    pub(super) routes: ArcSwap<Routes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    pub(super) admin: tokio::sync::Mutex<()>,
}

impl Node {
    /// Returns a node over a directory whose shards are not opened yet. `started` is a time of its clock.
    pub(super) fn new(
        config: Config,
        directory: &DataDir,
        advertised: String,
        clock: Arc<dyn Clock>,
        started: Duration,
    ) -> Self {
        let identity = directory.identity();
        Self {
            limits: Limits::new(&config),
            config,
            cluster_id: identity.cluster_id.0,
            advertised,
            clock,
            started,
            node_id: identity.node_id,
            phase: watch::Sender::new(Phase::Replaying),
            shards: OnceLock::new(),
            routes: ArcSwap::from_pointee(Routes::default()),
            metrics: Arc::new(Metrics::new()),
            admin: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the cluster's id.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.cluster_id
    }

    /// Returns host and port of the gRPC service, as clients are told.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Returns the clock.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Returns how long the node has been running.
    pub fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Returns the node's id.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Returns what the node is doing.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns a watch of what the node is doing.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Returns the shards, the metadata shard first; none while they are opened.
    pub fn shards(&self) -> &[Arc<ShardHandle>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Returns a shard.
    ///
    /// # Errors
    /// [`ErrorCode::Replaying`] while they are opened, [`ErrorCode::NoLeader`] for one that is not
    /// here.
    pub fn shard(&self, number: u32) -> Result<&Arc<ShardHandle>, Failure> {
        if self.shards.get().is_none() {
            return Err(Failure::new(ErrorCode::Replaying, "the node is reading its log"));
        }
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        self.shards().get(at).ok_or_else(|| {
            Failure::new(ErrorCode::NoLeader, format!("shard {number} is not on this node"))
        })
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the lock under which the catalogue is changed.
    pub fn admin_lock(&self) -> &tokio::sync::Mutex<()> {
        &self.admin
    }

    /// Returns the catalogue of the cluster.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shards().first().map(|metadata| metadata.shard.catalog()).unwrap_or_default()
    }

    /// Returns the route of a collection.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for what is no name, [`ErrorCode::CollectionNotFound`], and
    /// [`ErrorCode::Replaying`] while the shards are opened.
    pub fn route(&self, collection: &str) -> Result<Arc<Route>, Failure> {
        let metadata = self.shard(0)?;
        let catalog = metadata.shard.catalog();
        let routes = self.routes.load();
        if routes.is_of(&catalog) {
            return routes.get(collection);
        }
        let fresh = Arc::new(Routes::new(catalog));
        self.routes.store(Arc::clone(&fresh));
        fresh.get(collection)
    }

    /// Hands a write to a shard. Never blocks; the reply is called once, or dropped if nobody knows.
    pub fn submit(&self, shard: u32, write: Submission) {
        let refuse = match (self.phase(), self.shard(shard)) {
            (Phase::Stopping, _) => Failure::new(ErrorCode::Stopping, "the node is stopping"),
            (_, Err(failure)) => failure,
            (_, Ok(handle)) => match handle.queue.push(write) {
                Ok(()) => return,
                Err(PushError::Full(write)) => {
                    self.metrics.limit(names::SHARD_QUEUE);
                    let message = format!(
                        "shard {shard} has {QUEUE_WRITES_MAX} writes waiting ({})",
                        names::SHARD_QUEUE
                    );
                    (write.reply)(Err(Failure::new(ErrorCode::Overloaded, message)));
                    return;
                }
                Err(PushError::Closed(write)) => {
                    (write.reply)(Err(no_leader()));
                    return;
                }
            },
        };
        (write.reply)(Err(refuse));
    }

    /// Writes for the node itself and waits for the answer.
    ///
    /// # Errors
    /// The [`Failure`] the write was answered with; unknown if the deadline passed.
    ///
    /// Cancel safety: dropped, the write may still be applied.
    pub async fn write(
        &self,
        shard: u32,
        request: WriteRequest,
        deadline: Option<Instant>,
    ) -> Result<Written, Failure> {
        let (answer, answered) = oneshot::channel();
        let reply: Reply = Box::new(move |result| drop(answer.send(result)));
        self.submit(shard, Submission { request, from: Flow::Node, bytes: 0, deadline, reply });
        let unknown = || Failure::unknown("the node stopped before the write was applied");
        let answered = async { answered.await.unwrap_or_else(|_| Err(unknown())) };
        match deadline {
            None => answered.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline, answered).await.unwrap_or_else(|_| {
                    Err(Failure::unknown("the deadline passed; the write may still be applied"))
                })
            }
        }
    }
}
