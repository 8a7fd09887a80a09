//! Opening a node's directory and shards, and starting what drives them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicI64},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, NodeError,
    core::{Node, ShardHandle},
    fatal::{Fatal, ShardObserver},
    janitor::{self, ThroughRaft},
    proposer::{Proposer, queue},
    raft::{Group, GroupOptions},
};
use crate::driver::{Ballast, Cleaner, CleanerParts, Driver, DriverParts, FlushMode, Observer};
use crate::storage::{
    JudgedShard, Shard, ShardOptions, StorageError, TOMBSTONE_GRACE_MS,
    clock::{Clock, OsRng},
    dir::{DataDir, DirError, Kind, Wanted},
    disk::{Disk, Privacy, RealDisk},
    kv::window::PRODUCER_BYTES_MAX,
    log::options::{SEGMENT_BYTES_MAX_METADATA, TAIL_CACHE_BYTES},
    sequencer::{LogClock, SequencerLimits},
};

/// Most bytes of entries under way in a shard: what every write waits behind, whoever it is from. Enough
/// for a group to gather while another is synced.
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Most entries under way in a shard.
const IN_FLIGHT_ENTRIES_MAX: usize = 1024;
/// A shard of one node has one replica.
const REPLICA: u64 = 1;

/// How often the lock of a process that is ending is tried again, and the pause between.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What the directory of a node must be.
pub(super) fn wanted(config: &Config) -> Wanted {
    Wanted { kind: Kind::Node, node_id: config.node_id, cluster_id: None }
}

/// Opens and locks the data directory. Waits for a process that was killed to let it go.
pub(super) async fn open_directory(
    config: &Config,
    clock: &dyn Clock,
) -> Result<DataDir, NodeError> {
    for _ in 0..LOCK_TRIES {
        match try_open_directory(config, clock) {
            Err(NodeError::Directory(DirError::Locked { holder, .. })) if holder.is_ending() => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return opened,
        }
    }
    try_open_directory(config, clock)
}

/// Opens and locks the data directory, or says who has it.
pub(super) fn try_open_directory(config: &Config, clock: &dyn Clock) -> Result<DataDir, NodeError> {
    let path = &config.data_dir;
    if config.creates_parent {
        create_parent(path)?;
    }
    let directory = DataDir::open(&RealDisk, path, &wanted(config), clock, &mut random(path)?)?;
    if directory.privacy() == Privacy::Tightened {
        warn!(dir = %config.data_dir.display(), "directory was open to others: made private");
    }
    Ok(directory)
}

/// Creates the directory that a data directory stands in, if it is missing.
fn create_parent(path: &Path) -> Result<(), NodeError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    let failed = |action| move |source| NodeError::Io { action, path: parent.into(), source };
    match RealDisk.create_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => {
            created.map_err(failed("create"))?;
            let above = parent.parent().filter(|above| !above.as_os_str().is_empty());
            RealDisk.sync_dir(above.unwrap_or(Path::new("."))).map_err(failed("sync the name of"))
        }
    }
}

pub(super) fn random(path: &Path) -> Result<OsRng, NodeError> {
    OsRng::new().map_err(|source| NodeError::Io {
        action: "draw random numbers for",
        path: path.to_path_buf(),
        source,
    })
}

/// Returns the directory of a shard.
pub(super) fn shard_dir(data_dir: &Path, shard: u32) -> PathBuf {
    data_dir.join(format!("shard-{shard:010}"))
}

