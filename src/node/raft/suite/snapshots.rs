//! What openraft asks of snapshots.

use std::{fs, io, ops::Range, sync::Arc};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use openraft::{
    Entry, EntryPayload, OptionalSend, RaftLogReader as _, RaftSnapshotBuilder as _,
    StorageError as RaftError,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine, StorageHelper},
    testing::log::{StoreBuilder, Suite},
    type_config::{
        TypeConfigExt as _,
        alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
    },
};

use super::{LogStore, Opened, Place, TypeConfig};
use crate::{
    node::raft::{
        snapshot::{Checkpoints, SnapshotData},
        state_machine::StateMachine,
        types::{to_log_id, to_vote},
    },
    storage::log::entry::{LogId, Vote},
};

/// A state machine whose entries are appended to the log before it applies them, as in life.
struct Logged {
    machine: StateMachine,
    store: LogStore,
}

impl Logged {
    fn new(opened: &Opened) -> Self {
        Self { machine: opened.machine(), store: opened.store.clone() }
    }
}

async fn append(store: &mut LogStore, entry: EntryOf<TypeConfig>) {
    let (flushed, told) = TypeConfig::oneshot();
    store.append([entry], IOFlushed::signal(flushed)).await.unwrap();
    told.await.unwrap().unwrap();
}

impl RaftStateMachine<TypeConfig> for Logged {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Checkpoints;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        self.machine.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let entries: Vec<EntryResponder<TypeConfig>> = entries.try_collect().await?;
        let logged: Vec<EntryOf<TypeConfig>> =
            entries.iter().map(|(entry, _)| entry.clone()).collect();
        for entry in logged {
            append(&mut self.store, entry).await;
        }
        self.machine.apply(stream::iter(entries).map(Ok)).await
    }

    async fn try_create_snapshot_builder(&mut self, is_forced: bool) -> Option<Checkpoints> {
        self.machine.try_create_snapshot_builder(is_forced).await
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoints {
        self.machine.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.machine.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        self.machine.get_current_snapshot().await
    }
}

/// Makes replicas, each in a place of its own.
struct Replicas(fn() -> Place);

impl StoreBuilder<TypeConfig, LogStore, Logged, Opened> for Replicas {
    async fn build(&self) -> Result<(Opened, LogStore, Logged), RaftError<TypeConfig>> {
        let opened = (self.0)().open();
        let (store, machine) = (opened.store.clone(), Logged::new(&opened));
        Ok((opened, store, machine))
    }
}

type SnapshotSuite = Suite<TypeConfig, LogStore, Logged, Replicas, Opened>;

async fn snapshot_meta(place: &Place) {
    let opened = place.open();
    let machine = Logged::new(&opened);
    let store = opened.store.clone();
    SnapshotSuite::snapshot_meta(store, machine).await.unwrap();
}

#[tokio::test]
async fn snapshot_meta_on_a_disk() {
    snapshot_meta(&Place::real()).await;
}

#[tokio::test]
async fn snapshot_meta_on_a_simulated_disk() {
    snapshot_meta(&Place::new_sim()).await;
}

#[tokio::test]
async fn transfer_snapshot_on_a_disk() {
    SnapshotSuite::transfer_snapshot(&Replicas(Place::real)).await.unwrap();
}

#[tokio::test]
async fn transfer_snapshot_on_a_simulated_disk() {
    SnapshotSuite::transfer_snapshot(&Replicas(Place::new_sim)).await.unwrap();
}

fn blank(index: u64) -> EntryOf<TypeConfig> {
    Entry { log_id: to_log_id(LogId { term: 1, index }), payload: EntryPayload::Blank }
}

