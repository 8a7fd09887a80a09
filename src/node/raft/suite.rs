//! openraft's own tests of log stores and state machines, one by one and by name.
//!
//! Three runs: plain; reopened, where the log is closed and opened after each call of the log store;
//! and on a simulated disk. The tests that need snapshots, `snapshot_meta` and `transfer_snapshot`, apply what was
//! appended before: a checkpoint is of entries in the log. The suite tests no durability; that is tested below
//! it.

mod installed;
mod snapshots;

use std::{fmt::Debug, io, ops::RangeBounds, path::PathBuf, sync::Arc};

use futures_util::Stream;
use openraft::{
    LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    StorageError as RaftError,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::{
        TypeConfigExt as _,
        alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    },
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{log_store::LogStore, state_machine::StateMachine, types::TypeConfig};
use crate::{
    driver::{Driver, DriverParts, FlushMode, Reserve},
    node::{
        fatal::{Fatal, ShardObserver},
        metrics::Metrics,
    },
    storage::{
        Shard, ShardOptions,
        clock::{SeededRng, SystemClock},
        disk::{
            Disk, RealDisk,
            sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
        },
        log::entry::{LogId, Vote},
    },
};

/// There is always room.
#[derive(Debug)]
struct NoReserve;

impl Reserve for NoReserve {
    fn release(&self) -> io::Result<()> {
        Ok(())
    }

    fn restore(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a log lies.
#[derive(Clone, Debug)]
struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    _guard: Option<Arc<TempDir>>,
}

impl Place {
    fn real() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let dir = guard.path().to_owned();
        Self { disk: Arc::new(RealDisk), dir, _guard: Some(Arc::new(guard)) }
    }

    fn sim(disk: SimDisk) -> Self {
        Self { disk: Arc::new(disk), dir: PathBuf::from("/shard"), _guard: None }
    }

    fn new_sim() -> Self {
        let disk = SimDisk::new();
        let place = Self::sim(disk);
        place.disk.create_dir(&place.dir).unwrap();
        place.disk.sync_dir("/".as_ref()).unwrap();
        place
    }

    fn open(&self) -> Opened {
        let place = self.clone();
        let options = ShardOptions {
            shard: 1,
            cluster_id: [1; 16],
            segment_bytes_first: 64 << 10,
            segment_bytes_max: 256 << 10,
            tail_cache_bytes: 1 << 20,
            producer_bytes_max: 1 << 20,
            checkpoint_bytes: crate::storage::CHECKPOINT_BYTES,
            tombstone_grace_ms: crate::storage::TOMBSTONE_GRACE_MS,
        };
        let mut rng = SeededRng::new(1);
        let (shard, _) =
            Shard::open(Arc::clone(&self.disk), &self.dir, &options, &mut rng, 0).unwrap();
        let shard = Arc::new(shard);
        let fatal = Fatal::default();
        let driver = Driver::start(DriverParts {
            number: 1,
            shard: Arc::clone(&shard),
            clock: Arc::new(SystemClock::new()),
            observer: Arc::new(ShardObserver {
                shard: 1,
                metrics: Arc::new(Metrics::new()),
                fatal: fatal.clone(),
            }),
            reserve: Arc::new(NoReserve),
            mode: FlushMode::Synced,
        })
        .unwrap();
        let store = LogStore::new(Arc::clone(&shard), driver.flusher());
        Opened { shard, store, driver: Some(driver), fatal, _place: place }
    }
}

/// A log with its threads. Dropping it is a clean stop.
struct Opened {
    shard: Arc<Shard>,
    store: LogStore,
    driver: Option<Driver>,
    fatal: Fatal,
    // Dropped last, and the directory with it.
    _place: Place,
}

impl Opened {
    fn machine(&self) -> StateMachine {
        let driver = self.driver.as_ref().unwrap();
        let handles = (driver.flusher(), driver.checkpointer());
        StateMachine::new(Arc::clone(&self.shard), handles, Arc::default()).0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.stop();
        }
    }
}

