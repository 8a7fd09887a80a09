//! Single keys over the unary calls.

use prkdb_proto::v1::{Consistency, DeleteRequest, GetRequest, MultiGetRequest, PutRequest};
use tonic::Code;

use crate::rig::{Rig, delete, detail, get, partition_of, put, refused};

#[tokio::test]
async fn a_value_reads_back_with_its_version_partition_and_time() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let request = PutRequest { timestamp_ms: 1_385_251_200_000, ..put("tail", "N14228") };
    let written = kv.put(request).await.unwrap().into_inner();
    assert_eq!(written.partition, partition_of(b"tail", 3));
    assert!(!written.existed && !written.duplicate);
    assert!(written.revision > 0 && written.append_time_ms > 0);

    let reply = kv.get(get("tail")).await.unwrap().into_inner();
    let found = reply.found.unwrap();
    assert_eq!(&found.value[..], b"N14228");
    assert_eq!((found.version, found.partition), (written.offset, written.partition));
    assert_eq!(found.timestamp_ms, 1_385_251_200_000);
    assert!(reply.revision >= written.revision);
    rig.stop().await;
}

#[tokio::test]
async fn offsets_of_a_partition_are_dense_and_versions_are_offsets() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let mut next = [0_u64; 3];
    for round in 0..40 {
        let key = format!("key-{}", round % 13);
        let written = kv.put(put(&key, &round.to_string())).await.unwrap().into_inner();
        let partition = usize::try_from(written.partition).unwrap();
        assert_eq!(written.offset, next[partition]);
        next[partition] += 1;
        let found = kv.get(get(&key)).await.unwrap().into_inner().found.unwrap();
        assert_eq!(found.version, written.offset);
    }
    assert!(next.iter().all(|count| *count > 0), "13 keys touch three partitions: {next:?}");
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_value_is_a_value_and_an_absent_key_has_none() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    assert_eq!(kv.get(get("k")).await.unwrap().into_inner().found, None);
    kv.put(put("k", "")).await.unwrap();
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert!(found.value.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn keys_and_values_are_bytes() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let key = vec![0, 0xff, b'\n', 0, 0xc3];
    let value: Vec<u8> = (0..=255).collect();
    let request =
        PutRequest { key: key.clone().into(), value: value.clone().into(), ..put("", "") };
    kv.put(request).await.unwrap();
    let request = GetRequest { key: key.into(), ..get("") };
    let found = kv.get(request).await.unwrap().into_inner().found.unwrap();
    assert_eq!(found.value, value);
    rig.stop().await;
}

#[tokio::test]
async fn a_delete_removes_and_a_delete_of_nothing_leaves_the_log_alone() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let absent = kv.delete(delete("k")).await.unwrap().into_inner();
    assert_eq!((absent.existed, absent.offset), (false, 0));
    assert_eq!(rig.log_ends("default").await.iter().sum::<u64>(), 0);

    let written = kv.put(put("k", "v")).await.unwrap().into_inner();
    let deleted = kv.delete(delete("k")).await.unwrap().into_inner();
    assert!(deleted.existed);
    assert_eq!(deleted.offset, written.offset + 1);
    assert_eq!(kv.get(get("k")).await.unwrap().into_inner().found, None);
    assert!(!kv.delete(delete("k")).await.unwrap().into_inner().existed);
    assert_eq!(rig.log_ends("default").await.iter().sum::<u64>(), 2);

    // The next value continues the partition, it does not begin again.
    let again = kv.put(put("k", "w")).await.unwrap().into_inner();
    assert_eq!((again.offset, again.existed), (deleted.offset + 1, false));
    rig.stop().await;
}

#[tokio::test]
async fn the_value_that_was_replaced_comes_back_if_asked_for() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let want = |value| PutRequest { want_previous: true, ..put("k", value) };
    let first = kv.put(want("1")).await.unwrap().into_inner();
    assert_eq!((first.existed, first.previous), (false, None));
    let second = kv.put(want("2")).await.unwrap().into_inner();
    assert_eq!((second.existed, second.previous.as_deref()), (true, Some(&b"1"[..])));
    let silent = kv.put(put("k", "3")).await.unwrap().into_inner();
    assert_eq!((silent.existed, silent.previous), (true, None));
    let request = DeleteRequest { want_previous: true, ..delete("k") };
    let deleted = kv.delete(request).await.unwrap().into_inner();
    assert_eq!(deleted.previous.as_deref(), Some(&b"3"[..]));
    rig.stop().await;
}

#[tokio::test]
async fn many_keys_are_answered_in_the_order_asked() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for key in ["a", "b", "c"] {
        kv.put(put(key, &key.repeat(3))).await.unwrap();
    }
    let keys = ["c", "missing", "a", "c"];
    let request = MultiGetRequest {
        collection: "default".into(),
        keys: keys.iter().map(|key| key.as_bytes().into()).collect(),
        consistency: 0,
    };
    let replies = kv.multi_get(request).await.unwrap().into_inner().replies;
    let values: Vec<_> = replies
        .into_iter()
        .map(|reply| reply.found.map(|found| String::from_utf8(found.value.to_vec()).unwrap()))
        .collect();
    let expected = [Some("ccc"), None, Some("aaa"), Some("ccc")];
    assert_eq!(values, expected.map(|value| value.map(str::to_owned)));
    rig.stop().await;
}

#[tokio::test]
async fn every_consistency_sees_an_acknowledged_write_and_an_unknown_one_is_refused() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(put("k", "v")).await.unwrap();
    for consistency in [Consistency::Linearizable, Consistency::Stale, Consistency::Follower] {
        let request = GetRequest { consistency: consistency.into(), ..get("k") };
        assert!(kv.get(request).await.unwrap().into_inner().found.is_some(), "{consistency:?}");
    }
    let unknown = kv.get(GetRequest { consistency: 77, ..get("k") }).await.unwrap_err();
    refused(&unknown, Code::InvalidArgument, "invalid_argument");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let absent = "nowhere".to_owned();
    let error = kv.get(GetRequest { collection: absent.clone(), ..get("k") }).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");
    assert!(detail(&error).message.contains("nowhere"), "{error:?}");
    let error = kv.put(PutRequest { collection: absent, ..put("k", "v") }).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");

    let error = kv.put(PutRequest { partition: Some(3), ..put("k", "v") }).await.unwrap_err();
    refused(&error, Code::NotFound, "partition_not_found");
    let wrong = (partition_of(b"k", 3) + 1) % 3;
    let error = kv.put(PutRequest { partition: Some(wrong), ..put("k", "v") }).await.unwrap_err();
    refused(&error, Code::InvalidArgument, "wrong_partition");
    let right = PutRequest { partition: Some(partition_of(b"k", 3)), ..put("k", "v") };
    assert_eq!(kv.put(right).await.unwrap().into_inner().offset, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_name_that_none_can_have_is_refused() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    for name in ["", "../../etc/passwd", ".", "a b", &"x".repeat(250)] {
        let request = GetRequest { collection: name.to_owned(), ..get("k") };
        let error = kv.get(request).await.unwrap_err();
        refused(&error, Code::InvalidArgument, "invalid_argument");
    }
    rig.stop().await;
}
