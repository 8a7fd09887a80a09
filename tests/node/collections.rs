//! Collections: made, described, listed, dropped.

use prkdb_proto::v1::{
    BeginTxnRequest, CollectionSettings, CommitTxnRequest, CreateCollectionReply,
    CreateCollectionRequest, DescribeCollectionRequest, DropCollectionRequest, GetRequest,
    Isolation, KeyIndex, ListCollectionsRequest, Partitioner, Placement, PutRequest,
    ReadTxnRequest, ScanTxnRequest,
    commit_txn_request::{Change, Part},
};
use tonic::{Code, Status};

use crate::rig::{Rig, get, put, refused};

fn settings(partitions: u32) -> CollectionSettings {
    CollectionSettings { partitions, ..CollectionSettings::default() }
}

async fn create(
    rig: &Rig,
    name: &str,
    settings: Option<CollectionSettings>,
) -> Result<CreateCollectionReply, Status> {
    let request = CreateCollectionRequest { name: name.to_owned(), settings };
    rig.collections().create(request).await.map(tonic::Response::into_inner)
}

async fn names(rig: &Rig, internal: bool) -> Vec<String> {
    let request = ListCollectionsRequest { internal };
    let listed = rig.collections().list(request).await.unwrap().into_inner().collections;
    listed.into_iter().map(|state| state.collection.unwrap().name).collect()
}

fn named(name: &str) -> DescribeCollectionRequest {
    DescribeCollectionRequest { name: name.to_owned() }
}

fn into(collection: &str, key: &str, value: &str) -> PutRequest {
    PutRequest { collection: collection.to_owned(), ..put(key, value) }
}

#[tokio::test]
async fn the_first_collection_is_there_from_the_start() {
    let rig = Rig::start().await;
    assert_eq!(names(&rig, false).await, ["default"]);
    let state = rig.collections().describe(named("default")).await.unwrap().into_inner();
    let state = state.state.unwrap();
    let collection = state.collection.unwrap();
    let settings = collection.settings.unwrap();
    assert_eq!(settings.partitions, 3);
    assert_eq!(settings.partitioner(), Partitioner::Ring);
    assert_eq!(settings.placement(), Placement::Spread);
    assert_eq!(settings.key_index(), KeyIndex::On);
    assert!(collection.created_ms > 0);
    assert_eq!(state.partitions.len(), 3);
    for (number, partition) in (0..).zip(&state.partitions) {
        let place = partition.place.as_ref().unwrap();
        assert_eq!((place.number, place.shard), (number, 1));
        assert_eq!(place.leader_address, rig.grpc.to_string());
        assert_eq!((partition.leader_node, partition.log_start, partition.log_end), (1, 0, 0));
    }
    rig.stop().await;
}

#[tokio::test]
async fn creating_it_again_changes_nothing_and_other_settings_are_refused() {
    let rig = Rig::start().await;
    let first = create(&rig, "flights", None).await.unwrap();
    assert!(first.changed);
    let again = create(&rig, "flights", Some(settings(3))).await.unwrap();
    assert!(!again.changed);
    assert_eq!(first.collection.unwrap().id, again.collection.unwrap().id);
    let error = create(&rig, "flights", Some(settings(4))).await.unwrap_err();
    refused(&error, Code::AlreadyExists, "collection_exists");
    // One of both would be hidden by the other on a system that folds names.
    let folded = create(&rig, "FLIGHTS", Some(settings(4))).await.unwrap_err();
    refused(&folded, Code::AlreadyExists, "collection_exists");
    rig.stop().await;
}

