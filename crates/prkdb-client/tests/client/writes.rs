//! A write is applied once, whatever breaks, and the client never guesses.

use std::time::Duration;

use prkdb_client::{
    Client, ClientError, ClientOptions, Delete, ErrorCode, Get, Outcome, Put, Transport,
};
use prkdb_proto::v1::{self, exchange_request::Operation};
use tokio::time::Instant;

use crate::{
    proxy::Proxy,
    server::{Fake, Step, refusal},
};

fn put(key: &'static str) -> Put {
    Put::new("default", key, "value")
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_sent_again_as_it_was() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::ApplyAndCut]);
    let written = client.put(put("k")).await.unwrap();
    assert!(written.duplicate);
    assert_eq!(written.offset, 1);
    let writes = fake.state().writes.clone();
    assert_eq!(writes.len(), 2);
    assert_eq!(writes[0], writes[1], "producer, sequence, partition, time and bytes");
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_again_and_the_write_applied_once() {
    let fake = Fake::start().await;
    let proxy = Proxy::start(&fake.address).await;
    let servers = vec![proxy.endpoint.clone()];
    let options = ClientOptions { servers, ..fake.options() };
    fake.state().leader.clone_from(&proxy.endpoint.to_string());
    let client = Client::connect(options).await.unwrap();
    fake.script([Step::ApplyAndHold]);
    let cut = async {
        fake.received(1).await;
        proxy.cut();
    };
    let (written, ()) = tokio::join!(client.put(put("k")), cut);
    assert!(written.unwrap().duplicate);
    let writes = fake.state().writes.clone();
    assert_eq!((writes.len(), &writes[0]), (2, &writes[1]));
}

#[tokio::test]
async fn the_sequence_moves_on_after_an_applied_write_only() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    client.put(put("k")).await.unwrap();
    fake.script([Step::Refuse(refusal(ErrorCode::VersionMismatch, v1::Outcome::NotApplied))]);
    let error = client.put(put("k").if_absent()).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::VersionMismatch, 7));
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    client.put(put("k")).await.unwrap();
    let producers = fake.producers();
    assert!(producers.iter().all(|producer| producer.id == producers[0].id));
    let sequences: Vec<u32> = producers.iter().map(|producer| producer.sequence).collect();
    assert_eq!(sequences, [0, 1, 1]);
}

#[tokio::test]
async fn a_delete_that_found_nothing_leaves_the_sequence() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    assert!(!client.delete(Delete::new("default", "k")).await.unwrap().existed);
    client.put(put("k")).await.unwrap();
    assert!(client.delete(Delete::new("default", "k")).await.unwrap().existed);
    client.put(put("k")).await.unwrap();
    let sequences: Vec<u32> = fake.producers().iter().map(|producer| producer.sequence).collect();
    assert_eq!(sequences, [0, 0, 1, 2]);
}

#[tokio::test]
async fn a_write_that_the_caller_gave_up_retires_its_lane() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::Hold]);
    tokio::select! {
        _ = client.put(put("k")) => panic!("the server does not answer"),
        () = fake.received(1) => {}
    }
    client.put(put("k")).await.unwrap();
    let producers = fake.producers();
    assert_ne!(producers[0].id, producers[1].id);
    assert_eq!(producers[1].sequence, 0);
}

#[tokio::test]
async fn a_write_past_its_deadline_has_an_unknown_outcome_and_its_lane_is_retired() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    client.put(put("k")).await.unwrap();
    fake.script([Step::Hold]);
    let deadline = Instant::now() + Duration::from_millis(500);
    let error = client.with_deadline(Some(deadline)).put(put("k")).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::UnknownOutcome, 5));
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    client.put(put("k")).await.unwrap();
    let producers = fake.producers();
    assert_eq!(producers[0].id, producers[1].id);
    assert_ne!(producers[1].id, producers[2].id);
    let timeouts_ms = fake.state().timeouts_ms.clone();
    assert!((1..=500).contains(&timeouts_ms[1]), "{timeouts_ms:?}");
    assert!((501..=20_000).contains(&timeouts_ms[0]), "{timeouts_ms:?}");
}

#[tokio::test]
async fn retries_run_out_with_an_unknown_outcome() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientOptions { retries: 1, ..fake.options() }).await.unwrap();
    fake.script([Step::Cut, Step::Cut]);
    let error = client.put(put("k")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownOutcome);
    assert!(error.to_string().contains(&fake.address), "{error}");
    assert_eq!(fake.state().writes.len(), 2);
}

