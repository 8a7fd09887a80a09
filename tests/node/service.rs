//! What all calls have in common: how they end with the node, how they are bounded and counted.

use std::time::Duration;

use prkdb_proto::v1::{
    DropCollectionRequest, ExchangeRequest, GetRequest, MetricsRequest, ProduceRequest,
    ScanRequest,
    exchange_reply::Result as Answer,
    exchange_request::Operation,
    produce_reply::Message as Reply,
    produce_request::{Batch, Message as Ask, Open},
};
use prkdb_types::{BatchBuilder, Compression, ProducerStamp};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::rig::{Rig, detail, get, keys_of, put, refused};

fn open() -> ProduceRequest {
    ProduceRequest {
        message: Some(Ask::Open(Open { collection: "default".to_owned(), collection_id: 0 })),
    }
}

#[tokio::test]
async fn open_streams_end_with_the_reason_when_the_node_stops() {
    // Longer than the test may take: it is not the end of the time that ends the streams.
    let rig = Rig::with(|settings| settings.shutdown_timeout = Duration::from_secs(600)).await;
    let (operations, queue) = mpsc::channel(8);
    let mut replies = rig.kv().exchange(ReceiverStream::new(queue)).await.unwrap().into_inner();
    let write = Some(Operation::Put(put("k", "v")));
    operations.send(ExchangeRequest { id: 1, timeout_ms: 0, operation: write }).await.unwrap();
    let reply = replies.message().await.unwrap().unwrap();
    assert!(matches!(reply.result, Some(Answer::Write(_))), "{reply:?}");

    let (batches, queue) = mpsc::channel(8);
    batches.send(open()).await.unwrap();
    let mut answers = rig.kv().batch_put(ReceiverStream::new(queue)).await.unwrap().into_inner();
    let opened = answers.message().await.unwrap().unwrap().message;
    assert!(matches!(opened, Some(Reply::Opened(_))), "{opened:?}");

    let mut health = HealthClient::new(rig.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    rig.signal(Signal::TERM);
    refused(&replies.message().await.unwrap_err(), Code::Unavailable, "stopping");
    refused(&answers.message().await.unwrap_err(), Code::Unavailable, "stopping");
    while let Ok(Some(reply)) = watch.message().await {
        assert_eq!(reply.status(), ServingStatus::NotServing);
    }
    let (ended, _) = rig.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    drop((operations, batches));
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off_by_a_stop_that_is_a_clean_one() {
    let rig = Rig::with(|settings| settings.shutdown_timeout = Duration::from_secs(1)).await;
    let value = "v".repeat(1 << 20);
    for number in 0..20 {
        rig.kv().put(put(&format!("k{number}"), &value)).await.unwrap();
    }
    let scan = ScanRequest { collection: "default".to_owned(), ..ScanRequest::default() };
    let mut pages = rig.kv().scan(scan).await.unwrap().into_inner();
    pages.message().await.unwrap().unwrap();
    rig.signal(Signal::TERM);
    let (ended, _) = rig.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    drop(pages);
}

#[tokio::test]
async fn answers_are_counted_by_method_and_code() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(put("k", "v")).await.unwrap();
    kv.put(put("", "v")).await.unwrap_err();
    let (operations, queue) = mpsc::channel(8);
    let read = Some(Operation::Get(get("k")));
    operations.send(ExchangeRequest { id: 1, timeout_ms: 0, operation: read }).await.unwrap();
    drop(operations);
    let mut replies = kv.exchange(ReceiverStream::new(queue)).await.unwrap().into_inner();
    while replies.message().await.unwrap().is_some() {}
    let text = rig.admin().metrics(MetricsRequest {}).await.unwrap().into_inner().exposition;
    for line in [
        r#"prkdb_rpc_requests_total{method="Kv/Put",code="ok"} 1"#,
        r#"prkdb_rpc_requests_total{method="Kv/Put",code="key_empty"} 1"#,
        r#"prkdb_rpc_requests_total{method="Kv/Exchange.Get",code="ok"} 1"#,
        r#"prkdb_rpc_seconds_count{method="Kv/Put"} 2"#,
        "prkdb_in_flight_bytes 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_replies_is_not_read_from_and_others_are_served() {
    let rig = Rig::start().await;
    let value = "v".repeat(1 << 20);
    rig.kv().put(put("large", &value)).await.unwrap();
    let (operations, queue) = mpsc::channel(1);
    let mut kv = prkdb_proto::v1::kv_client::KvClient::new(rig.channel().await)
        .max_decoding_message_size(64 << 20);
    let mut replies = kv.exchange(ReceiverStream::new(queue)).await.unwrap().into_inner();
    // Far more than any window: a node without bounds would hold all of it.
    let asking = tokio::spawn(async move {
        for id in 0..200 {
            let operation = Some(Operation::Get(get("large")));
            operations.send(ExchangeRequest { id, timeout_ms: 0, operation }).await.unwrap();
        }
    });
    rig.kv().put(put("k", "w")).await.unwrap();
    assert!(rig.kv().get(get("k")).await.unwrap().into_inner().found.is_some());
    let mut count = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        let Some(Answer::Get(found)) = reply.result else { panic!("no value: {}", reply.id) };
        assert_eq!(found.found.unwrap().value.len(), value.len());
        count += 1;
    }
    assert_eq!(count, 200);
    asking.await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_without_a_producer_is_refused_and_stores_nothing() {
    let rig = Rig::start().await;
    let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
    let key = keys_of(0, 3, 0, 1).remove(0);
    builder.push(1, Some(key.as_bytes()), Some(b"v"), &[]).unwrap();
    let batch = Batch { id: 9, partition: 0, batch: builder.finish().unwrap().to_bytes() };
    let asks = [open(), ProduceRequest { message: Some(Ask::Batch(batch)) }];
    let mut answers = rig.kv().batch_put(tokio_stream::iter(asks)).await.unwrap().into_inner();
    let mut failed = None;
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.message {
            Some(Reply::Failed(answer)) => failed = answer.detail,
            Some(Reply::Opened(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed.unwrap().code, "batch_invalid");
    assert_eq!(rig.log_ends("default").await, [0, 0, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn sizes_are_told_as_a_person_reads_them() {
    let rig = Rig::start().await;
    let status = rig.kv().put(put("k", &"v".repeat(3 << 19))).await.unwrap_err();
    let message = detail(&status).message;
    assert!(message.contains("value is 1.5 MiB, limit 1.0 MiB"), "{message}");
    rig.stop().await;
}

#[tokio::test]
async fn a_failed_read_says_nothing_of_a_write() {
    let rig = Rig::start().await;
    let elsewhere = GetRequest { collection: "elsewhere".to_owned(), ..get("k") };
    let status = rig.kv().get(elsewhere).await.unwrap_err();
    refused(&status, Code::NotFound, "collection_not_found");
    assert_eq!(detail(&status).outcome, 0);
    rig.stop().await;
}

#[tokio::test]
async fn names_of_the_system_cannot_be_dropped() {
    let rig = Rig::start().await;
    let request = DropCollectionRequest { name: "__system".to_owned() };
    let status = rig.collections().drop(request).await.unwrap_err();
    refused(&status, Code::InvalidArgument, "invalid_argument");
    rig.stop().await;
}

#[tokio::test]
async fn a_deadline_far_away_is_a_deadline_and_the_write_is_done() {
    let rig = Rig::start().await;
    let mut request = Request::new(put("k", "v"));
    request.set_timeout(Duration::from_secs(30));
    rig.kv().put(request).await.unwrap();
    rig.stop().await;
}
