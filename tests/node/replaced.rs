//! Collections that are dropped while somebody produces, and others of the same name.

use prkdb_proto::v1::DropCollectionRequest;
use prkdb_types::Compression;
use tonic::Code;

use crate::{
    rig::{Rig, refused},
    streams::{EVENTS, Producer, create, encode, records},
};

#[tokio::test]
async fn what_is_produced_does_not_go_into_another_collection_of_the_same_name() {
    let rig = Rig::start().await;
    create(&rig, 2).await;
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    producer.produce(0, 1, 5, 20).await;
    rig.collections().drop(DropCollectionRequest { name: EVENTS.to_owned() }).await.unwrap();
    create(&rig, 2).await;
    // The first batch of this partition has a sequence that a new partition would take.
    let batch = encode(&records(0, 5, 20), 0, Compression::None);
    let answer = producer.send(1, batch.clone()).await;
    assert_eq!(answer, Err("collection_not_found".to_owned()));
    let before = producer.collection_id;
    let status = Producer::open_again(&rig, EVENTS, before).await.map(drop).unwrap_err();
    refused(&status, Code::NotFound, "collection_not_found");
    assert_eq!(rig.log_ends(EVENTS).await, [0, 0]);
    let producer = Producer::open(&rig, EVENTS).await.unwrap();
    let now = producer.collection_id;
    let mut producer = Producer::open_again(&rig, EVENTS, now).await.unwrap();
    assert_eq!(producer.send(1, batch).await, Ok(0));
    rig.stop().await;
}