#[tokio::test]
async fn doubt_about_an_earlier_attempt_survives_a_server_that_cannot_take_the_next() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientOptions { retries: 1, ..fake.options() }).await.unwrap();
    let full = refusal(ErrorCode::DiskFull, v1::Outcome::NotApplied);
    fake.script([Step::ApplyAndCut, Step::Refuse(full)]);
    let error = client.put(put("k")).await.unwrap_err();
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    assert!(error.to_string().contains("scripted disk_full"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_under_the_same_sequence() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let busy = refusal(ErrorCode::Overloaded, v1::Outcome::NotApplied);
    fake.script([Step::Refuse(busy.clone()), Step::Refuse(busy)]);
    client.put(put("k")).await.unwrap();
    let producers = fake.producers();
    assert_eq!(producers.len(), 3);
    assert!(producers.iter().all(|producer| *producer == producers[0]));
}

#[tokio::test]
async fn a_forgotten_producer_is_replaced() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([
        Step::Serve,
        Step::Refuse(refusal(ErrorCode::UnknownProducer, v1::Outcome::NotApplied)),
    ]);
    client.put(put("k")).await.unwrap();
    client.put(put("k")).await.unwrap();
    let producers = fake.producers();
    assert_eq!((producers[1].sequence, producers[2].sequence), (1, 0));
    assert_ne!(producers[1].id, producers[2].id);
}

#[tokio::test]
async fn a_moved_partition_is_looked_up_again() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    client.put(put("k")).await.unwrap();
    fake.state().partitions = 1;
    fake.script([Step::Refuse(refusal(ErrorCode::WrongPartition, v1::Outcome::NotApplied))]);
    assert_eq!(client.put(put("k")).await.unwrap().partition, 0);
    assert_eq!(client.partitions("default").await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_new_leader_is_followed_to_its_address() {
    let (old, new) = (Fake::start().await, Fake::start().await);
    let client = old.client().await;
    client.partitions("default").await.unwrap();
    let mut moved = refusal(ErrorCode::NotLeader, v1::Outcome::NotApplied);
    moved.leader_address.clone_from(&new.address);
    old.script([Step::Refuse(moved)]);
    old.state().leader.clone_from(&new.address);
    client.put(put("k")).await.unwrap();
    client.put(put("k")).await.unwrap();
    assert_eq!((old.state().writes.len(), new.state().writes.len()), (1, 2));
}

#[tokio::test]
async fn a_leader_is_followed_three_times_at_most() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let mut elsewhere = refusal(ErrorCode::NotLeader, v1::Outcome::NotApplied);
    elsewhere.leader_address.clone_from(&fake.address);
    fake.script(std::iter::repeat_n(Step::Refuse(elsewhere), 9));
    let error = client.put(put("k")).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::NotLeader, 4));
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    assert_eq!(fake.state().writes.len(), 4);
}

#[tokio::test]
async fn what_the_server_would_refuse_by_its_size_is_not_sent() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let long_key = client.put(Put::new("default", vec![0; 4097], "v")).await.unwrap_err();
    assert_eq!(long_key.code(), ErrorCode::KeyTooLarge);
    let long_value = client.put(Put::new("default", "k", vec![0; 100_001])).await.unwrap_err();
    assert_eq!(long_value.code(), ErrorCode::ValueTooLarge);
    assert!(long_value.to_string().contains("100001 bytes"), "{long_value}");
    assert!(fake.state().writes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_callers_share_256_lanes_and_each_record_is_written_once() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script(std::iter::repeat_n(Step::Serve, 500).chain([Step::ApplyAndCut]));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..300 {
        let client = client.clone();
        callers.spawn(async move {
            for round in 0..5 {
                let key = format!("{number}-{round}");
                client.put(Put::new("default", key, "v").timestamp_ms(1)).await?;
            }
            Ok::<(), ClientError>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().unwrap();
    }
    let last = client.put(put("last")).await.unwrap();
    assert_eq!(last.offset, 1501);
    let mut ids: Vec<u64> = fake.producers().iter().map(|producer| producer.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() <= 256, "{} lanes", ids.len());
    // Callers that lost one connection share the greeting of the next and what is asked over it.
    let asked = fake.state().metadata_calls;
    assert!((3..=8).contains(&asked), "asked {asked} times");
}

#[tokio::test]
async fn unary_calls_follow_the_same_rules() {
    let fake = Fake::start().await;
    let options = ClientOptions { transport: Transport::Unary, ..fake.options() };
    let client = Client::connect(options).await.unwrap();
    fake.script([Step::ApplyAndCut]);
    assert!(client.put(put("k")).await.unwrap().duplicate);
    let writes = fake.state().writes.clone();
    assert_eq!(writes[0], writes[1]);
    assert!(matches!(writes[0], Operation::Put(_)));
    let read = client.get(Get::new("default", "k")).await.unwrap();
    assert_eq!(read.value.unwrap().value, "value");
    fake.script([Step::Refuse(refusal(ErrorCode::VersionMismatch, v1::Outcome::NotApplied))]);
    let error = client.put(put("k").if_absent()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::VersionMismatch);
}