/// Opens the metadata shard and the data shards, and creates those a first start asks for.
///
/// All logs are read before the first is changed: damage in one leaves the whole directory as it is.
pub(super) fn open_shards(
    node: &Node,
    directory: &DataDir,
) -> Result<Vec<(u32, Arc<Shard>)>, NodeError> {
    let data_dir = directory.path();
    let mut judged = Vec::new();
    for number in existing_shards(data_dir)? {
        judged.push((number, judge_shard(node, data_dir, number)?));
    }
    if let Err(error) = directory.make_room(&RealDisk) {
        warn!(%error, "the reserve stays, whatever room there is");
    }
    if judged.is_empty() {
        judged.push((0, create_shard(node, data_dir, 0)?));
    }
    let mut shards = Vec::new();
    for (number, (judged, started)) in judged {
        shards.push((number, settle_shard(node, number, judged, started)?));
    }
    let Some((_, metadata)) = shards.first() else { return Ok(shards) };
    let catalog = metadata.catalog();
    if catalog.collections.is_empty() {
        let next = u32::try_from(shards.len()).unwrap_or(u32::MAX);
        for number in next..=node.config().shards {
            let (judged, started) = create_shard(node, data_dir, number)?;
            shards.push((number, settle_shard(node, number, judged, started)?));
        }
    }
    let hosts = |number| shards.iter().any(|(known, _)| *known == number);
    let places = catalog.collections.values().flat_map(|row| &row.partitions);
    if let Some(lost) = places.map(|place| place.shard).find(|shard| !hosts(*shard)) {
        return Err(missing(data_dir, lost));
    }
    if let Err(error) = directory.begin_ballast(&RealDisk) {
        warn!(%error, "no room for the reserve that a full disk is met with");
    }
    Ok(shards)
}

/// Returns the numbers of the shards in a directory, which rise by one from 0.
pub(super) fn existing_shards(data_dir: &Path) -> Result<Vec<u32>, NodeError> {
    let names = RealDisk.list(data_dir).map_err(|source| NodeError::Io {
        action: "list",
        path: data_dir.to_path_buf(),
        source,
    })?;
    let number = |name: &std::ffi::OsString| {
        let digits = name.to_str()?.strip_prefix("shard-")?;
        (digits.len() == 10).then(|| digits.parse().ok()).flatten()
    };
    let numbers: Vec<u32> = names.iter().filter_map(number).collect();
    match (0..).zip(&numbers).find(|(expected, found)| expected != *found) {
        Some((lost, _)) => Err(missing(data_dir, lost)),
        None => Ok(numbers),
    }
}

/// The error for a shard whose directory has gone.
fn missing(data_dir: &Path, shard: u32) -> NodeError {
    let source = StorageError::Corrupt {
        path: shard_dir(data_dir, shard),
        position: 0,
        expected: "the directory of the shard".to_owned(),
        found: "none".to_owned(),
    };
    NodeError::Shard { shard, source }
}

/// Returns how a shard's log is kept.
pub(super) fn shard_options(config: &Config, cluster_id: [u8; 16], number: u32) -> ShardOptions {
    let largest = if number == 0 {
        config.segment_bytes.min(SEGMENT_BYTES_MAX_METADATA)
    } else {
        config.segment_bytes
    };
    ShardOptions {
        shard: number,
        cluster_id,
        segment_bytes_first: config.segment_bytes_first().min(largest),
        segment_bytes_max: largest,
        tail_cache_bytes: TAIL_CACHE_BYTES,
        producer_bytes_max: PRODUCER_BYTES_MAX,
        checkpoint_bytes: config.checkpoint_bytes,
        tombstone_grace_ms: TOMBSTONE_GRACE_MS,
    }
}

/// Creates the directory of a shard and an empty log in it.
fn create_shard(
    node: &Node,
    data_dir: &Path,
    number: u32,
) -> Result<(JudgedShard, Duration), NodeError> {
    let dir = shard_dir(data_dir, number);
    let failed = |action| {
        let path = dir.clone();
        move |source: io::Error| NodeError::Io { action, path, source }
    };
    RealDisk.create_dir(&dir).map_err(failed("create directory of shard"))?;
    RealDisk.sync_dir(data_dir).map_err(failed("sync directory of shard"))?;
    judge_shard(node, data_dir, number)
}

/// Reads the log of a shard; returns when that began, too.
fn judge_shard(
    node: &Node,
    data_dir: &Path,
    number: u32,
) -> Result<(JudgedShard, Duration), NodeError> {
    let dir = shard_dir(data_dir, number);
    let options = shard_options(node.config(), node.cluster_id(), number);
    let started = node.clock().monotonic();
    let (rng, now_ms) = (&mut random(&dir)?, node.clock().wall_ms());
    Shard::judge(Arc::new(RealDisk), &dir, &options, rng, now_ms)
        .map(|judged| (judged, started))
        .map_err(|source| NodeError::Shard { shard: number, source })
}

