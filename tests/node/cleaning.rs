//! What goes of a collection: by its retention, by truncation, by compaction; and the room it took.

use std::{path::Path, time::Duration};

use prkdb_proto::v1::{
    AlterCollectionRequest, Cleanup, CollectionSettings, CreateCollectionRequest, PutRequest,
    ScanRequest, TruncateCollectionRequest, truncate_collection_request::Before,
};
use tonic::Code;

use crate::rig::{Rig, Settings, put, refused};

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect(what);
}

async fn create(rig: &Rig, name: &str, settings: CollectionSettings) {
    let request = CreateCollectionRequest { name: name.to_owned(), settings: Some(settings) };
    rig.collections().create(request).await.unwrap();
}

async fn starts(rig: &Rig, name: &str) -> Vec<u64> {
    let request = prkdb_proto::v1::DescribeCollectionRequest { name: name.to_owned() };
    let state = rig.collections().describe(request).await.unwrap().into_inner().state.unwrap();
    state.partitions.iter().map(|partition| partition.log_start).collect()
}

async fn keys(rig: &Rig, name: &str) -> u64 {
    let request =
        ScanRequest { collection: name.to_owned(), count_only: true, ..Default::default() };
    let mut replies = rig.kv().scan(request).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap().count.unwrap()
}

fn put_in(collection: &str, key: &str, value: &str) -> PutRequest {
    PutRequest { collection: collection.to_owned(), ..put(key, value) }
}

#[tokio::test]
async fn records_beyond_a_retention_go_and_their_keys_with_them() {
    let rig = Rig::start().await;
    let settings =
        CollectionSettings { partitions: 1, retention_bytes: 2000, ..Default::default() };
    create(&rig, "c", settings).await;
    for number in 0..100 {
        rig.kv().put(put_in("c", &format!("key-{number}"), &"v".repeat(100))).await.unwrap();
    }
    until("the beginning goes", async || starts(&rig, "c").await[0] > 80).await;
    let start = starts(&rig, "c").await[0];
    assert_eq!(keys(&rig, "c").await, 100 - start, "the keys that went had their records there");
    let rig = rig.kill().await.start().await;
    assert!(starts(&rig, "c").await[0] >= start);
    let alter = |bytes| AlterCollectionRequest {
        name: "c".to_owned(),
        retention_bytes: bytes,
        ..AlterCollectionRequest::default()
    };
    let altered = rig.collections().alter(alter(Some(0))).await.unwrap().into_inner();
    let settings = altered.collection.unwrap().settings.unwrap();
    assert_eq!((settings.cleanup(), settings.retention_bytes), (Cleanup::Keep, 0));
    rig.stop().await;
}

#[tokio::test]
async fn records_of_an_age_go() {
    let rig = Rig::start().await;
    let settings = CollectionSettings { partitions: 1, retention_ms: 200, ..Default::default() };
    create(&rig, "c", settings).await;
    for number in 0..10 {
        rig.kv().put(put_in("c", &format!("old-{number}"), "v")).await.unwrap();
    }
    // What is newest stays: the age of the others is known by it.
    until("the old ones go", async || {
        rig.kv().put(put_in("c", "new", "v")).await.unwrap();
        starts(&rig, "c").await[0] >= 10
    })
    .await;
    assert_eq!(keys(&rig, "c").await, 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_truncated_partition_begins_later() {
    let rig = Rig::start().await;
    let settings = CollectionSettings { partitions: 2, ..Default::default() };
    create(&rig, "c", settings).await;
    for number in 0..40 {
        let request = PutRequest {
            timestamp_ms: 1000 + number,
            ..put_in("c", &format!("key-{number}"), "v")
        };
        rig.kv().put(request).await.unwrap();
    }
    let truncate = async |partition, before| {
        let request =
            TruncateCollectionRequest { name: "c".to_owned(), partition, before: Some(before) };
        rig.collections().truncate(request).await.map(|reply| reply.into_inner().partitions)
    };
    let done = truncate(Some(1), Before::Offset(5)).await.unwrap();
    assert_eq!((done.len(), done[0].log_start, done[0].trimmed), (1, 5, 5));
    assert_eq!((starts(&rig, "c").await, keys(&rig, "c").await), (vec![0, 5], 35));
    let again = truncate(Some(1), Before::Offset(3)).await.unwrap();
    assert_eq!((again[0].log_start, again[0].trimmed), (5, 0), "a start only rises");
    truncate(None, Before::TimestampMs(1030)).await.unwrap();
    assert_eq!(keys(&rig, "c").await, 10);
    let ends = rig.log_ends("c").await;
    truncate(None, Before::Offset(u64::MAX)).await.unwrap();
    assert_eq!(keys(&rig, "c").await, 0);
    assert_eq!(starts(&rig, "c").await, ends, "behind them stand the tombstones");
    // It goes on.
    rig.kv().put(put_in("c", "k", "v")).await.unwrap();
    assert_eq!(keys(&rig, "c").await, 1);
    let status = truncate(Some(7), Before::Offset(1)).await.unwrap_err();
    refused(&status, Code::NotFound, "partition_not_found");
    rig.stop().await;
}

fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("shard-0000000001")).unwrap();
    let is_log = |name: &str| name.ends_with(".log") || name.ends_with(".history");
    let sizes = files.filter_map(|file| {
        let file = file.ok()?;
        // One that goes meanwhile has no size.
        is_log(file.file_name().to_str()?).then(|| file.metadata().map_or(0, |it| it.len()))
    });
    sizes.sum()
}