#[tokio::test]
async fn of_many_who_create_one_collection_one_does() {
    let rig = Rig::start().await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut collections = rig.collections();
        let request = CreateCollectionRequest { name: "one".into(), settings: None };
        tries.spawn(async move { collections.create(request).await.unwrap().into_inner() });
    }
    let replies = tries.join_all().await;
    assert_eq!(replies.iter().filter(|reply| reply.changed).count(), 1);
    let ids: Vec<u32> = replies.into_iter().map(|reply| reply.collection.unwrap().id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_out_of_bounds_is_named() {
    let rig = Rig::start().await;
    for name in ["", ".", "..", "a/b", "a b", "\u{202e}x", &"x".repeat(250), "__mine"] {
        let error = create(&rig, name, None).await.unwrap_err();
        refused(&error, Code::InvalidArgument, "invalid_argument");
    }
    for wrong in [
        settings(100_001),
        CollectionSettings { partitioner: Partitioner::Ring.into(), ..settings(1025) },
        CollectionSettings { partitioner: 99, ..settings(3) },
        CollectionSettings { cleanup: 99, ..settings(3) },
        CollectionSettings { placement: 99, ..settings(3) },
        CollectionSettings { durability: 99, ..settings(3) },
        CollectionSettings { key_index: 99, ..settings(3) },
    ] {
        let error = create(&rig, "wrong", Some(wrong)).await.unwrap_err();
        refused(&error, Code::InvalidArgument, "invalid_argument");
    }
    assert_eq!(names(&rig, true).await, ["default"]);
    rig.stop().await;
}

#[tokio::test]
async fn lists_are_sorted_and_hide_what_is_internal() {
    let rig = Rig::start().await;
    for name in ["zebra", "Apple", "mango", "__bench_1"] {
        create(&rig, name, None).await.unwrap();
    }
    assert_eq!(names(&rig, false).await, ["Apple", "default", "mango", "zebra"]);
    assert!(names(&rig, true).await.contains(&"__bench_1".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn partitions_are_spread_over_the_shards_or_kept_together() {
    let rig = Rig::with(|settings| settings.shards = 3).await;
    let places = async |name: &str, placement: Placement| {
        let wanted = CollectionSettings { placement: placement.into(), ..settings(6) };
        let created = create(&rig, name, Some(wanted)).await.unwrap().collection.unwrap();
        created.partitions.iter().map(|place| place.shard).collect::<Vec<u32>>()
    };
    let mut spread = places("spread", Placement::Spread).await;
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2, 2, 3, 3]);
    assert_eq!(places("together", Placement::Colocated).await, [1; 6]);
    rig.stop().await;
}

#[tokio::test]
async fn collections_do_not_see_each_others_keys() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for name in ["one", "other"] {
        create(&rig, name, Some(settings(1))).await.unwrap();
        let written = kv.put(into(name, "k", name)).await.unwrap().into_inner();
        assert_eq!((written.partition, written.offset, written.existed), (0, 0, false));
    }
    for name in ["one", "other"] {
        let request = GetRequest { collection: name.to_owned(), ..get("k") };
        let found = kv.get(request).await.unwrap().into_inner().found.unwrap();
        assert_eq!(found.value, name);
        let state = rig.collections().describe(named(name)).await.unwrap().into_inner();
        assert_eq!(state.state.unwrap().keys, 1);
    }
    assert_eq!(kv.get(get("k")).await.unwrap().into_inner().found, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_dropped_collection_is_gone_and_its_name_is_free_for_an_empty_one() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let first = create(&rig, "c", None).await.unwrap().collection.unwrap();
    kv.put(into("c", "k", "v")).await.unwrap();
    let drop = || DropCollectionRequest { name: "c".into() };
    rig.collections().drop(drop()).await.unwrap();
    let error = rig.collections().drop(drop()).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");
    let error = kv.put(into("c", "k", "v")).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");
    let error = rig.collections().describe(named("c")).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");
    assert_eq!(names(&rig, true).await, ["default"]);

    let second = create(&rig, "c", Some(settings(2))).await.unwrap().collection.unwrap();
    assert!(second.id > first.id, "ids are never reused");
    assert_eq!(rig.log_ends("c").await, [0, 0]);
    let rig = rig.stop().await.start().await;
    assert_eq!(rig.log_ends("c").await, [0, 0]);
    let request = GetRequest { collection: "c".into(), ..get("k") };
    assert_eq!(rig.kv().get(request).await.unwrap().into_inner().found, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_collection_of_the_same_name_is_not_that_of_the_snapshot() {
    let rig = Rig::start().await;
    let (mut kv, mut transactions) = (rig.kv(), rig.transactions());
    create(&rig, "c", None).await.unwrap();
    kv.put(into("c", "k", "v")).await.unwrap();
    let begin = BeginTxnRequest { collection: "c".into(), key: "k".into() };
    let snapshot = transactions.begin(begin).await.unwrap().into_inner().snapshot;
    let read = ReadTxnRequest { snapshot, collection: "c".into(), keys: vec!["k".into()] };
    let items = transactions.read(read.clone()).await.unwrap().into_inner().items;
    assert_eq!(items[0].found.as_ref().unwrap().value, "v");
    rig.collections().drop(DropCollectionRequest { name: "c".into() }).await.unwrap();
    create(&rig, "c", None).await.unwrap();

    let error = transactions.read(read).await.unwrap_err();
    refused(&error, Code::Aborted, "snapshot_gone");
    let scan = ScanTxnRequest { snapshot, collection: "c".into(), ..Default::default() };
    let error = transactions.scan(scan).await.unwrap_err();
    refused(&error, Code::Aborted, "snapshot_gone");
    // What was read is not that of the snapshot any more, though nothing is written to it.
    let reads = Part { collection: "c".into(), reads: vec!["k".into()], ..Default::default() };
    let change = Change { key: "x".into(), value: Some("y".into()) };
    let changes =
        Part { collection: "default".into(), changes: vec![change], ..Default::default() };
    let commit = CommitTxnRequest {
        snapshot,
        parts: vec![reads, changes],
        isolation: Isolation::Serializable.into(),
        ..Default::default()
    };
    let error = transactions.commit(commit).await.unwrap_err();
    refused(&error, Code::Aborted, "snapshot_gone");
    rig.stop().await;
}

#[tokio::test]
async fn the_first_collection_can_be_dropped_and_stays_so() {
    let rig = Rig::start().await;
    let drop = DropCollectionRequest { name: "default".into() };
    rig.collections().drop(drop).await.unwrap();
    let rig = rig.stop().await.start().await;
    assert!(names(&rig, true).await.is_empty());
    rig.stop().await;
}