fn settle_shard(
    node: &Node,
    number: u32,
    judged: JudgedShard,
    started: Duration,
) -> Result<Arc<Shard>, NodeError> {
    if let Some(file) = judged.damaged_checkpoint() {
        warn!(
            shard = number,
            file = %file.display(),
            "no checkpoint that can be used: the whole log was read"
        );
    }
    let (shard, recovery) =
        judged.settle().map_err(|source| NodeError::Shard { shard: number, source })?;
    let took = node.clock().monotonic().saturating_sub(started);
    node.metrics().recovered(number, took, &recovery);
    info!(
        shard = number,
        entries = recovery.entries,
        bytes = recovery.read_bytes,
        checkpoint = recovery.checkpoint,
        checkpoint_bytes = recovery.checkpoint_bytes,
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "log recovered"
    );
    if recovery.cut_bytes > 0 || recovery.quarantined > 0 {
        warn!(
            shard = number,
            cut_bytes = recovery.cut_bytes,
            cut_entries = recovery.cut_entries,
            quarantined = recovery.quarantined,
            "cut a torn tail: it was never acknowledged"
        );
    }
    Ok(Arc::new(shard))
}

/// What runs behind the shards of a node.
pub(super) struct Booted {
    shards: Vec<Running>,
    janitors: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    consensus: Handle,
    // Held last: the lock of the directory.
    _directory: Arc<DataDir>,
}

struct Running {
    group: Arc<Group>,
    proposer: JoinHandle<()>,
    driver: Driver,
    cleaner: Cleaner,
}

/// Starts drivers, consensus and proposers, and waits until every shard takes writes.
pub(super) async fn start(
    node: &Arc<Node>,
    directory: &Arc<DataDir>,
    opened: Vec<(u32, Arc<Shard>)>,
    consensus: &Handle,
    fatal: &Fatal,
) -> Result<Booted, NodeError> {
    let stop = CancellationToken::new();
    let mut running = Vec::new();
    let mut handles = Vec::new();
    // The metadata shard has no keys: the others share the memory.
    let data_shards = opened.len().saturating_sub(1).max(1) as u64;
    let index_bytes_max = node.config().index_memory / data_shards;
    let start = Start { node, directory, consensus, fatal, stop: &stop, index_bytes_max };
    for (number, shard) in opened {
        let (one, handle) = start_shard(&start, number, shard).await?;
        running.push(one);
        handles.push(handle);
    }
    for handle in &handles {
        let mut open_term = handle.open_term.clone();
        // The sender lives as long as the proposer, which lives as long as the node.
        let _opened = open_term.wait_for(|term| *term != 0).await;
    }
    let janitors = handles.iter().flat_map(|handle| janitor::start(node, handle, &stop)).collect();
    // Set once: a node is started once.
    let _set = node.shards.set(handles);
    let consensus = consensus.clone();
    Ok(Booted { shards: running, janitors, stop, consensus, _directory: Arc::clone(directory) })
}

/// What every shard is started with.
struct Start<'a> {
    node: &'a Arc<Node>,
    directory: &'a Arc<DataDir>,
    consensus: &'a Handle,
    fatal: &'a Fatal,
    stop: &'a CancellationToken,
    /// Bytes of the key index of one shard.
    index_bytes_max: u64,
}