/// A log store whose log is closed and opened after each of its calls. Its readers see what it sees.
#[derive(Clone)]
struct Reopened {
    held: Arc<Mutex<(Place, Option<Opened>)>>,
    /// A committed index was saved: it must be there from then on.
    has_committed: bool,
}

impl Reopened {
    fn new(place: Place) -> Self {
        let opened = place.open();
        Self { held: Arc::new(Mutex::new((place, Some(opened)))), has_committed: false }
    }

    async fn store(&self) -> LogStore {
        self.held.lock().await.1.as_ref().unwrap().store.clone()
    }

    async fn reopen(&self) {
        let mut held = self.held.lock().await;
        // Two openings of one directory at a time would be two writers.
        drop(held.1.take());
        let opened = held.0.open();
        held.1 = Some(opened);
    }
}

impl RaftLogReader<TypeConfig> for Reopened {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        self.store().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        self.store().await.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        self.store().await.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for Reopened {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.store().await.get_log_state().await;
        self.reopen().await;
        state
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        let saved = self.store().await.save_vote(vote).await;
        self.reopen().await;
        saved
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        self.has_committed |= committed.is_some();
        let saved = self.store().await.save_committed(committed).await;
        self.reopen().await;
        saved
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        let committed = self.store().await.read_committed().await?;
        // A test of the suite, `get_initial_state_re_apply_committed`, passes in silence without it.
        assert!(committed.is_some() || !self.has_committed, "a stop saves the committed index");
        Ok(committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let appended = self.store().await.append(entries, callback).await;
        self.reopen().await;
        appended
    }

    async fn truncate_after(&mut self, kept: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        let truncated = self.store().await.truncate_after(kept).await;
        self.reopen().await;
        truncated
    }

    async fn purge(&mut self, up_to: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let purged = self.store().await.purge(up_to).await;
        self.reopen().await;
        purged
    }
}

/// The state machine, and for a log with a purge mark what openraft insists on: a snapshot. It says
/// how far it goes and holds nothing; nobody installs it.
struct Machine(StateMachine);

struct Bare(SnapshotMetaOf<TypeConfig>);

impl RaftSnapshotBuilder<TypeConfig> for Bare {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Bare;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.0.apply(entries).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Bare> {
        self.0.try_create_snapshot_builder(force).await?;
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Bare {
        let (last_log_id, last_membership) = self.applied_state().await.unwrap();
        Bare(SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership })
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<TypeConfig>,
        (): (),
    ) -> Result<(), io::Error> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        let snapshot = self.0.get_current_snapshot().await?;
        Ok(snapshot.map(|snapshot| Snapshot { meta: snapshot.meta, snapshot: () }))
    }
}

/// Makes stores, each on a disk of its own.
struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, Opened> for Stores {
    async fn build(&self) -> Result<(Opened, LogStore, Machine), RaftError<TypeConfig>> {
        Ok(plain(&Place::new_sim()))
    }
}

impl StoreBuilder<TypeConfig, Reopened, Machine, Opened> for Stores {
    async fn build(&self) -> Result<(Opened, Reopened, Machine), RaftError<TypeConfig>> {
        Ok(reopened())
    }
}

macro_rules! run {
    ($run:ident, $store:ty, $open:expr, [$($test:ident)+]) => {
        mod $run {
            use super::*;

            $(
                #[tokio::test]
                async fn $test() {
                    let (_guard, store, machine) = $open;
                    Suite::<TypeConfig, $store, Machine, Stores, Opened>::$test(store, machine)
                        .await
                        .unwrap();
                }
            )+
        }
    };
}

fn plain(place: &Place) -> (Opened, LogStore, Machine) {
    let opened = place.open();
    let (store, machine) = (opened.store.clone(), Machine(opened.machine()));
    (opened, store, machine)
}

/// The state machine stays open, on a log of its own: what it applies is in no log.
fn reopened() -> (Opened, Reopened, Machine) {
    let other = Place::new_sim().open();
    let machine = Machine(other.machine());
    (other, Reopened::new(Place::real()), machine)
}

