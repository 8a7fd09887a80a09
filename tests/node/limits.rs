//! What is too large, too late or too much.

use std::time::Duration;

use prkdb_proto::v1::{GetRequest, PutRequest};
use tonic::{Code, Request};

use crate::rig::{Rig, detail, get, put, refused};

#[tokio::test]
async fn keys_are_taken_up_to_their_limit() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for (size, is_taken) in [(4095, true), (4096, true), (4097, false)] {
        let key = "k".repeat(size);
        match (kv.put(put(&key, "v")).await, is_taken) {
            (Ok(_), true) => {
                assert!(kv.get(get(&key)).await.unwrap().into_inner().found.is_some());
            }
            (Err(status), false) => {
                refused(&status, Code::InvalidArgument, "key_too_large");
                let message = detail(&status).message;
                assert!(message.contains("4097") && message.contains("4096"), "{message}");
            }
            (result, _) => panic!("{size}: {result:?}"),
        }
    }
    refused(&kv.put(put("", "v")).await.unwrap_err(), Code::InvalidArgument, "key_empty");
    refused(&kv.get(get("")).await.unwrap_err(), Code::InvalidArgument, "key_empty");
    rig.stop().await;
}

#[tokio::test]
async fn values_are_taken_up_to_their_limit() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let limit = 1 << 20;
    for (size, is_taken) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let value = "v".repeat(size);
        match (kv.put(put("k", &value)).await, is_taken) {
            (Ok(_), true) => {
                let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
                assert_eq!(found.value.len(), size);
            }
            (Err(status), false) => {
                refused(&status, Code::ResourceExhausted, "value_too_large");
            }
            (result, _) => panic!("{size}: {result:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_huge_message_is_refused_by_its_length_and_the_connection_lives() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(put("k", "v")).await.unwrap();
    let value = vec![b'x'; 100 << 20];
    let error = kv.put(PutRequest { value: value.into(), ..put("k", "") }).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"v");
    rig.stop().await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_no_write() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let mut request = Request::new(put("k", "v"));
    request.set_timeout(Duration::from_nanos(1));
    let error = kv.put(request).await.unwrap_err();
    // Whoever noticed first, client or server, nothing was begun.
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error:?}");
    rig.stop().await;
}

#[tokio::test]
async fn an_index_without_memory_takes_no_new_keys_and_all_else_goes_on() {
    let rig = Rig::with(|settings| settings.index_memory = 64 << 10).await;
    let mut kv = rig.kv();
    let mut taken = 0;
    let error = loop {
        match kv.put(put(&format!("key-{taken:06}"), "v")).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
        assert!(taken < 100_000, "the limit is never met");
    };
    refused(&error, Code::ResourceExhausted, "index_memory");
    assert!(taken > 10);
    let known = kv.put(put("key-000000", "w")).await.unwrap().into_inner();
    assert!(known.existed, "a key that is there takes no memory");
    let found = kv.get(get("key-000000")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"w");
    rig.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away_until_one_goes() {
    let rig = Rig::with(|settings| settings.max_connections = 2).await;
    let mut kv = rig.kv();
    kv.put(put("k", "v")).await.unwrap();
    // The first is the rig's own.
    let second = rig.channel().await;
    let mut other = prkdb_proto::v1::kv_client::KvClient::new(second);
    other.get(get("k")).await.unwrap();
    let third = tonic::transport::Endpoint::from_shared(format!("http://{}", rig.grpc))
        .unwrap()
        .connect()
        .await;
    if let Ok(channel) = third {
        let mut turned_away = prkdb_proto::v1::kv_client::KvClient::new(channel);
        let request = GetRequest { ..get("k") };
        assert!(turned_away.get(request).await.is_err());
    }
    kv.get(get("k")).await.unwrap();
    other.get(get("k")).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_request_with_huge_headers_is_refused_and_others_are_served() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(put("k", "v")).await.unwrap();
    let mut greedy = prkdb_proto::v1::kv_client::KvClient::new(rig.channel().await);
    let mut request = Request::new(get("k"));
    for number in 0..64 {
        let name = format!("x-{number}");
        let name: tonic::metadata::MetadataKey<_> = name.parse().unwrap();
        request.metadata_mut().insert(name, "x".repeat(1024).parse().unwrap());
    }
    assert!(greedy.get(request).await.is_err());
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"v");
    rig.stop().await;
}
