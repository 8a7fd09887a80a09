//! A consumer gives every record once, in order per partition, whatever happens to its streams.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prkdb_client::{
    Client, ClientError, ClientOptions, ConsumedRecord, Consumer, ConsumerOptions, ErrorCode,
    ErrorKind, Put, StartAt,
};
use prkdb_proto::v1::{self, position::Place};
use prkdb_types::{Batch, BatchBuilder, Compression, ProducerStamp};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::{
    errors::status_with,
    server::{Fake, refusal},
    server_stream::{COLLECTION_ID, FetchStep, Layout},
};

/// Encodes records whose value is their offset and whose timestamp ten times that.
fn batch(base_offset: u64, records: u64, compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(ProducerStamp::NONE, compression);
    for offset in base_offset..base_offset + records {
        let time = i64::try_from(offset).unwrap() * 10;
        builder.push(time, None, Some(&offset.to_be_bytes()), &[("h", b"x")]).unwrap();
    }
    let mut batch = builder.finish().unwrap();
    batch.set_base_offset(base_offset);
    batch
}

/// Fills partitions with batches of five records.
async fn fake_with(partitions: u32, batches: u64) -> Fake {
    let fake = Fake::start().await;
    fake.state().partitions = partitions;
    for partition in 0..partitions {
        for index in 0..batches {
            let codec = if index % 2 == 0 { Compression::None } else { Compression::Zstd };
            append(&fake, partition, batch(index * 5, 5, codec));
        }
    }
    fake
}

fn append(fake: &Fake, partition: u32, batch: Batch) {
    fake.state().stream.push(partition, batch);
}

fn until(ends: &[(u32, u64)]) -> ConsumerOptions {
    ConsumerOptions { until: ends.iter().copied().collect(), ..ConsumerOptions::default() }
}

async fn open(fake: &Fake, options: ConsumerOptions) -> Consumer {
    Consumer::open(&fake.client().await, "events", options).await.unwrap()
}

fn check(record: &ConsumedRecord) {
    let offset = record.offset;
    assert_eq!(record.value.as_deref(), Some(&offset.to_be_bytes()[..]));
    assert_eq!(record.timestamp_ms, i64::try_from(offset).unwrap() * 10);
    assert_eq!(record.key, None);
    assert_eq!(record.headers().collect::<Vec<_>>(), [("h", Some(&b"x"[..]))]);
}

/// Reads to the end, record by record, and returns the offsets by partition.
async fn read(consumer: &mut Consumer) -> BTreeMap<u32, Vec<u64>> {
    let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    while let Some(record) = StreamExt::next(consumer).await {
        let record = record.unwrap();
        check(&record);
        offsets.entry(record.partition).or_default().push(record.offset);
    }
    offsets
}

