//! Keys that expire, over the wire.

use std::time::Duration;

use prkdb_proto::v1::{
    AlterCollectionRequest, CollectionSettings, CreateCollectionRequest, ExpireReply,
    ExpireRequest, GetRequest, PutRequest, ScanRequest, Value, put_request::Condition,
};
use tonic::Code;

use crate::rig::{Rig, get, put, refused};

fn put_for(key: &str, ttl_ms: u64) -> PutRequest {
    PutRequest { ttl_ms: Some(ttl_ms), ..put(key, "v") }
}

async fn find(rig: &Rig, collection: &str, key: &str) -> Option<Value> {
    let request = GetRequest { collection: collection.to_owned(), ..get(key) };
    rig.kv().get(request).await.unwrap().into_inner().found
}

async fn expire(rig: &Rig, key: &str, ttl_ms: Option<u64>) -> ExpireReply {
    let collection = "default".to_owned();
    let request = ExpireRequest { collection, key: key.to_owned().into(), ttl_ms };
    rig.kv().expire(request).await.unwrap().into_inner()
}

/// Waits until a key is gone on a log to which nothing else is written.
async fn gone(rig: &Rig, key: &str) {
    let gone = async {
        while find(rig, "default", key).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the key expires");
}

/// Waits until a key has its tombstone: the records of its partition are one more.
async fn swept(rig: &Rig, ends: u64) {
    let swept = async {
        while rig.log_ends("default").await.iter().sum::<u64>() < ends {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.expect("a tombstone");
}

#[tokio::test]
async fn a_key_is_gone_when_its_time_is_over_and_gets_a_tombstone() {
    let rig = Rig::start().await;
    rig.kv().put(put_for("long", 3_600_000)).await.unwrap();
    let written = rig.kv().put(put_for("short", 300)).await.unwrap().into_inner();
    let found = find(&rig, "default", "short").await.unwrap();
    assert_eq!(found.expires_at_ms, Some(written.append_time_ms + 300));
    assert!(found.ttl_ms.is_some_and(|ttl_ms| ttl_ms <= 300));
    gone(&rig, "short").await;
    swept(&rig, 3).await;
    let request = ScanRequest { collection: "default".to_owned(), ..ScanRequest::default() };
    let mut rows = rig.kv().scan(request).await.unwrap().into_inner();
    let page = rows.message().await.unwrap().unwrap();
    let keys: Vec<_> = page.rows.iter().map(|row| row.key.as_ref()).collect();
    assert_eq!((keys, page.count), (vec![&b"long"[..]], Some(1)));
    assert!(page.rows[0].ttl_ms.is_some_and(|ttl_ms| ttl_ms > 3_500_000));
    // It can be put as if it had never been.
    let again = PutRequest { condition: Some(Condition::IfAbsent(true)), ..put("short", "w") };
    let again = rig.kv().put(again).await.unwrap().into_inner();
    assert!(!again.existed);
    rig.stop().await;
}

#[tokio::test]
async fn what_expires_is_the_same_after_a_restart() {
    let rig = Rig::start().await;
    rig.kv().put(put_for("short", 1)).await.unwrap();
    rig.kv().put(put_for("long", 3_600_000)).await.unwrap();
    let before = find(&rig, "default", "long").await.unwrap().expires_at_ms;
    let rig = rig.kill().await.start().await;
    gone(&rig, "short").await;
    assert_eq!(find(&rig, "default", "long").await.unwrap().expires_at_ms, before);
    rig.stop().await;
}

#[tokio::test]
async fn a_plain_put_takes_the_time_to_live_away() {
    let rig = Rig::start().await;
    rig.kv().put(put_for("k", 3_600_000)).await.unwrap();
    rig.kv().put(put("k", "w")).await.unwrap();
    let found = find(&rig, "default", "k").await.unwrap();
    assert_eq!((found.expires_at_ms, found.ttl_ms), (None, None));
    rig.stop().await;
}

#[tokio::test]
async fn expire_sets_it_anew_ends_it_and_persist_takes_it_away() {
    let rig = Rig::start().await;
    assert!(!expire(&rig, "k", Some(1000)).await.existed);
    let value = PutRequest { timestamp_ms: 77, ..put("k", "v") };
    let version = rig.kv().put(value).await.unwrap().into_inner().offset;
    let set = expire(&rig, "k", Some(60_000)).await;
    assert_eq!((set.existed, set.expired_before, set.version), (true, false, version + 1));
    let found = find(&rig, "default", "k").await.unwrap();
    assert!(found.ttl_ms.is_some_and(|ttl_ms| (50_000..=60_000).contains(&ttl_ms)));
    assert_eq!((&found.value[..], found.timestamp_ms), (&b"v"[..], 77));
    let kept = expire(&rig, "k", None).await;
    assert_eq!((kept.expired_before, kept.version), (true, version + 2));
    assert_eq!(find(&rig, "default", "k").await.unwrap().ttl_ms, None);
    let same = expire(&rig, "k", None).await;
    assert_eq!((same.expired_before, same.version), (false, version + 2), "nothing is written");
    let ended = expire(&rig, "k", Some(0)).await;
    assert_eq!((ended.existed, ended.version), (true, 0));
    assert_eq!(find(&rig, "default", "k").await, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_collection_gives_its_values_a_time_to_live() {
    let rig = Rig::start().await;
    let settings =
        CollectionSettings { partitions: 2, ttl_ms: 3_600_000, ..CollectionSettings::default() };
    let name = "sessions".to_owned();
    let create = CreateCollectionRequest { name: name.clone(), settings: Some(settings) };
    rig.collections().create(create).await.unwrap();
    let put_in =
        |key: &str, ttl_ms| PutRequest { collection: name.clone(), ttl_ms, ..put(key, "v") };
    rig.kv().put(put_in("own", Some(50_000))).await.unwrap();
    rig.kv().put(put_in("default", None)).await.unwrap();
    let ttl = async |rig: &Rig, key: &str| find(rig, "sessions", key).await.unwrap().ttl_ms;
    assert!(ttl(&rig, "own").await.unwrap() <= 50_000);
    assert!(ttl(&rig, "default").await.unwrap() > 3_500_000);
    // What lasts for ever is said so, whatever the collection says.
    let persist = ExpireRequest { collection: name.clone(), key: "default".into(), ttl_ms: None };
    rig.kv().expire(persist).await.unwrap();
    assert_eq!(ttl(&rig, "default").await, None);
    let alter = |ttl_ms| AlterCollectionRequest {
        name: name.clone(),
        ttl_ms,
        ..AlterCollectionRequest::default()
    };
    let altered = rig.collections().alter(alter(Some(0))).await.unwrap().into_inner();
    assert!(altered.changed);
    assert!(!rig.collections().alter(alter(Some(0))).await.unwrap().into_inner().changed);
    let rig = rig.kill().await.start().await;
    rig.kv().put(put_in("later", None)).await.unwrap();
    assert_eq!(ttl(&rig, "later").await, None);
    assert!(ttl(&rig, "own").await.unwrap() <= 50_000, "what was appended before stays");
    rig.stop().await;
}

#[tokio::test]
async fn a_time_to_live_beyond_the_limit_is_refused() {
    let rig = Rig::start().await;
    let too_long = prkdb_types::limits::MAX_TTL_MS + 1;
    let status = rig.kv().put(put_for("k", too_long)).await.unwrap_err();
    refused(&status, Code::InvalidArgument, "invalid_argument");
    assert!(status.message().contains("max-ttl"), "{}", status.message());
    let settings = CollectionSettings { ttl_ms: too_long, ..CollectionSettings::default() };
    let create = CreateCollectionRequest { name: "c".to_owned(), settings: Some(settings) };
    let status = rig.collections().create(create).await.unwrap_err();
    refused(&status, Code::InvalidArgument, "invalid_argument");
    rig.stop().await;
}
