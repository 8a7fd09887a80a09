//! Keys in order.

use std::collections::BTreeMap;

use prkdb_proto::v1::{PutRequest, ScanRequest, scan_reply::Row};
use tonic::Code;

use crate::rig::{Rig, delete, put, refused};

#[derive(Debug, Default)]
struct Scanned {
    rows: Vec<Row>,
    count: Option<u64>,
    revisions: BTreeMap<u32, u64>,
    pages: usize,
}

impl Scanned {
    fn keys(&self) -> Vec<String> {
        self.rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
    }
}

fn all() -> ScanRequest {
    ScanRequest { collection: "default".into(), ..ScanRequest::default() }
}

async fn scan(rig: &Rig, request: ScanRequest) -> Scanned {
    let mut replies = rig.kv().scan(request).await.unwrap().into_inner();
    let mut scanned = Scanned::default();
    while let Some(page) = replies.message().await.unwrap() {
        assert_eq!(scanned.count, None, "the count comes last");
        if scanned.pages == 0 {
            scanned.revisions =
                page.revisions.iter().map(|shard| (shard.shard, shard.revision)).collect();
        } else {
            assert!(page.revisions.is_empty(), "revisions come first");
        }
        scanned.pages += 1;
        scanned.rows.extend(page.rows);
        scanned.count = page.count;
    }
    scanned
}

async fn filled(shards: u32) -> Rig {
    let rig = Rig::with(|config| config.shards = shards).await;
    let mut kv = rig.kv();
    for number in 0..100 {
        kv.put(put(&format!("key-{number:03}"), &number.to_string())).await.unwrap();
    }
    rig
}

fn expected(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|number| format!("key-{number:03}")).collect()
}

#[tokio::test]
async fn keys_of_all_partitions_come_in_one_order() {
    let rig = filled(1).await;
    let scanned = scan(&rig, all()).await;
    assert_eq!(scanned.keys(), expected(0..100));
    assert_eq!(scanned.count, Some(100));
    assert_eq!(scanned.revisions.len(), 1);
    for (number, row) in scanned.rows.iter().enumerate() {
        assert_eq!(row.value, number.to_string());
    }
    rig.stop().await;
}

