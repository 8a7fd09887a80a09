//! Single operations over one stream.

use std::collections::{BTreeMap, BTreeSet};

use prkdb_proto::v1::{
    ErrorDetail, ExchangeRequest, GetRequest, MultiGetRequest, exchange_reply::Result as Answer,
    exchange_request::Operation,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, iter, wrappers::ReceiverStream};

use crate::rig::{NOT_APPLIED, Rig, delete, get, partition_of, put};

fn ask(id: u64, operation: Operation) -> ExchangeRequest {
    ExchangeRequest { id, timeout_ms: 0, operation: Some(operation) }
}

/// Sends all requests, ends the stream, and returns the answers by id.
async fn exchange(rig: &Rig, requests: Vec<ExchangeRequest>) -> BTreeMap<u64, Answer> {
    let count = requests.len();
    let mut replies = rig.kv().exchange(iter(requests)).await.unwrap().into_inner();
    let mut answers = BTreeMap::new();
    while let Some(reply) = replies.message().await.unwrap() {
        let twice = answers.insert(reply.id, reply.result.unwrap());
        assert_eq!(twice, None, "{} was answered twice", reply.id);
    }
    assert_eq!(answers.len(), count, "every request has an answer before the stream ends");
    answers
}

fn refusal(answer: &Answer) -> &ErrorDetail {
    match answer {
        Answer::Error(detail) => detail,
        other => panic!("{other:?} is no refusal"),
    }
}

#[tokio::test]
async fn every_operation_is_answered_once_under_its_id() {
    let rig = Rig::start().await;
    let puts = (0..1000_u64)
        .map(|id| ask(id, Operation::Put(put(&format!("key-{id:04}"), &id.to_string()))));
    let answers = exchange(&rig, puts.collect()).await;
    let mut places = BTreeSet::new();
    for (id, answer) in answers {
        let Answer::Write(written) = answer else { panic!("{id}: {answer:?}") };
        assert!(places.insert((written.partition, written.offset)), "{id}: a place of its own");
    }

    let gets = (0..1000_u64).map(|id| ask(id, Operation::Get(get(&format!("key-{id:04}")))));
    for (id, answer) in exchange(&rig, gets.collect()).await {
        let Answer::Get(reply) = answer else { panic!("{id}: {answer:?}") };
        assert_eq!(reply.found.unwrap().value, id.to_string());
    }
    rig.stop().await;
}

#[tokio::test]
async fn writes_of_one_stream_are_decided_in_order() {
    let rig = Rig::start().await;
    let puts = (0..200_u64).map(|id| ask(id, Operation::Put(put("k", &id.to_string()))));
    for (id, answer) in exchange(&rig, puts.collect()).await {
        let Answer::Write(written) = answer else { panic!("{id}: {answer:?}") };
        assert_eq!(written.offset, id);
        assert_eq!(written.existed, id > 0);
    }
    let found = rig.kv().get(get("k")).await.unwrap().into_inner().found.unwrap();
    assert_eq!(&found.value[..], b"199");
    rig.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_read_on_the_same_stream() {
    let rig = Rig::start().await;
    let (requests, queue) = mpsc::channel(1);
    let mut replies = rig.kv().exchange(ReceiverStream::new(queue)).await.unwrap().into_inner();
    for round in 0..50_u64 {
        let value = round.to_string();
        requests.send(ask(2 * round, Operation::Put(put("k", &value)))).await.unwrap();
        let reply = replies.next().await.unwrap().unwrap();
        assert!(matches!(reply.result, Some(Answer::Write(_))), "{reply:?}");
        requests.send(ask(2 * round + 1, Operation::Get(get("k")))).await.unwrap();
        let reply = replies.next().await.unwrap().unwrap();
        assert_eq!(reply.id, 2 * round + 1);
        let Some(Answer::Get(read)) = reply.result else { panic!("{reply:?}") };
        assert_eq!(read.found.unwrap().value, value);
    }
    drop(requests);
    assert!(replies.message().await.unwrap().is_none());
    rig.stop().await;
}

#[tokio::test]
async fn one_refusal_leaves_the_others_alone() {
    let rig = Rig::start().await;
    let wrong = (partition_of(b"b", 3) + 1) % 3;
    let mut misplaced = put("b", "x");
    misplaced.partition = Some(wrong);
    let keys = vec!["a".into(), "".into()];
    let many = MultiGetRequest { collection: "default".into(), keys, consistency: 0 };
    let elsewhere = GetRequest { collection: "nowhere".into(), ..get("a") };
    let answers = exchange(
        &rig,
        vec![
            ask(1, Operation::Put(put("a", "x"))),
            ask(2, Operation::Put(put("", "x"))),
            ask(3, Operation::Put(misplaced)),
            ask(4, Operation::Get(elsewhere)),
            ExchangeRequest { id: 5, timeout_ms: 0, operation: None },
            ask(6, Operation::Delete(delete("a"))),
            ask(7, Operation::MultiGet(many)),
        ],
    )
    .await;
    assert!(matches!(answers[&1], Answer::Write(_)), "{:?}", answers[&1]);
    for (id, code) in [(2, "key_empty"), (3, "wrong_partition"), (5, "invalid_argument")] {
        let detail = refusal(&answers[&id]);
        assert_eq!((detail.code.as_str(), detail.outcome), (code, NOT_APPLIED), "{id}");
        assert!(!detail.message.is_empty());
    }
    assert_eq!(refusal(&answers[&4]).code, "collection_not_found");
    let Answer::Write(deleted) = &answers[&6] else { panic!("{:?}", answers[&6]) };
    assert!(deleted.existed);
    assert_eq!(refusal(&answers[&7]).code, "key_empty");
    rig.stop().await;
}

#[tokio::test]
async fn a_conditional_write_tells_the_version_there_is() {
    use prkdb_proto::v1::put_request::Condition;
    let rig = Rig::start().await;
    let mut only = put("k", "2");
    only.condition = Some(Condition::IfAbsent(true));
    let requests = vec![ask(1, Operation::Put(put("k", "1"))), ask(2, Operation::Put(only))];
    let answers = exchange(&rig, requests).await;
    let Answer::Write(first) = &answers[&1] else { panic!("{:?}", answers[&1]) };
    let detail = refusal(&answers[&2]);
    assert_eq!(detail.code, "version_mismatch");
    assert_eq!(detail.current_version, Some(first.offset));
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_leaves_the_node_serving() {
    let rig = Rig::start().await;
    for _ in 0..20 {
        let puts = (0..50_u64).map(|id| ask(id, Operation::Put(put(&id.to_string(), "x"))));
        let requests: Vec<_> = puts.collect();
        let replies = rig.kv().exchange(iter(requests)).await.unwrap().into_inner();
        drop(replies);
    }
    let answers = exchange(&rig, vec![ask(9, Operation::Put(put("k", "v")))]).await;
    assert!(matches!(answers[&9], Answer::Write(_)));
    rig.stop().await;
}
