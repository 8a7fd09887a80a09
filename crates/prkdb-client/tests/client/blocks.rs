//! Blocking calls do what the others do, and refuse to block a runtime.

use std::{collections::BTreeMap, thread};

use prkdb_client::{
    ClientError, ClientOptions, ConsumerOptions, Delete, ErrorKind, Get, ProducerOptions, Put,
    Record, blocking,
};
use tokio::sync::oneshot;

use crate::server::Fake;

/// Does blocking work on a thread of its own while the server runs on this one.
async fn apart<T: Send + 'static>(
    options: ClientOptions,
    work: impl FnOnce(blocking::Client) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let client = blocking::Client::connect(options).unwrap();
        // A test that failed does not listen.
        let _gone = sender.send(work(client));
    });
    receiver.await.unwrap()
}

#[tokio::test]
async fn keys_are_written_and_read() {
    let fake = Fake::start().await;
    apart(fake.options(), |client| {
        let written = client.put(Put::new("default", "a", "1")).unwrap();
        let read = client.get(Get::new("default", "a")).unwrap().value.unwrap();
        assert_eq!((read.value.as_ref(), read.version), (&b"1"[..], written.offset));
        assert!(client.delete(Delete::new("default", "a")).unwrap().existed);
        assert!(client.get(Get::new("default", "a")).unwrap().value.is_none());
        assert_eq!(client.partitions("default").unwrap().count(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_is_produced_is_consumed() {
    let fake = Fake::start().await;
    fake.state().partitions = 1;
    apart(fake.options(), |client| {
        // Small enough that the sender has to wait for room.
        let options = ProducerOptions { buffer_bytes: 1_000, ..ProducerOptions::default() };
        let producer = blocking::Producer::open(&client, "events", options).unwrap();
        let first = producer.send(Record::new(&0_u32.to_be_bytes())).unwrap();
        for number in 1_u32..1_000 {
            producer.send(Record::new(&number.to_be_bytes())).unwrap();
        }
        assert_eq!(producer.wait(first).unwrap().offset, 0);
        producer.flush().unwrap();
        producer.close().unwrap();
        assert_eq!(producer.counts().records, 1_000);
        let until = BTreeMap::from([(0, 1_000)]);
        let options = ConsumerOptions { until, ..ConsumerOptions::default() };
        let mut consumer = blocking::Consumer::open(&client, "events", options).unwrap();
        let batch = consumer.next_batch().unwrap().unwrap();
        let rest = batch.next_offset();
        for (number, record) in (rest..).zip(&mut consumer) {
            let value = u32::try_from(number).unwrap().to_be_bytes();
            assert_eq!(record.unwrap().value.as_deref(), Some(&value[..]));
        }
        assert_eq!(consumer.position(0), Some(1_000));
        assert_eq!(consumer.high_watermark(0), Some(1_000));
        assert!(consumer.next().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_runtime_is_not_blocked_and_nothing_panics_in_it() {
    let fake = Fake::start().await;
    let error = blocking::Client::connect(fake.options()).unwrap_err();
    assert!(matches!(error, ClientError::InsideRuntime), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let (client, producer, mut consumer) = apart(fake.options(), |client| {
        let options = ProducerOptions { buffer_bytes: 1, ..ProducerOptions::default() };
        let producer = blocking::Producer::open(&client, "events", options).unwrap();
        let options = ConsumerOptions::default();
        let consumer = blocking::Consumer::open(&client, "events", options).unwrap();
        (client, producer, consumer)
    })
    .await;
    let refused = |error: ClientError| matches!(error, ClientError::InsideRuntime);
    assert!(refused(client.get(Get::new("default", "a")).unwrap_err()));
    assert!(refused(producer.flush().unwrap_err()));
    assert!(refused(consumer.next_batch().unwrap_err()));
    assert!(refused(consumer.next().unwrap().unwrap_err()));
    fake.hold_acks();
    // What needs no waiting is done.
    let delivery = producer.send(Record::new(b"1")).unwrap();
    assert!(refused(producer.send(Record::new(b"2")).unwrap_err()));
    drop((client, producer, consumer));
    assert!(delivery.await.is_err());
}
