//! What openraft asks of snapshots.

use std::{fs, io};

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
    node::raft::{snapshot::Checkpoints, state_machine::StateMachine, types::to_log_id},
    storage::log::entry::LogId,
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
    type SnapshotData = ();
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
        snapshot: (),
    ) -> Result<(), io::Error> {
        self.machine.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        self.machine.get_current_snapshot().await
    }
}

struct Unused;

impl StoreBuilder<TypeConfig, LogStore, Logged> for Unused {
    async fn build(&self) -> Result<((), LogStore, Logged), RaftError<TypeConfig>> {
        unreachable!("a second store needs another replica")
    }
}

async fn snapshot_meta(place: &Place) {
    let opened = place.open();
    let machine = Logged::new(&opened);
    let store = opened.store.clone();
    Suite::<TypeConfig, LogStore, Logged, Unused, ()>::snapshot_meta(store, machine).await.unwrap();
}

#[tokio::test]
async fn snapshot_meta_on_a_disk() {
    snapshot_meta(&Place::real()).await;
}

#[tokio::test]
async fn snapshot_meta_on_a_simulated_disk() {
    snapshot_meta(&Place::new_sim()).await;
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