/// A log that was purged, and whose last checkpoint is damaged: all of it is still there and is read, but
/// openraft starts with no purge mark unless there is a snapshot.
#[tokio::test]
async fn a_purged_log_without_its_checkpoint_starts_with_another() {
    let place = Place::real();
    let opened = place.open();
    let mut machine = Logged::new(&opened);
    let entries = (0..10).map(|index| Ok((blank(index), None)));
    machine.apply(stream::iter(entries)).await.unwrap();
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap();
    let mut store = opened.store.clone();
    let (mark, last) = (to_log_id(LogId { term: 1, index: 6 }), LogId { term: 1, index: 9 });
    store.purge(mark).await.unwrap();
    store.save_committed(Some(to_log_id(last))).await.unwrap();
    append(&mut store, blank(10)).await;
    drop((machine, builder, store, opened));
    let mut damaged = 0;
    for file in fs::read_dir(&place.dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "checkpoint") {
            fs::write(&path, "not a checkpoint").unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);

    let opened = place.open();
    let (mut store, mut machine) = (opened.store.clone(), opened.machine());
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    let _initial =
        StorageHelper::new(&mut store, &mut machine).with_id(1).get_initial_state().await.unwrap();
    let snapshot = machine.get_current_snapshot().await.unwrap();
    let reached = snapshot.and_then(|snapshot| snapshot.meta.last_log_id);
    assert!(reached >= Some(to_log_id(last)), "{reached:?}");
    assert_eq!(store.try_get_log_entries(0..20).await.unwrap().len(), 4, "7 to 10");
}

async fn apply(machine: &mut Logged, indexes: Range<u64>) {
    let entries = indexes.map(|index| Ok((blank(index), None)));
    machine.apply(stream::iter(entries)).await.unwrap();
}

async fn snapshot_of(machine: &mut Logged) -> SnapshotOf<TypeConfig, SnapshotData> {
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap()
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_is_said_of_it_changes_nothing() {
    let (place, other) = (Place::new_sim(), Place::new_sim());
    let (opened, other) = (place.open(), other.open());
    let (mut machine, mut other) = (Logged::new(&opened), Logged::new(&other));
    apply(&mut other, 0..10).await;
    apply(&mut machine, 0..3).await;
    let snapshot = snapshot_of(&mut other).await;
    let said = |index| SnapshotMetaOf::<TypeConfig> {
        last_log_id: Some(to_log_id(LogId { term: 1, index })),
        ..snapshot.meta.clone()
    };
    let (less, more) = (said(8), said(10));
    for said in [less, more] {
        let copy = other.get_current_snapshot().await.unwrap().unwrap().snapshot;
        let error = machine.install_snapshot(&said, copy).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    let names = place.disk.list(&place.dir).unwrap();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".history")), "{names:?}");
    assert_eq!(opened.shard.applied().0, Some(LogId { term: 1, index: 2 }));
    // The one that is what it is said to be is taken.
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(opened.shard.applied().0, Some(LogId { term: 1, index: 9 }));
    apply(&mut machine, 10..12).await;
    // An older one is not.
    let copy = other.get_current_snapshot().await.unwrap().unwrap();
    assert!(machine.install_snapshot(&copy.meta, copy.snapshot).await.is_err());
    assert_eq!(opened.shard.applied().0, Some(LogId { term: 1, index: 11 }));
}

#[tokio::test]
async fn the_own_vote_and_what_stands_behind_a_snapshot_stay() {
    let (place, other) = (Place::real(), Place::real());
    let (opened, other) = (place.open(), other.open());
    let mut far = Logged::new(&other);
    let mut store = other.store.clone();
    let vote = |term, replica| Vote { term, replica, is_committed: true };
    store.save_vote(&to_vote(vote(1, 1))).await.unwrap();
    apply(&mut far, 0..10).await;
    let (mut machine, mut store) = (opened.machine(), opened.store.clone());
    for index in 0..15 {
        append(&mut store, blank(index)).await;
    }
    store.save_vote(&to_vote(vote(3, 2))).await.unwrap();
    let snapshot = snapshot_of(&mut far).await;
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    let last = to_log_id(LogId { term: 1, index: 9 });
    store.purge(last).await.unwrap();
    append(&mut store, blank(15)).await;
    let held = Arc::clone(&opened.shard);
    assert_eq!(held.last_checkpoint().map(|(applied, _)| applied.index), Some(9));
    drop((held, machine, store, opened));
    let opened = place.open();
    let mut store = opened.store.clone();
    assert_eq!(store.read_vote().await.unwrap(), Some(to_vote(vote(3, 2))));
    let entries = store.try_get_log_entries(0..20).await.unwrap();
    let indexes: Vec<u64> = entries.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, [10, 11, 12, 13, 14, 15]);
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(last));
    assert_eq!(opened.shard.applied().0, Some(LogId { term: 1, index: 9 }));
}