macro_rules! runs {
    ($tests:tt) => {
        run!(on_a_disk, LogStore, plain(&Place::real()), $tests);
        run!(reopened_after_each_call, Reopened, reopened(), $tests);
        run!(on_a_simulated_disk, LogStore, plain(&Place::new_sim()), $tests);
    };
}

runs!([
    last_membership_in_log_initial
    last_membership_in_log
    last_membership_in_log_multi_step
    get_membership_initial
    get_membership_from_log_and_empty_sm
    get_membership_from_empty_log_and_sm
    get_membership_from_log_le_sm_last_applied
    get_membership_from_log_gt_sm_last_applied_1
    get_membership_from_log_gt_sm_last_applied_2
    get_initial_state_without_init
    get_initial_state_membership_from_empty_log_and_sm
    get_initial_state_membership_from_sm_inlog_is_smaller
    get_initial_state_membership_from_log_insm_is_smaller
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_last_log_lt_sm
    get_initial_state_inverted_log_order
    get_initial_state_conflict_at_same_index
    get_initial_state_log_ids
    get_initial_state_re_apply_committed
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    last_applied_state
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta_optional
    apply_single
    apply_multiple
]);

/// How a store saves a vote: as it does, or with a defect.
type SaveVote = fn(&Opened, Vote);

/// Returns the vote that is left when the power fails right after one was saved.
async fn vote_after_a_power_cut(save: SaveVote) -> Option<Vote> {
    let disk = SimDisk::new();
    let place = Place::sim(disk.clone());
    disk.create_dir(&place.dir).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    let opened = Arc::new(place.open());
    let saving = Arc::clone(&opened);
    let vote = Vote { term: 7, replica: 1, is_committed: false };
    tokio::task::spawn_blocking(move || save(&saving, vote)).await.unwrap();
    let left = disk.crash_image(Loss::All);
    let vote = Place::sim(left).open().shard.vote();
    drop(opened);
    vote
}

fn durably(opened: &Opened, vote: Vote) {
    let mut store = opened.store.clone();
    let vote = super::types::to_vote(vote);
    tokio::runtime::Handle::current().block_on(store.save_vote(&vote)).unwrap();
}

/// The defect: it returns when the vote is in memory.
fn in_memory(opened: &Opened, vote: Vote) {
    opened.shard.save_vote(vote).unwrap();
}

#[tokio::test]
async fn a_saved_vote_survives_a_power_cut() {
    assert_eq!(vote_after_a_power_cut(durably).await.map(|vote| vote.term), Some(7));
}

#[tokio::test]
async fn planted_vote_without_sync_is_caught() {
    // The flusher may be awake for another reason, and write it after all: not every time.
    for _ in 0..20 {
        if vote_after_a_power_cut(in_memory).await.is_none() {
            return;
        }
    }
    panic!("a vote that was not synced was never lost");
}

#[tokio::test]
async fn after_a_failed_sync_nobody_hears_of_success_and_the_node_ends_with_13() {
    let disk = SimDisk::new();
    let place = Place::sim(disk.clone());
    disk.create_dir(&place.dir).unwrap();
    let opened = place.open();
    let mut store = opened.store.clone();
    let vote = |term| super::types::to_vote(Vote { term, replica: 1, is_committed: true });
    store.save_vote(&vote(1)).await.unwrap();

    let (calls, failure, repeat) = (Calls::DataSyncs, Failure::Io, Repeat::Sticky);
    disk.fail(Fault { calls, nth: 1, failure, repeat });
    let id = super::types::to_log_id(LogId { term: 1, index: 0 });
    let blank = openraft::Entry { log_id: id, payload: openraft::EntryPayload::Blank };
    let (flushed, told) = TypeConfig::oneshot();
    store.append([blank], IOFlushed::signal(flushed)).await.unwrap();
    assert!(told.await.is_err(), "whoever waits is told nothing: the outcome is unknown");
    let error = opened.fatal.raised().await;
    assert_eq!(error.exit_code(), 13);
    assert!(error.to_string().contains(".log"), "{error}");
    // Nothing is tried again.
    disk.heal();
    assert!(store.save_vote(&vote(2)).await.is_err());
}