fn small_log(settings: &mut Settings) {
    settings.segment_bytes = 1 << 20;
    settings.checkpoint_bytes = 1 << 20;
}

#[tokio::test]
async fn compaction_gives_room_back_and_keeps_the_latest() {
    let rig = Rig::with(small_log).await;
    let settings = CollectionSettings { partitions: 1, ..Default::default() };
    let mut compact = settings;
    compact.set_cleanup(Cleanup::Compact);
    create(&rig, "c", compact).await;
    let value = "v".repeat(20_000);
    for round in 0..500 {
        let key = format!("key-{}", round % 10);
        rig.kv().put(put_in("c", &key, &format!("{round}-{value}"))).await.unwrap();
    }
    // Ten megabytes were written, and 200 kB are needed.
    until("the room comes back", async || log_bytes(rig.data_dir()) < 7 << 20).await;
    let check = async |rig: &Rig| {
        for number in 0..10 {
            let request = prkdb_proto::v1::GetRequest {
                collection: "c".to_owned(),
                key: format!("key-{number}").into(),
                consistency: 0,
            };
            let found = rig.kv().get(request).await.unwrap().into_inner().found.unwrap();
            assert!(found.value.starts_with(format!("{}-", 490 + number).as_bytes()));
        }
    };
    check(&rig).await;
    let rig = rig.kill().await.start().await;
    check(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_dropped_collection_gives_its_room_back() {
    let rig = Rig::with(small_log).await;
    create(&rig, "c", CollectionSettings { partitions: 1, ..Default::default() }).await;
    let value = "v".repeat(20_000);
    for round in 0..500 {
        rig.kv().put(put_in("c", &format!("key-{round}"), &value)).await.unwrap();
    }
    let request = prkdb_proto::v1::DropCollectionRequest { name: "c".to_owned() };
    rig.collections().drop(request).await.unwrap();
    until("the room comes back", async || log_bytes(rig.data_dir()) < 7 << 20).await;
    rig.stop().await;
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let rig = Rig::start().await;
    let expire = Cleanup::Expire.into();
    let compact = Cleanup::Compact.into();
    let off = prkdb_proto::v1::KeyIndex::Off.into();
    for settings in [
        CollectionSettings { cleanup: expire, ..Default::default() },
        CollectionSettings { cleanup: compact, retention_ms: 5, ..Default::default() },
        CollectionSettings { cleanup: compact, key_index: off, ..Default::default() },
    ] {
        let request = CreateCollectionRequest { name: "c".to_owned(), settings: Some(settings) };
        let status = rig.collections().create(request).await.unwrap_err();
        refused(&status, Code::InvalidArgument, "invalid_argument");
    }
    rig.stop().await;
}