#[expect(clippy::too_many_lines, reason = "one thing after the other, each with its parts")]
async fn start_shard(
    start: &Start<'_>,
    number: u32,
    shard: Arc<Shard>,
) -> Result<(Running, Arc<ShardHandle>), NodeError> {
    let Start { node, directory, consensus, fatal, stop, index_bytes_max } = *start;
    let config = node.config();
    let observer: Arc<dyn Observer> = Arc::new(ShardObserver {
        shard: number,
        metrics: Arc::clone(&node.metrics),
        fatal: fatal.clone(),
    });
    let driver = Driver::start(DriverParts {
        number,
        shard: Arc::clone(&shard),
        clock: Arc::clone(&node.clock),
        observer: Arc::clone(&observer),
        reserve: Arc::new(Ballast::new(directory, Arc::new(RealDisk))),
        mode: FlushMode::Synced,
    })
    .map_err(|source| NodeError::Io {
        action: "start threads of shard",
        path: shard_dir(directory.path(), number),
        source,
    })?;
    let options = GroupOptions {
        shard: number,
        replica: REPLICA,
        address: node.advertised().to_owned(),
        heartbeat: config.heartbeat,
        election_timeout: config.election_timeout,
    };
    let started = {
        let (shard, driven) = (Arc::clone(&shard), (driver.flusher(), driver.checkpointer()));
        consensus.spawn(async move {
            let group = Group::start(options, shard, driven).await?;
            group.initialize().await?;
            Ok::<_, NodeError>(group)
        })
    };
    let group = started
        .await
        .map_err(|error| NodeError::Consensus { shard: number, reason: error.to_string() })??;
    let group = Arc::new(group);
    let (queue, writes) = queue::new();
    let (term, open_term) = watch::channel(0);
    let clock_skew_ms = Arc::new(AtomicI64::new(0));
    let proposer = Proposer {
        group: Arc::clone(&group),
        shard: Arc::clone(&shard),
        clock: Arc::clone(&node.clock),
        limits: SequencerLimits {
            entry_bytes_max: config.max_message as u64,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            in_flight_entries_max: IN_FLIGHT_ENTRIES_MAX,
            index_bytes_max,
        },
        queue: writes,
        stop: stop.clone(),
        open_term: term,
        fatal: fatal.clone(),
        number,
        log_clock: LogClock::default(),
        clock_skew_ms: Arc::clone(&clock_skew_ms),
    };
    let proposer = consensus.spawn(proposer.run());
    let checkpointer = driver.checkpointer();
    let cleaner = Cleaner::start(CleanerParts {
        number,
        shard: Arc::clone(&shard),
        checkpointer: checkpointer.clone(),
        clock: Arc::clone(&node.clock),
        purge: Box::new(ThroughRaft { group: Arc::clone(&group), consensus: consensus.clone() }),
        observer,
    })
    .map_err(|source| NodeError::Io {
        action: "start threads of shard",
        path: shard_dir(directory.path(), number),
        source,
    })?;
    let group_of = Arc::clone(&group);
    let handle = ShardHandle {
        number,
        shard,
        group: group_of,
        queue,
        open_term,
        checkpointer,
        clock_skew_ms,
    };
    Ok((Running { group, proposer, driver, cleaner }, Arc::new(handle)))
}

impl Booted {
    /// Lets the proposers finish, stops consensus, writes what waits, ends the threads.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for janitor in self.janitors {
            // A batch of its under way is answered by the proposer, which ends after it.
            let _ended = janitor.await;
        }
        let mut drivers = Vec::new();
        for Running { group, proposer, driver, cleaner } in self.shards {
            // Its work under way is given up; a purge that it waits for ends with consensus, or in time.
            let _stopped = off_runtime("stop", move || cleaner.stop()).await;
            // A panic of the task has ended the process already.
            let _ended = proposer.await;
            let shutdown = self.consensus.spawn(async move { group.shutdown().await });
            if let Ok(Err(error)) = shutdown.await {
                warn!(%error, "consensus did not stop in order");
            }
            drivers.push(driver);
        }
        // Joining threads blocks for as long as a group takes to be written: elsewhere, so that a
        // second signal is heard meanwhile.
        let stop = move || drivers.into_iter().for_each(Driver::stop);
        let _joined = off_runtime("stop", stop).await;
    }
}

/// Runs blocking work on a thread of its own.
pub(super) async fn off_runtime<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NodeError> {
    let (done, result) = oneshot::channel();
    let failed = |source| NodeError::Io { action: "run thread", path: name.into(), source };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(done.send(work())))
        .map_err(failed)?;
    result.await.map_err(|_| failed(io::Error::other("the thread ended without a result")))
}
