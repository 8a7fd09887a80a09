//! What is there after a stop and after a kill.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prkdb_proto::v1::{
    CreateCollectionRequest, MetadataRequest, Producer, PutRequest, ScanRequest,
};
use rustix::process::Signal;

use crate::rig::{Rig, delete, get, put};

async fn count(rig: &Rig) -> u64 {
    let request =
        ScanRequest { collection: "default".into(), count_only: true, ..ScanRequest::default() };
    let mut replies = rig.kv().scan(request).await.unwrap().into_inner();
    let mut count = None;
    while let Some(page) = replies.message().await.unwrap() {
        count = page.count;
    }
    count.unwrap()
}

#[tokio::test]
async fn keys_collections_and_identity_survive_a_stop() {
    let rig = Rig::with(|settings| settings.shards = 2).await;
    let request = CreateCollectionRequest { name: "flights".into(), settings: None };
    rig.collections().create(request.clone()).await.unwrap();
    for number in 0..200 {
        rig.kv().put(put(&format!("key-{number}"), &number.to_string())).await.unwrap();
    }
    rig.kv().delete(delete("key-7")).await.unwrap();
    let ends = rig.log_ends("default").await;
    let metadata = async |rig: &Rig| {
        rig.admin().metadata(MetadataRequest::default()).await.unwrap().into_inner()
    };
    let before = metadata(&rig).await;

    let rig = rig.stop().await.start().await;
    assert_eq!(metadata(&rig).await.cluster_id, before.cluster_id);
    assert_eq!(rig.log_ends("default").await, ends);
    assert_eq!(count(&rig).await, 199);
    assert_eq!(rig.kv().get(get("key-7")).await.unwrap().into_inner().found, None);
    let found = rig.kv().get(get("key-8")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"8");
    assert!(!rig.collections().create(request).await.unwrap().into_inner().changed);
    rig.stop().await;
}

#[tokio::test]
async fn the_number_of_shards_is_that_of_the_first_start() {
    let rig = Rig::with(|settings| settings.shards = 2).await;
    let mut stopped = rig.stop().await;
    stopped.settings.shards = 5;
    let rig = stopped.start().await;
    let reply = rig.admin().status(prkdb_proto::v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.node.unwrap().shards, 3, "two and the one of metadata");
    rig.stop().await;
}

#[tokio::test]
async fn a_repeat_is_known_after_a_kill() {
    let rig = Rig::start().await;
    let request = PutRequest {
        producer: Some(Producer { id: 3, epoch: 0, sequence: 0 }),
        timestamp_ms: 9,
        ..put("k", "v")
    };
    let first = rig.kv().put(request.clone()).await.unwrap().into_inner();
    let rig = rig.kill().await.start().await;
    let again = rig.kv().put(request).await.unwrap().into_inner();
    assert!(again.duplicate);
    assert_eq!((again.offset, again.revision), (first.offset, first.revision));
    rig.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_under_load() {
    let mut rig = Rig::with(|settings| settings.segment_bytes = 1 << 20).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..3_u64 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let mut kv = rig.kv();
            let acknowledged = Arc::clone(&acknowledged);
            writers.spawn(async move {
                let mut last = None;
                for number in 0.. {
                    let key = format!("{round}-{writer}-{number}");
                    if kv.put(put(&key, &"x".repeat(1000))).await.is_err() {
                        break;
                    }
                    last = Some(number);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                (writer, last)
            });
        }
        let enough = acknowledged.load(Ordering::Relaxed) + 500;
        while acknowledged.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        let stopped = rig.kill().await;
        let written = writers.join_all().await;
        rig = stopped.start().await;
        for (writer, last) in written {
            for number in 0..=last.unwrap_or_default() {
                let key = format!("{round}-{writer}-{number}");
                let reply = rig.kv().get(get(&key)).await.unwrap().into_inner();
                assert!(reply.found.is_some() || last.is_none(), "{key} was acknowledged");
            }
        }
        assert!(count(&rig).await >= acknowledged.load(Ordering::Relaxed));
    }
    rig.stop().await;
}

#[tokio::test]
async fn writes_under_way_are_finished_by_a_stop() {
    let rig = Rig::start().await;
    let mut writers = tokio::task::JoinSet::new();
    let begun = Arc::new(AtomicU64::new(0));
    for writer in 0..8 {
        let mut kv = rig.kv();
        let begun = Arc::clone(&begun);
        writers.spawn(async move {
            let mut acknowledged = 0_u64;
            loop {
                match kv.put(put(&format!("{writer}-{acknowledged}"), "v")).await {
                    Ok(_) => acknowledged += 1,
                    Err(status) => return (acknowledged, status),
                }
                begun.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while begun.load(Ordering::Relaxed) < 100 {
        tokio::task::yield_now().await;
    }
    let stopped = rig.stop().await;
    let ended = writers.join_all().await;
    let acknowledged: u64 = ended.iter().map(|(count, _)| count).sum();
    for (_, status) in ended {
        // Refused as a whole, or cut with the connection: never a success that is not there.
        assert_ne!(status.code(), tonic::Code::Internal, "{status:?}");
    }
    let rig = stopped.start().await;
    assert!(count(&rig).await >= acknowledged);
    rig.stop().await;
}

#[tokio::test]
async fn sigint_stops_it_as_well() {
    let rig = Rig::start().await;
    rig.kv().put(put("k", "v")).await.unwrap();
    let (ended, stopped) = rig.end(Signal::INT).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let rig = stopped.start().await;
    assert!(rig.kv().get(get("k")).await.unwrap().into_inner().found.is_some());
    rig.stop().await;
}

#[tokio::test]
async fn a_state_dump_does_not_stop_it() {
    let rig = Rig::start().await;
    rig.signal(Signal::USR1);
    rig.kv().put(put("k", "v")).await.unwrap();
    rig.stop().await;
}