fn offsets(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn every_record_comes_once_and_in_order_however_the_replies_are_cut() {
    for layout in [Layout::Together, Layout::HeadAndTail, Layout::Shredded(7)] {
        let fake = fake_with(3, 6).await;
        fake.state().stream.layout = layout;
        let mut consumer = open(&fake, until(&[(0, 30), (1, 30), (2, 30)])).await;
        assert!(consumer.partitions().eq(0..3));
        let read = read(&mut consumer).await;
        let all: BTreeMap<_, _> = (0..3).map(|partition| (partition, offsets(0..30))).collect();
        assert_eq!(read, all, "{layout:?}");
        assert_eq!(consumer.position(1), Some(30));
        assert_eq!(consumer.high_watermark(1), Some(30));
        assert_eq!((consumer.position(3), consumer.high_watermark(3)), (None, None));
        assert!(consumer.next().await.is_none(), "the end stays the end");
        assert!(consumer.next_batch().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn batches_come_without_the_records_before_the_start_and_from_the_end_on() {
    let fake = fake_with(2, 4).await;
    let options = ConsumerOptions {
        partitions: BTreeMap::from([(1, StartAt::Offset(7))]),
        until: BTreeMap::from([(1, 12), (0, 3)]),
        ..ConsumerOptions::default()
    };
    let mut consumer = open(&fake, options).await;
    let mut read = Vec::new();
    let mut ranges = Vec::new();
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        assert_eq!((batch.partition, batch.high_watermark), (1, 20));
        assert_eq!((batch.record_count(), batch.batch.base_offset() % 5), (5, 0));
        ranges.push((batch.base_offset(), batch.next_offset()));
        read.extend(batch.records().map(|record| record.unwrap().offset));
        assert_eq!(consumer.position(1), Some(batch.next_offset()));
    }
    assert_eq!(read, offsets(7..12));
    assert_eq!(ranges, [(7, 10), (10, 12)]);
    assert_eq!(consumer.position(1), Some(12));
}

#[tokio::test]
async fn starts_are_settled_when_the_consumer_is_opened() {
    let fake = fake_with(4, 4).await;
    let options = ConsumerOptions {
        partitions: BTreeMap::from([
            (0, StartAt::Earliest),
            (1, StartAt::Latest),
            (2, StartAt::TimestampMs(121)),
            (3, StartAt::TimestampMs(9_999)),
        ]),
        until: (0..4).map(|partition| (partition, 25)).collect(),
        ..ConsumerOptions::default()
    };
    // The first streams break before they say anything.
    fake.state().stream.fetch_script.extend([FetchStep::CutAfter(0), FetchStep::CutAfter(0)]);
    let mut consumer = open(&fake, options).await;
    let positions: Vec<_> = (0..4).map(|partition| consumer.position(partition)).collect();
    assert_eq!(positions, [Some(0), Some(20), Some(13), Some(20)]);
    for partition in 0..4 {
        append(&fake, partition, batch(20, 5, Compression::None));
    }
    let read = read(&mut consumer).await;
    let starts = [0, 20, 13, 20];
    for (partition, start) in (0..).zip(starts) {
        assert_eq!(read[&partition], offsets(start..25));
    }
    let fetches = fake.state().stream.fetches.clone();
    let last = fetches.last().unwrap().starts.iter().map(|start| start.from.unwrap().place);
    let asked = [Place::Earliest(true), Place::Offset(20), Place::Offset(13), Place::Offset(20)];
    assert!(last.eq(asked.map(Some)), "{fetches:?}");
}

#[tokio::test]
async fn nothing_comes_twice_or_is_lost_when_streams_are_cut() {
    let mut rounds = JoinSet::new();
    for replies in 0..8 {
        rounds.spawn(async move {
            let fake = fake_with(2, 10).await;
            let cuts = [0, replies, replies / 2, 0, replies].map(FetchStep::CutAfter);
            fake.state().stream.fetch_script.extend(cuts);
            let options = ClientOptions { retries: 10, ..fake.options() };
            let client = Client::connect(options).await.unwrap();
            let ends = until(&[(0, 50), (1, 50)]);
            let mut consumer = Consumer::open(&client, "events", ends).await.unwrap();
            let read = read(&mut consumer).await;
            assert_eq!(read, BTreeMap::from([(0, offsets(0..50)), (1, offsets(0..50))]));
        });
    }
    rounds.join_all().await;
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_again() {
    let fake = fake_with(1, 4).await;
    let proxy = crate::proxy::Proxy::start(&fake.address).await;
    fake.state().leader = proxy.endpoint.to_string();
    let options = ClientOptions { servers: vec![proxy.endpoint.clone()], ..fake.options() };
    let client = Client::connect(options).await.unwrap();
    let mut consumer = Consumer::open(&client, "events", until(&[(0, 25)])).await.unwrap();
    for offset in 0..20 {
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, offset);
    }
    proxy.cut();
    append(&fake, 0, batch(20, 5, Compression::None));
    assert_eq!(read(&mut consumer).await[&0], offsets(20..25));
}

#[tokio::test]
async fn what_is_appended_is_followed_and_a_dropped_future_loses_nothing() {
    let fake = fake_with(1, 1).await;
    let mut consumer = open(&fake, ConsumerOptions::default()).await;
    let mut seen = Vec::new();
    for round in 1..20 {
        append(&fake, 0, batch(round * 5, 5, Compression::None));
        while seen.len() < usize::try_from((round + 1) * 5).unwrap() {
            if round % 2 == 0 {
                // Dropped at its first await, over and over.
                if let Ok(record) = timeout(Duration::ZERO, consumer.next()).await {
                    seen.push(record.unwrap().unwrap().offset);
                }
            } else if let Ok(batch) = timeout(Duration::ZERO, consumer.next_batch()).await {
                let batch = batch.unwrap().unwrap();
                seen.extend(batch.records().map(|record| record.unwrap().offset));
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(seen, offsets(0..100));
}

#[tokio::test]
async fn batches_and_records_may_be_read_in_turn() {
    let fake = fake_with(1, 2).await;
    let mut consumer = open(&fake, until(&[(0, 10)])).await;
    for offset in 0..2 {
        assert_eq!(consumer.position(0), Some(offset));
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, offset);
    }
    let rest = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!((rest.base_offset(), rest.next_offset()), (2, 5));
    let left: Vec<u64> = rest.records().map(|record| record.unwrap().offset).collect();
    assert_eq!(left, offsets(2..5));
    assert_eq!(read(&mut consumer).await[&0], offsets(5..10));
}

#[tokio::test]
async fn a_consumer_that_is_not_read_holds_up_nobody_else() {
    let fake = Fake::start().await;
    fake.state().partitions = 1;
    let value = vec![0; 1 << 20];
    // More than both windows of a connection take.
    for offset in 0..40 {
        let mut batch = Batch::single(ProducerStamp::NONE, 0, None, Some(&value), &[]).unwrap();
        batch.set_base_offset(offset);
        append(&fake, 0, batch);
    }
    let client = fake.client().await;
    let mut consumer = Consumer::open(&client, "events", until(&[(0, 40)])).await.unwrap();
    let mut read = 0;
    while let Some(record) = consumer.next().await {
        assert_eq!(record.unwrap().offset, read);
        read += 1;
        // As much comes in meanwhile as the windows let in.
        for _ in 0..20 {
            let within = Some(Instant::now() + Duration::from_secs(5));
            client.with_deadline(within).put(Put::new("default", "a", "1")).await.unwrap();
        }
    }
    assert_eq!(read, 40);
}

#[tokio::test]
async fn a_partition_that_has_ended_gives_nothing_more_while_others_go_on() {
    let fake = fake_with(3, 10).await;
    let mut consumer = open(&fake, until(&[(0, 7), (1, 50), (2, 0)])).await;
    let read = read(&mut consumer).await;
    assert_eq!(read, BTreeMap::from([(0, offsets(0..7)), (1, offsets(0..50))]));
    assert_eq!([consumer.position(0), consumer.position(2)], [Some(7), Some(0)]);
}

#[tokio::test]
async fn gaps_are_accepted_and_an_end_inside_of_one_is_reached() {
    let fake = Fake::start().await;
    fake.state().partitions = 1;
    for base in [0, 10, 30] {
        append(&fake, 0, batch(base, 5, Compression::None));
    }
    let mut consumer = open(&fake, until(&[(0, 20)])).await;
    assert_eq!(read(&mut consumer).await[&0], [offsets(0..5), offsets(10..15)].concat());
    assert_eq!(consumer.position(0), Some(20));
}

#[tokio::test]
async fn a_damaged_batch_is_named_and_is_the_last_word() {
    let fake = fake_with(1, 2).await;
    let whole = batch(10, 5, Compression::None);
    let mut tail = whole.tail().to_vec();
    *tail.last_mut().unwrap() ^= 1;
    append(&fake, 0, Batch::from_parts(*whole.head(), Bytes::from(tail)).unwrap());
    let mut consumer = open(&fake, ConsumerOptions::default()).await;
    for _ in 0..2 {
        consumer.next_batch().await.unwrap().unwrap();
    }
    let error = consumer.next_batch().await.unwrap_err();
    let ClientError::Corrupt { collection, partition, offset, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((collection.as_ref(), *partition, *offset), ("events", 0, 10));
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Corrupt, 12));
    assert_eq!(error.to_string(), "read collection 'events', partition 0, batch at offset 10");
    assert!(consumer.next_batch().await.is_err());
    assert!(consumer.next().await.is_none(), "a stream ends with it");
    assert_eq!(consumer.position(0), Some(10));
}

#[tokio::test]
async fn batches_that_go_back_are_refused() {
    let fake = fake_with(1, 2).await;
    append(&fake, 0, batch(8, 5, Compression::None));
    let mut consumer = open(&fake, ConsumerOptions::default()).await;
    for _ in 0..2 {
        consumer.next_batch().await.unwrap().unwrap();
    }
    let error = consumer.next_batch().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("from offset 10 to a batch at 8"), "{error}");
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_final_and_keeps_the_servers_words() {
    let fake = fake_with(1, 2).await;
    fake.state().stream.log_start = 5;
    let options = ConsumerOptions { start: StartAt::Offset(3), ..ConsumerOptions::default() };
    let mut consumer = open(&fake, options).await;
    let error = consumer.next_batch().await.unwrap_err();
    assert_eq!((error.code(), error.kind()), (ErrorCode::OffsetOutOfRange, ErrorKind::Invalid));
    assert_eq!(error.to_string(), "scripted offset_out_of_range");
    assert_eq!(fake.state().stream.fetches.len(), 1, "it is not tried again");
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_named() {
    let fake = fake_with(2, 1).await;
    let options = ConsumerOptions {
        partitions: BTreeMap::from([(2, StartAt::Earliest)]),
        ..ConsumerOptions::default()
    };
    let error = Consumer::open(&fake.client().await, "events", options).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PartitionNotFound);
    assert_eq!(error.to_string(), "collection 'events' has no partition 2, but 2");
}

#[tokio::test]
async fn a_consumer_that_has_nothing_to_read_ends_without_a_stream() {
    let fake = fake_with(1, 1).await;
    let mut consumer = open(&fake, until(&[(0, 0)])).await;
    assert!(consumer.next_batch().await.unwrap().is_none());
    assert!(fake.state().stream.fetches.is_empty());
}

#[tokio::test]
async fn partitions_are_read_where_they_are_led() {
    let first = fake_with(3, 4).await;
    let second = fake_with(3, 4).await;
    first.state().stream.leaders.insert(1, second.address.clone());
    let mut consumer = open(&first, until(&[(0, 20), (1, 20), (2, 20)])).await;
    let read = read(&mut consumer).await;
    assert_eq!(read.len(), 3);
    assert!(read.values().all(|read| *read == offsets(0..20)));
    let asked = |fake: &Fake| -> Vec<Vec<u32>> {
        let fetches = fake.state().stream.fetches.clone();
        let numbers = |fetch: v1::FetchRequest| {
            fetch.starts.into_iter().map(|start| start.partition).collect()
        };
        fetches.into_iter().map(numbers).collect()
    };
    assert_eq!(asked(&first), [[0, 2]]);
    assert_eq!(asked(&second), [[1]]);
}

#[tokio::test]
async fn a_leader_that_moved_is_followed() {
    let old = fake_with(1, 4).await;
    let new = fake_with(1, 4).await;
    let mut detail = refusal(ErrorCode::NotLeader, v1::Outcome::Unspecified);
    detail.leader_address.clone_from(&new.address);
    let status = status_with(Code::Unavailable, &detail);
    old.state().stream.fetch_script.extend([FetchStep::CutAfter(2), FetchStep::Refuse(status)]);
    let mut consumer = open(&old, until(&[(0, 20)])).await;
    assert_eq!(read(&mut consumer).await[&0], offsets(0..20));
    assert_eq!(new.state().stream.fetches.len(), 1);
    // From then on another collection of that name is not what is asked for.
    let asked = |fake: &Fake| fake.state().stream.fetches.last().unwrap().collection_id;
    assert_eq!(old.state().stream.fetches[0].collection_id, 0);
    assert_eq!((asked(&old), asked(&new)), (COLLECTION_ID, COLLECTION_ID));
}

#[tokio::test]
async fn retries_run_out_and_the_next_call_goes_on_from_the_same_place() {
    let fake = fake_with(1, 4).await;
    let client = Client::connect(ClientOptions { retries: 1, ..fake.options() }).await.unwrap();
    let gone = FetchStep::Refuse(Status::unavailable("gone"));
    let script = [FetchStep::CutAfter(2), gone.clone(), gone];
    fake.state().stream.fetch_script.extend(script);
    let mut consumer = Consumer::open(&client, "events", until(&[(0, 20)])).await.unwrap();
    for _ in 0..2 {
        consumer.next_batch().await.unwrap().unwrap();
    }
    let error = consumer.next_batch().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert_eq!((error.exit_code(), error.is_retryable()), (4, true));
    assert_eq!(read(&mut consumer).await[&0], offsets(10..20));
}
