//! Reads are repeated freely and end with the deadline.

use std::time::Duration;

use bytes::Bytes;
use prkdb_client::{Client, ClientError, ClientOptions, ErrorCode, Get, MultiGet, Put, Scan};
use tokio::time::Instant;

use crate::{
    proxy::Proxy,
    server::{Fake, Step},
};

#[tokio::test]
async fn a_key_that_was_put_is_read_and_one_that_was_not_is_no_error() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    client.put(Put::new("default", "a", "1")).await.unwrap();
    let read = client.get(Get::new("default", "a")).await.unwrap().value.unwrap();
    assert_eq!((read.value.as_ref(), read.version), (&b"1"[..], 1));
    assert_eq!(client.get(Get::new("default", "b")).await.unwrap().value, None);
    let keys = ["b", "a"].map(Bytes::from_static_str).to_vec();
    let reads = client.multi_get(MultiGet::new("default", keys)).await.unwrap();
    let found: Vec<bool> = reads.iter().map(|read| read.value.is_some()).collect();
    assert_eq!(found, [false, true]);
}

trait FromStatic {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStatic for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

#[tokio::test]
async fn a_read_whose_answer_was_lost_is_sent_again() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::Cut, Step::Cut]);
    client.get(Get::new("default", "a")).await.unwrap();
    assert_eq!(fake.state().reads, 3);
}

#[tokio::test]
async fn answers_come_back_to_whoever_asked_in_any_order() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    client.put(Put::new("default", "a", "1")).await.unwrap();
    fake.script([Step::Hold]);
    let slow = client.get(Get::new("default", "a"));
    let quick = async {
        fake.received(2).await;
        client.get(Get::new("default", "a")).await
    };
    tokio::select! {
        _ = slow => panic!("the first is never answered"),
        read = quick => assert!(read.unwrap().value.is_some()),
    }
}

#[tokio::test]
async fn a_read_past_its_deadline_is_a_timeout() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::Hold]);
    let deadline = Instant::now() + Duration::from_millis(300);
    let error =
        client.with_deadline(Some(deadline)).get(Get::new("default", "a")).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert_eq!(error.to_string(), "get: no answer within 300ms");
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::Deadline, 5));
}

#[tokio::test]
async fn a_deadline_of_the_caller_replaces_the_timeout() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::Hold]);
    let hurried = client.with_deadline(Some(Instant::now()));
    let error = hurried.get(Get::new("default", "a")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Deadline);
}

#[tokio::test]
async fn a_scan_gives_its_rows_in_order_and_then_its_count() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let mut scan = client.scan(Scan::new("default").prefix("x")).await.unwrap();
    assert_eq!(scan.revisions().len(), 1);
    let mut keys = Vec::new();
    while let Some(row) = scan.next_row().await.unwrap() {
        assert_eq!(scan.count().is_some(), row.key == "c");
        keys.push(row.key);
    }
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(scan.finish().await.unwrap(), 3);
}

#[tokio::test]
async fn a_scan_that_was_cut_short_is_an_error() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    fake.script([Step::Cut]);
    let mut scan = client.scan(Scan::new("default")).await.unwrap();
    assert!(scan.next_row().await.unwrap().is_some());
    let error = scan.next_row().await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
}

#[tokio::test]
async fn a_scan_whose_reader_waits_holds_up_nothing_else() {
    let fake = Fake::start().await;
    fake.state().large_pages = 40;
    let client = fake.client().await;
    let mut scan = client.scan(Scan::new("default")).await.unwrap();
    let mut rows = 0;
    // As often as the server has filled the window of the connection, which is 16 MiB, a few are read.
    for pages in [17, 20, 23] {
        fake.received(pages).await;
        for _ in 0..3 {
            assert!(scan.next_row().await.unwrap().is_some());
            rows += 1;
        }
    }
    for key in ["a", "b", "c"] {
        client.put(Put::new("default", key, "1")).await.unwrap();
        assert!(client.get(Get::new("default", key)).await.unwrap().value.is_some());
    }
    while scan.next_row().await.unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, 40 + 3);
}

#[tokio::test]
async fn a_connection_serves_one_scan_after_the_other_if_each_is_read_to_its_end() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    for _ in 0..3 {
        client.scan(Scan::new("default")).await.unwrap().finish().await.unwrap();
    }
    // Each connection begins with a call of its own.
    assert_eq!(fake.state().metadata_calls, 2);
    let mut left = client.scan(Scan::new("default")).await.unwrap();
    assert!(left.next_row().await.unwrap().is_some());
    drop(left);
    client.scan(Scan::new("default")).await.unwrap().finish().await.unwrap();
    assert_eq!(fake.state().metadata_calls, 3);
    client.scan(Scan::new("default").count_only()).await.unwrap().finish().await.unwrap();
    assert_eq!(fake.state().metadata_calls, 3);
}

#[tokio::test]
async fn a_connection_that_was_cut_while_nobody_used_it_costs_a_scan_nothing() {
    let fake = Fake::start().await;
    let proxy = Proxy::start(&fake.address).await;
    let options = ClientOptions { servers: vec![proxy.endpoint.clone()], ..fake.options() };
    let client = Client::connect(options).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.scan(Scan::new("default")).await.unwrap().finish().await.unwrap(), 3);
        proxy.cut();
    }
}
