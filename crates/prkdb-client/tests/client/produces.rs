//! A producer's records are applied once, in order per partition, and each learns what became of it.

use std::{collections::BTreeMap, time::Duration};

use prkdb_client::{
    Client, ClientError, ClientOptions, Compression, Delivered, ErrorCode, Outcome, Producer,
    ProducerCounts, ProducerOptions, Record,
};
use prkdb_proto::v1;
use prkdb_types::{DecompressLimit, PartitionTable, Partitioner, SharedRecord};
use tokio::time::timeout;

use crate::server::{Fake, MESSAGE_BYTES_MAX, Step, refusal};

const HOUR: Duration = Duration::from_hours(1);

async fn open(fake: &Fake, options: ProducerOptions) -> Producer {
    Producer::open(&fake.client().await, "events", options).await.unwrap()
}

/// Fills batches of `records` records and sends none before it is full or flushed.
fn full(records: u32) -> ProducerOptions {
    ProducerOptions { batch_records: records, linger: HOUR, ..ProducerOptions::default() }
}

/// Returns the records of a partition's log, and checks that their offsets have no gap.
fn log(fake: &Fake, partition: u32) -> Vec<SharedRecord> {
    let log = fake.state().stream.log.get(&partition).cloned().unwrap_or_default();
    let records: Vec<SharedRecord> = log
        .iter()
        .flat_map(|batch| batch.records(DecompressLimit::new(64 << 20)).unwrap().into_iter())
        .map(Result::unwrap)
        .collect();
    assert!(records.iter().map(|record| record.offset).eq(0..records.len().try_into().unwrap()));
    records
}

/// Returns the values of a partition's log, which the tests write as numbers.
fn numbers(fake: &Fake, partition: u32) -> Vec<u32> {
    let number = |record: &SharedRecord| {
        u32::from_be_bytes(record.value.as_ref().unwrap().as_ref().try_into().unwrap())
    };
    log(fake, partition).iter().map(number).collect()
}

/// Returns the partition and record count of each batch that came.
fn batches(fake: &Fake) -> Vec<(u32, u32)> {
    let seen = fake.state().batches.clone();
    let count = |bytes| prkdb_types::Batch::parse(bytes).unwrap().header().record_count();
    seen.into_iter().map(|seen| (seen.partition, count(seen.bytes))).collect()
}

#[tokio::test]
async fn every_record_is_applied_once_and_learns_where() {
    let fake = Fake::start().await;
    let producer = open(&fake, ProducerOptions::default()).await;
    let mut sent = Vec::new();
    for number in 0_u32..2_000 {
        let (key, value) = ((number % 50).to_be_bytes(), number.to_be_bytes());
        let mut record = Record::new(&value).timestamp_ms(i64::from(number));
        if number % 3 == 0 {
            record = record.key(&key);
        }
        sent.push((number, producer.send(record).await.unwrap()));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let logs: Vec<Vec<u32>> = {
        producer.flush().await.unwrap();
        (0..3).map(|partition| numbers(&fake, partition)).collect()
    };
    for (number, delivery) in sent {
        let Delivered { partition, offset, append_time_ms } = delivery.await.unwrap();
        let log = &logs[usize::try_from(partition).unwrap()];
        assert_eq!(log[usize::try_from(offset).unwrap()], number);
        assert_eq!(append_time_ms, 1_000);
    }
    assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), 2_000);
    let counts = producer.counts();
    assert_eq!((counts.records, counts.duplicates, counts.failed_batches), (2_000, 0, 0));
    assert_eq!(counts.batches, u64::try_from(batches(&fake).len()).unwrap());
}

#[tokio::test]
async fn keys_go_where_the_server_looks_for_them() {
    for (wire, own) in
        [(v1::Partitioner::Ring, Partitioner::Ring), (v1::Partitioner::Kafka, Partitioner::Kafka)]
    {
        let fake = Fake::start().await;
        fake.state().partitions = 7;
        fake.state().stream.partitioner = wire;
        let producer = open(&fake, full(100)).await;
        for number in 0_u32..500 {
            let key = number.to_be_bytes();
            producer.send(Record::new(&key).key(&key)).await.unwrap();
        }
        producer.close().await.unwrap();
        let table = PartitionTable::shared(own, 7);
        let mut count = 0;
        for partition in 0..7 {
            for record in log(&fake, partition) {
                assert_eq!(table.partition(record.key.as_ref().unwrap()), partition);
                count += 1;
            }
        }
        assert_eq!(count, 500);
    }
}

