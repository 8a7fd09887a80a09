//! Writes that hold only under a condition.

use prkdb_proto::v1::{DeleteRequest, PutRequest, put_request::Condition};
use tonic::Code;

use crate::rig::{Rig, delete, detail, get, put, refused};

fn only(condition: Condition, key: &str, value: &str) -> PutRequest {
    PutRequest { condition: Some(condition), ..put(key, value) }
}

#[tokio::test]
async fn if_absent_holds_once_until_the_key_is_deleted() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let first = kv.put(only(Condition::IfAbsent(true), "k", "1")).await.unwrap().into_inner();
    let error = kv.put(only(Condition::IfAbsent(true), "k", "2")).await.unwrap_err();
    refused(&error, Code::Aborted, "version_mismatch");
    assert_eq!(detail(&error).current_version, Some(first.offset));

    kv.delete(delete("k")).await.unwrap();
    kv.put(only(Condition::IfAbsent(true), "k", "3")).await.unwrap();
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"3");
    rig.stop().await;
}

#[tokio::test]
async fn if_version_holds_for_the_latest_version_only() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let error = kv.put(only(Condition::IfVersion(0), "k", "x")).await.unwrap_err();
    refused(&error, Code::Aborted, "version_mismatch");
    assert_eq!(detail(&error).current_version, None, "the key has no value");

    let first = kv.put(put("k", "1")).await.unwrap().into_inner().offset;
    let second =
        kv.put(only(Condition::IfVersion(first), "k", "2")).await.unwrap().into_inner().offset;
    let error = kv.put(only(Condition::IfVersion(first), "k", "3")).await.unwrap_err();
    refused(&error, Code::Aborted, "version_mismatch");
    assert_eq!(detail(&error).current_version, Some(second));

    let stale = DeleteRequest { if_version: Some(first), ..delete("k") };
    refused(&kv.delete(stale).await.unwrap_err(), Code::Aborted, "version_mismatch");
    let right = DeleteRequest { if_version: Some(second), ..delete("k") };
    assert!(kv.delete(right).await.unwrap().into_inner().existed);
    rig.stop().await;
}

#[tokio::test]
async fn of_many_who_ask_for_the_same_version_one_wins() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    let version = kv.put(put("k", "0")).await.unwrap().into_inner().offset;
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..32 {
        let mut kv = kv.clone();
        tries.spawn(async move {
            let value = number.to_string();
            kv.put(only(Condition::IfVersion(version), "k", &value)).await.map(|_| value)
        });
    }
    let mut winners = Vec::new();
    for result in tries.join_all().await {
        match result {
            Ok(value) => winners.push(value),
            Err(status) => refused(&status, Code::Aborted, "version_mismatch"),
        }
    }
    assert_eq!(winners.len(), 1);
    let found = kv.get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(found.value, winners[0]);
    rig.stop().await;
}

#[tokio::test]
async fn counters_under_if_version_lose_nothing() {
    let rig = Rig::start().await;
    let mut kv = rig.kv();
    kv.put(put("n", "0")).await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut kv = kv.clone();
        workers.spawn(async move {
            let mut done = 0;
            while done < 10 {
                let found = kv.get(get("n")).await.unwrap().into_inner().found.unwrap();
                let count: u32 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
                let next = (count + 1).to_string();
                match kv.put(only(Condition::IfVersion(found.version), "n", &next)).await {
                    Ok(_) => done += 1,
                    Err(status) => refused(&status, Code::Aborted, "version_mismatch"),
                }
            }
        });
    }
    workers.join_all().await;
    let found = kv.get(get("n")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"40");
    rig.stop().await;
}
