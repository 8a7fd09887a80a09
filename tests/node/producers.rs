//! Writes that are sent again.

use prkdb_proto::v1::{DeleteRequest, Producer, PutRequest};
use tonic::Code;

use crate::rig::{Rig, delete, get, put, refused};

fn stamped(sequence: u32, key: &str, value: &str) -> PutRequest {
    let producer = Some(Producer { id: 77, epoch: 0, sequence });
    PutRequest { producer, timestamp_ms: 5, ..put(key, value) }
}

#[tokio::test]
async fn a_repeat_gets_the_answer_of_the_first_and_is_applied_once() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let first = kv.put(stamped(0, "k", "v")).await.unwrap().into_inner();
    kv.put(put("k", "other")).await.unwrap();
    let repeat = kv.put(stamped(0, "k", "v")).await.unwrap().into_inner();
    assert!(!first.duplicate && repeat.duplicate);
    assert_eq!(
        (repeat.partition, repeat.offset, repeat.revision, repeat.append_time_ms),
        (first.partition, first.offset, first.revision, first.append_time_ms)
    );
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"other");
    rig.stop().await;
}

#[tokio::test]
async fn a_repeat_that_overtakes_its_first_is_applied_once() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for sequence in 0..20 {
        let value = sequence.to_string();
        let (mut one, mut other) = (kv.clone(), kv.clone());
        let (a, b) = tokio::join!(
            one.put(stamped(sequence, "k", &value)),
            other.put(stamped(sequence, "k", &value))
        );
        let (a, b) = (a.unwrap().into_inner(), b.unwrap().into_inner());
        assert_eq!((a.offset, a.revision), (b.offset, b.revision));
        assert_eq!(a.offset, u64::from(sequence));
        assert!(a.duplicate != b.duplicate, "one of the two is the repeat");
    }
    assert_eq!(kv.get(get("k")).await.unwrap().into_inner().found.unwrap().version, 19);
    rig.stop().await;
}

#[tokio::test]
async fn a_sequence_is_used_for_one_write_and_leaves_no_gap() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let error = kv.put(stamped(3, "k", "v")).await.unwrap_err();
    refused(&error, Code::FailedPrecondition, "unknown_producer");
    kv.put(stamped(0, "k", "v")).await.unwrap();
    let error = kv.put(stamped(0, "k", "w")).await.unwrap_err();
    refused(&error, Code::InvalidArgument, "sequence_reused");
    let error = kv.put(stamped(2, "k", "w")).await.unwrap_err();
    refused(&error, Code::FailedPrecondition, "out_of_order");
    kv.put(stamped(1, "k", "w")).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_delete_that_is_sent_again_is_applied_once() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(stamped(0, "k", "v")).await.unwrap();
    let request = DeleteRequest {
        producer: Some(Producer { id: 77, epoch: 0, sequence: 1 }),
        timestamp_ms: 6,
        ..delete("k")
    };
    let first = kv.delete(request.clone()).await.unwrap().into_inner();
    let repeat = kv.delete(request).await.unwrap().into_inner();
    assert!(first.existed && repeat.duplicate);
    assert_eq!(repeat.offset, first.offset);
    rig.stop().await;
}

#[tokio::test]
async fn numbers_that_no_producer_has_are_refused() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for producer in [
        Producer { id: 1 << 63, epoch: 0, sequence: 0 },
        Producer { id: 1, epoch: 32_768, sequence: 0 },
        Producer { id: 1, epoch: 0, sequence: 1 << 31 },
    ] {
        let request = PutRequest { producer: Some(producer), ..put("k", "v") };
        let error = kv.put(request).await.unwrap_err();
        refused(&error, Code::InvalidArgument, "invalid_argument");
    }
    assert_eq!(kv.get(get("k")).await.unwrap().into_inner().found, None);
    rig.stop().await;
}