#[tokio::test]
async fn what_waits_while_the_window_is_full_makes_the_next_batch() {
    let fake = Fake::start().await;
    fake.hold_acks();
    let options = ProducerOptions { in_flight: 2, ..ProducerOptions::default() };
    let producer = open(&fake, options).await;
    for number in 0_u32..40 {
        producer.send(Record::new(&number.to_be_bytes()).partition(1)).await.unwrap();
        if number < 2 {
            fake.received(usize::try_from(number).unwrap() + 1).await;
        }
    }
    fake.release_acks();
    producer.close().await.unwrap();
    assert_eq!(batches(&fake), [(1, 1), (1, 1), (1, 38)]);
    assert_eq!(numbers(&fake, 1), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_small_batch_waits_while_two_are_under_way_and_a_large_one_does_not() {
    let fake = Fake::start().await;
    fake.hold_acks();
    let producer = open(&fake, ProducerOptions::default()).await;
    for number in 0_u32..5 {
        producer.send(Record::new(&number.to_be_bytes()).partition(1)).await.unwrap();
        if number < 2 {
            fake.received(usize::try_from(number).unwrap() + 1).await;
        }
    }
    let large = vec![0; 70_000];
    for batch in 3..5 {
        producer.send(Record::new(&large).partition(1)).await.unwrap();
        fake.received(batch).await;
    }
    assert_eq!(batches(&fake), [(1, 1), (1, 1), (1, 4), (1, 1)]);
    fake.release_acks();
    producer.close().await.unwrap();
}

#[tokio::test]
async fn records_without_a_key_fill_the_batch_of_one_partition_after_the_other() {
    let fake = Fake::start().await;
    let options = ProducerOptions { producer_id: Some(2), ..full(10) };
    let producer = open(&fake, options).await;
    for number in 0_u32..65 {
        producer.send(Record::new(&number.to_be_bytes())).await.unwrap();
    }
    assert_eq!(producer.producer_id(), 2);
    producer.close().await.unwrap();
    let full = [(2, 10), (0, 10), (1, 10), (2, 10), (0, 10), (1, 10), (2, 5)];
    assert_eq!(batches(&fake), full);
}

#[tokio::test]
async fn a_batch_that_is_not_full_goes_out_after_its_linger() {
    let fake = Fake::start().await;
    let linger = Duration::from_millis(30);
    let producer = open(&fake, ProducerOptions { linger, ..ProducerOptions::default() }).await;
    for round in 0_u32..2 {
        let first = producer.send(Record::new(&[0; 4]).partition(0)).await.unwrap();
        for _ in 0..9 {
            producer.send(Record::new(&[0; 4]).partition(0)).await.unwrap();
        }
        assert_eq!(first.await.unwrap().offset, u64::from(round) * 10);
    }
    assert_eq!(batches(&fake), [(0, 10), (0, 10)]);
}

#[tokio::test]
async fn batches_are_cut_by_their_bytes_and_never_above_the_servers_limit() {
    let fake = Fake::start().await;
    let options = ProducerOptions { batch_bytes: 10_000, ..full(u32::MAX) };
    let small = open(&fake, options).await;
    let options = ProducerOptions { batch_bytes: usize::MAX, ..full(u32::MAX) };
    let large = open(&fake, options).await;
    let value = [7; 1_000];
    for producer in [&small, &large] {
        for _ in 0..2_000 {
            producer.send(Record::new(&value).partition(0)).await.unwrap();
        }
        producer.close().await.unwrap();
    }
    let sizes: Vec<usize> = fake.state().batches.iter().map(|seen| seen.bytes.len()).collect();
    let (small, large) = sizes.split_at(sizes.len() - 2);
    let (_rest, small) = small.split_last().unwrap();
    assert!(small.iter().all(|size| (9_000..=10_000).contains(size)), "{small:?}");
    let limit = usize::try_from(MESSAGE_BYTES_MAX).unwrap();
    assert!(large[0] <= limit && large[0] > limit - 2_000, "{large:?}");
}

#[tokio::test]
async fn who_sends_more_than_the_buffer_takes_waits() {
    let fake = Fake::start().await;
    fake.hold_acks();
    let options = ProducerOptions { buffer_bytes: 5_000, ..full(1_000) };
    let producer = open(&fake, options).await;
    let mut sent = 0_u32;
    let send = async |number: u32| {
        let value = number.to_be_bytes();
        let record = Record::new(&value).partition(0);
        timeout(Duration::from_millis(20), producer.send(record)).await.is_ok()
    };
    while send(sent).await {
        sent += 1;
    }
    assert!((200..500).contains(&sent), "{sent} records of about 12 bytes");
    assert!(producer.try_send(&Record::new(b"")).unwrap().is_none());
    fake.release_acks();
    // The one that was given up was not sent; the next takes its number.
    producer.send(Record::new(&sent.to_be_bytes()).partition(0)).await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(numbers(&fake, 0), (0..=sent).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_by_the_repeat() {
    let fake = Fake::start().await;
    fake.script([Step::Serve, Step::ApplyAndCut, Step::Cut]);
    let producer = open(&fake, full(10)).await;
    let mut deliveries = Vec::new();
    for number in 0_u32..50 {
        let value = number.to_be_bytes();
        deliveries.push(producer.send(Record::new(&value).partition(0)).await.unwrap());
    }
    producer.flush().await.unwrap();
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await.unwrap().offset, offset);
    }
    assert_eq!(numbers(&fake, 0), (0..50).collect::<Vec<_>>());
    let counts = producer.counts();
    assert_eq!((counts.records, counts.batches), (50, 5));
    assert!((1..=2).contains(&counts.duplicates), "{counts:?}");
}

#[tokio::test]
async fn a_failure_halts_its_partition_until_the_caller_resumes_it() {
    let fake = Fake::start().await;
    fake.hold_acks();
    let wrong = refusal(ErrorCode::BatchInvalid, v1::Outcome::NotApplied);
    fake.script([Step::Serve, Step::Refuse(wrong)]);
    let producer = open(&fake, ProducerOptions { in_flight: 3, ..full(1) }).await;
    let mut deliveries = Vec::new();
    for number in 0_u32..6 {
        let value = number.to_be_bytes();
        deliveries.push(producer.send(Record::new(&value).partition(0)).await.unwrap());
    }
    fake.received(3).await;
    fake.release_acks();
    let mut told = Vec::new();
    for delivery in deliveries {
        told.push(match delivery.await {
            Ok(delivered) => Ok(delivered.offset),
            Err(error) => Err((error.outcome(), error.code())),
        });
    }
    let not_applied = Some(Outcome::NotApplied);
    assert_eq!(told[..2], [Ok(0), Err((not_applied, ErrorCode::BatchInvalid))]);
    assert_eq!(told[2..], [Err((not_applied, ErrorCode::Internal)); 4]);
    assert_eq!(producer.failure(0).unwrap().code(), ErrorCode::BatchInvalid);
    let refused = producer.send(Record::new(b"1234").partition(0)).await.unwrap_err();
    assert!(matches!(refused, ClientError::Halted { partition: 0 }), "{refused}");
    // Records without a key go elsewhere meanwhile.
    for _ in 0..6 {
        assert_ne!(producer.send(Record::new(b"else")).await.unwrap().await.unwrap().partition, 0);
    }
    producer.resume(0).await.unwrap();
    assert!(producer.failure(0).is_none());
    for number in 1_u32..6 {
        producer.send(Record::new(&number.to_be_bytes()).partition(0)).await.unwrap();
    }
    producer.close().await.unwrap();
    assert_eq!(numbers(&fake, 0), (0..6).collect::<Vec<_>>());
    assert_eq!(producer.counts().failed_batches, 5);
}

#[tokio::test]
async fn retries_run_out_with_an_unknown_outcome_for_what_was_sent_and_none_for_the_rest() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientOptions { retries: 1, ..fake.options() }).await.unwrap();
    let options = ProducerOptions { in_flight: 1, ..ProducerOptions::default() };
    let producer = Producer::open(&client, "events", options).await.unwrap();
    fake.script([Step::Cut, Step::Cut]);
    let sent = producer.send(Record::new(b"1234").partition(0)).await.unwrap();
    fake.received(1).await;
    let waiting = producer.send(Record::new(b"1234").partition(0)).await.unwrap();
    assert_eq!(sent.await.unwrap_err().outcome(), Some(Outcome::Unknown));
    assert_eq!(waiting.await.unwrap_err().outcome(), Some(Outcome::NotApplied));
    let ended = producer.close().await.and(producer.resume(0).await).unwrap_err();
    assert_eq!(ended.exit_code(), 4, "why the producer ended: {ended}");
    let refused = producer.send(Record::new(b"1234").partition(1)).await.unwrap_err();
    assert_eq!(refused.exit_code(), 4);
}