#[tokio::test]
async fn keys_of_all_shards_come_in_one_order() {
    let rig = filled(3).await;
    let scanned = scan(&rig, all()).await;
    assert_eq!(scanned.keys(), expected(0..100));
    assert_eq!(scanned.revisions.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    let reverse = scan(&rig, ScanRequest { reverse: true, limit: 40, ..all() }).await;
    assert_eq!(reverse.keys(), expected((60..100).rev()));
    let count = scan(&rig, ScanRequest { count_only: true, ..all() }).await;
    assert_eq!((count.count, count.rows.len()), (Some(100), 0));
    rig.stop().await;
}

#[tokio::test]
async fn bounds_prefix_and_limit_narrow_it_together() {
    let rig = filled(1).await;
    let bytes = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    let prefix = ScanRequest { prefix: bytes("key-04"), ..all() };
    assert_eq!(scan(&rig, prefix.clone()).await.keys(), expected(40..50));
    let range = ScanRequest { from: bytes("key-010"), to: bytes("key-013"), ..all() };
    assert_eq!(scan(&rig, range.clone()).await.keys(), expected(10..13));
    let both = ScanRequest { prefix: bytes("key-01"), ..range.clone() };
    assert_eq!(scan(&rig, both).await.keys(), expected(10..13));
    let open = ScanRequest { from: bytes("key-097"), ..all() };
    assert_eq!(scan(&rig, open).await.keys(), expected(97..100));
    let limited = scan(&rig, ScanRequest { limit: 3, ..prefix.clone() }).await;
    assert_eq!((limited.keys(), limited.count), (expected(40..43), Some(3)));
    let last = ScanRequest { limit: 2, reverse: true, ..prefix };
    assert_eq!(scan(&rig, last).await.keys(), expected([49, 48].into_iter()));
    rig.stop().await;
}

#[tokio::test]
async fn ranges_without_keys_are_empty() {
    let rig = filled(1).await;
    let bytes = bytes::Bytes::from_static;
    for request in [
        ScanRequest { from: bytes(b"key-050"), to: bytes(b"key-010"), ..all() },
        ScanRequest { from: bytes(b"key-050"), to: bytes(b"key-050"), ..all() },
        ScanRequest { prefix: bytes(b"\xff\xff"), ..all() },
        ScanRequest { prefix: bytes(b"zzz"), reverse: true, ..all() },
    ] {
        let scanned = scan(&rig, request).await;
        assert_eq!((scanned.rows.len(), scanned.count), (0, Some(0)));
        assert_eq!(scanned.revisions.len(), 1);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_prefix_of_the_highest_bytes_finds_its_keys() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let keys: [&'static [u8]; 4] = [b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\x01"];
    for key in keys {
        kv.put(PutRequest { key: key.into(), ..put("", "v") }).await.unwrap();
    }
    let request = ScanRequest { prefix: (&b"\xff\xff"[..]).into(), ..all() };
    let found: Vec<_> = scan(&rig, request).await.rows.into_iter().map(|row| row.key).collect();
    assert_eq!(found, [&keys[2], &keys[3]]);
    rig.stop().await;
}

#[tokio::test]
async fn deleted_keys_are_gone_and_rewritten_ones_come_once() {
    let rig = filled(1).await;
    let mut kv = rig.kv();
    for number in (0..100).step_by(2) {
        kv.delete(delete(&format!("key-{number:03}"))).await.unwrap();
    }
    kv.put(put("key-001", "new")).await.unwrap();
    let scanned = scan(&rig, all()).await;
    assert_eq!(scanned.keys(), expected((1..100).step_by(2)));
    assert_eq!(&scanned.rows[0].value[..], b"new");
    rig.stop().await;
}

#[tokio::test]
async fn keys_come_without_values_if_asked_so() {
    let rig = filled(1).await;
    let scanned = scan(&rig, ScanRequest { keys_only: true, ..all() }).await;
    assert_eq!(scanned.keys(), expected(0..100));
    assert!(scanned.rows.iter().all(|row| row.value.is_empty()));
    rig.stop().await;
}

#[tokio::test]
async fn large_values_come_in_pages_that_hold_a_mebibyte_or_one_row() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let value = "x".repeat(700 << 10);
    for number in 0..6 {
        kv.put(put(&format!("key-{number:03}"), &value)).await.unwrap();
    }
    let scanned = scan(&rig, all()).await;
    assert_eq!(scanned.keys(), expected(0..6));
    assert!(scanned.pages >= 3, "{} pages", scanned.pages);
    assert!(scanned.rows.iter().all(|row| row.value == value));
    rig.stop().await;
}

#[tokio::test]
async fn a_scan_reads_one_revision() {
    let rig = filled(1).await;
    let mut kv = rig.kv();
    // The first page is read, then everything is deleted before the rest is.
    let mut replies = rig.kv().scan(all()).await.unwrap().into_inner();
    let first = replies.message().await.unwrap().unwrap();
    for number in 0..100 {
        kv.delete(delete(&format!("key-{number:03}"))).await.unwrap();
    }
    let mut rows = first.rows.len();
    let mut count = first.count;
    while let Some(page) = replies.message().await.unwrap() {
        rows += page.rows.len();
        count = page.count;
    }
    assert_eq!((rows, count), (100, Some(100)));
    assert_eq!(scan(&rig, all()).await.count, Some(0));
    rig.stop().await;
}

#[tokio::test]
async fn an_unknown_collection_is_not_scanned() {
    let rig = Rig::start().await;
    let request = ScanRequest { collection: "nowhere".into(), ..all() };
    let error = match rig.kv().scan(request).await {
        Err(status) => status,
        Ok(reply) => reply.into_inner().message().await.unwrap_err(),
    };
    refused(&error, Code::NotFound, "collection_not_found");
    rig.stop().await;
}