#[tokio::test]
async fn a_closed_producer_has_delivered_everything_and_takes_no_more() {
    let fake = Fake::start().await;
    let producer = open(&fake, full(1_000)).await;
    let delivery = producer.send(Record::new(b"1234")).await.unwrap();
    let other = producer.clone();
    other.close().await.unwrap();
    assert_eq!(delivery.outcome().unwrap().unwrap().offset, 0);
    let refused = producer.send(Record::new(b"1234")).await.unwrap_err();
    assert!(matches!(refused, ClientError::Closed));
    producer.flush().await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_producer_tells_what_is_not_known() {
    let fake = Fake::start().await;
    fake.hold_acks();
    let producer = open(&fake, ProducerOptions { in_flight: 1, ..full(1) }).await;
    let sent = producer.send(Record::new(b"1234").partition(0)).await.unwrap();
    fake.received(1).await;
    let waiting = producer.send(Record::new(b"1234").partition(0)).await.unwrap();
    drop(producer);
    assert_eq!(sent.await.unwrap_err().outcome(), Some(Outcome::Unknown));
    assert!(matches!(waiting.await.unwrap_err(), ClientError::Closed));
}

#[tokio::test]
async fn what_the_server_would_refuse_is_refused_alone() {
    let fake = Fake::start().await;
    fake.state().stream.key_index = v1::KeyIndex::On;
    let producer = open(&fake, ProducerOptions::default()).await;
    let large = vec![0; 2 << 20];
    let table = PartitionTable::shared(Partitioner::Ring, 3);
    let elsewhere = (table.partition(b"key") + 1) % 3;
    let cases = [
        (Record::new(b"v").partition(3), ErrorCode::PartitionNotFound),
        (Record::new(b"v").key(b""), ErrorCode::KeyEmpty),
        (Record::new(b"v").key(&large[..5_000]), ErrorCode::KeyTooLarge),
        (Record::new(&large[..200_000]).key(b"key"), ErrorCode::ValueTooLarge),
        (Record::new(&large), ErrorCode::MessageTooLarge),
        (Record::new(b"v").key(b"key").partition(elsewhere), ErrorCode::WrongPartition),
    ];
    for (record, code) in cases {
        assert_eq!(producer.send(record).await.unwrap_err().code(), code);
    }
    producer.send(Record::tombstone(b"key").headers(&[("h", b"x")])).await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(producer.counts(), ProducerCounts { bytes: 75, ..counts(1, 1) });
    let record = log(&fake, table.partition(b"key")).remove(0);
    assert_eq!((record.key.as_deref(), record.value), (Some(&b"key"[..]), None));
    assert!(record.headers.iter().eq([("h", Some(&b"x"[..]))]));
}

fn counts(records: u64, batches: u64) -> ProducerCounts {
    ProducerCounts { records, batches, ..ProducerCounts::default() }
}

#[tokio::test]
async fn keyed_batches_have_no_more_records_than_the_server_takes() {
    let fake = Fake::start().await;
    fake.state().stream.key_index = v1::KeyIndex::On;
    fake.state().partitions = 1;
    let producer = open(&fake, full(10_000)).await;
    for number in 0_u32..5_000 {
        let key = number.to_be_bytes();
        producer.send(Record::new(&key).key(&key)).await.unwrap();
    }
    producer.close().await.unwrap();
    assert_eq!(batches(&fake), [(0, 4096), (0, 904)]);
}

#[tokio::test]
async fn batches_are_compressed_as_asked() {
    let mut sizes = BTreeMap::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let fake = Fake::start().await;
        let producer = open(&fake, ProducerOptions { compression, ..full(1_000) }).await;
        for number in 0_u32..1_000 {
            producer.send(Record::new(&number.to_be_bytes()).partition(0)).await.unwrap();
        }
        producer.close().await.unwrap();
        assert_eq!(numbers(&fake, 0), (0..1_000).collect::<Vec<_>>());
        sizes.insert(compression, fake.state().batches[0].bytes.len());
    }
    assert!(sizes[&Compression::Lz4] < sizes[&Compression::None], "{sizes:?}");
    assert!(sizes[&Compression::Zstd] < sizes[&Compression::Lz4], "{sizes:?}");
}
