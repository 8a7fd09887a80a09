//! The stream view: produced batches are read by offset and time, at once and after restarts.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use prkdb_proto::v1::{
    AlterCollectionRequest, CollectionSettings, CreateCollectionRequest, DropCollectionRequest,
    FetchReply, FetchRequest, KeyIndex, ListGroupsRequest, ListOffsetsRequest, Position,
    ProduceRequest,
    fetch_request::Start,
    list_offsets_reply, list_offsets_request,
    position::Place,
    produce_reply::Message as Reply,
    produce_request::{Batch as Sent, Message as Ask, Open},
};
use prkdb_types::{Batch, BatchBuilder, Compression, DecompressLimit, ProducerStamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::rig::{Rig, get, keys_of, refused};

pub(crate) const EVENTS: &str = "events";
/// Batches that small make many segments of 1 MiB.
const SEGMENT_BYTES: u64 = 1 << 20;

pub(crate) async fn create(rig: &Rig, partitions: u32) {
    let settings = CollectionSettings {
        partitions,
        key_index: KeyIndex::Off.into(),
        ..CollectionSettings::default()
    };
    let request = CreateCollectionRequest { name: EVENTS.to_owned(), settings: Some(settings) };
    rig.collections().create(request).await.unwrap();
}

/// What is produced: value and time of each record of a batch.
pub(crate) fn records(first: u64, count: u64, bytes: usize) -> Vec<(Vec<u8>, i64)> {
    let record = |number: u64| {
        let mut value = format!("event {number} ").into_bytes();
        // Letters that compress little.
        let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while value.len() < bytes {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            value.push(b'a' + u8::try_from(noise >> 59).unwrap() % 26);
        }
        (value, time_of(number))
    };
    (first..first + count).map(record).collect()
}

/// Times rise, but every tenth record is late.
fn time_of(number: u64) -> i64 {
    let time = i64::try_from(number).unwrap() * 10;
    if number % 10 == 9 { time - 500 } else { time }
}

pub(crate) fn encode(records: &[(Vec<u8>, i64)], sequence: u64, compression: Compression) -> Bytes {
    let base_sequence = i32::try_from(sequence).unwrap();
    let stamp = ProducerStamp { id: 77, epoch: 0, base_sequence };
    let mut builder = BatchBuilder::new(stamp, compression);
    for (value, time) in records {
        builder.push(*time, None, Some(value), &[("kind", b"test")]).unwrap();
    }
    builder.finish().unwrap().to_bytes()
}

/// A stream to produce by; counts what it sent to each partition.
pub(crate) struct Producer {
    requests: mpsc::Sender<ProduceRequest>,
    replies: tonic::Streaming<prkdb_proto::v1::ProduceReply>,
    pub(crate) collection_id: u32,
    sent: BTreeMap<u32, u64>,
}

impl Producer {
    pub(crate) async fn open(rig: &Rig, collection: &str) -> Result<Self, Status> {
        Self::open_again(rig, collection, 0).await
    }

    /// As a client does whose stream broke.
    pub(crate) async fn open_again(
        rig: &Rig,
        collection: &str,
        collection_id: u32,
    ) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(64);
        let open = Some(Ask::Open(Open { collection: collection.to_owned(), collection_id }));
        requests.send(ProduceRequest { message: open }).await.unwrap();
        let mut replies = rig.streams().produce(ReceiverStream::new(queue)).await?.into_inner();
        let opened = replies.message().await?.unwrap();
        let Some(Reply::Opened(opened)) = opened.message else { panic!("{opened:?}") };
        assert!(collection_id == 0 || opened.collection_id == collection_id);
        let collection_id = opened.collection_id;
        Ok(Self { requests, replies, collection_id, sent: BTreeMap::new() })
    }

    /// Sends a batch and waits for its answer.
    pub(crate) async fn send(&mut self, partition: u32, batch: Bytes) -> Result<u64, String> {
        let message = Some(Ask::Batch(Sent { id: 1, partition, batch }));
        self.requests.send(ProduceRequest { message }).await.unwrap();
        loop {
            match self.replies.message().await.unwrap().unwrap().message.unwrap() {
                Reply::Ack(ack) => return Ok(ack.base_offset),
                Reply::Failed(failed) => return Err(failed.detail.unwrap().code),
                Reply::Credit(_) => {}
                Reply::Opened(_) => panic!("opened twice"),
            }
        }
    }

    /// Produces `batches` batches of `count` records to a partition.
    pub(crate) async fn produce(&mut self, partition: u32, batches: u64, count: u64, bytes: usize) {
        let compressions = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        for _ in 0..batches {
            let sent = self.sent.entry(partition).or_default();
            let first = *sent;
            *sent += count;
            let which = usize::try_from(first / count).unwrap() % compressions.len();
            let batch = encode(&records(first, count, bytes), first, compressions[which]);
            assert_eq!(self.send(partition, batch).await, Ok(first));
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn at(place: Place) -> Option<Position> {
    Some(Position { place: Some(place) })
}

fn start(partition: u32, place: Place) -> Start {
    Start { partition, from: at(place) }
}

fn fetch(starts: Vec<Start>) -> FetchRequest {
    FetchRequest {
        collection: EVENTS.to_owned(),
        starts,
        max_wait_ms: Some(0),
        max_bytes: u64::MAX,
        min_bytes: 1,
        follow: false,
        collection_id: 0,
    }
}

/// What came of a partition: batches, watermark, where to go on.
#[derive(Default)]
struct Got {
    batches: Vec<Batch>,
    high_watermark: u64,
    log_start: u64,
    next_offset: u64,
}

impl Got {
    fn take(&mut self, reply: &FetchReply) {
        let mut joined = BytesMut::new();
        reply.batches.iter().for_each(|part| joined.extend_from_slice(part));
        let mut rest = joined.freeze();
        while !rest.is_empty() {
            let (batch, bytes) = Batch::split_first(&rest).unwrap();
            batch.verify_crc().unwrap();
            rest = rest.slice(bytes..);
            self.batches.push(batch);
        }
        (self.high_watermark, self.log_start) = (reply.high_watermark, reply.log_start);
        self.next_offset = reply.next_offset;
    }

    /// Offset, time and the number in the value of every record.
    fn records(&self) -> Vec<(u64, i64, u64)> {
        let mut all = Vec::new();
        for batch in &self.batches {
            for record in &batch.records(DecompressLimit::new(64 << 20)).unwrap() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let number = value.split(' ').nth(1).unwrap().parse().unwrap();
                assert_eq!(record.headers().collect::<Vec<_>>(), [("kind", Some(&b"test"[..]))]);
                all.push((record.offset, record.timestamp_ms, number));
            }
        }
        all
    }
}

async fn read(rig: &Rig, request: FetchRequest) -> Result<BTreeMap<u32, Got>, Status> {
    let mut replies = rig.streams().fetch(request).await?.into_inner();
    let mut got: BTreeMap<u32, Got> = BTreeMap::new();
    while let Some(reply) = replies.message().await? {
        got.entry(reply.partition).or_default().take(&reply);
    }
    Ok(got)
}

fn expected(from: u64, to: u64) -> Vec<(u64, i64, u64)> {
    (from..to).map(|number| (number, time_of(number), number)).collect()
}

async fn list(
    rig: &Rig,
    items: Vec<list_offsets_request::Item>,
) -> Result<Vec<list_offsets_reply::Item>, Status> {
    let request = ListOffsetsRequest { collection: EVENTS.to_owned(), items };
    Ok(rig.streams().list_offsets(request).await?.into_inner().items)
}

/// Reads everything of three partitions, from the start and from places in between.
async fn check_all(rig: &Rig, ends: [u64; 3]) {
    let starts = (0..3).map(|number| start(number, Place::Earliest(true))).collect();
    let got = read(rig, fetch(starts)).await.unwrap();
    for (number, end) in (0..3).zip(ends) {
        let got = &got[&number];
        assert_eq!(got.records(), expected(0, end), "partition {number}");
        assert_eq!((got.log_start, got.high_watermark, got.next_offset), (0, end, end));
    }
    for offset in [0, 1, 99, 100, 101, 5_000, ends[1] - 1, ends[1]] {
        let got = read(rig, fetch(vec![start(1, Place::Offset(offset))])).await.unwrap();
        let records = got[&1].records();
        let first = records.first().map_or(ends[1], |(first, ..)| *first);
        assert!(first <= offset && offset - first < 100, "{offset}: {first}");
        assert_eq!(records, expected(first, ends[1]), "from {offset}");
    }
    // The first record that has reached a time is found although later ones are earlier again.
    for number in [0_u64, 1, 8, 9, 500, 1_234, 4_999] {
        let time = i64::try_from(number).unwrap() * 10 - 3;
        let first = (0..ends[0]).find(|number| time_of(*number) >= time).unwrap();
        let item =
            list_offsets_request::Item { partition: 0, position: at(Place::TimestampMs(time)) };
        let found = list(rig, vec![item]).await.unwrap();
        let expected = list_offsets_reply::Item {
            partition: 0,
            log_start: 0,
            log_end: ends[0],
            offset: first,
            timestamp_ms: Some(time_of(first)),
        };
        assert_eq!(found, [expected], "time {time}");
        let got = read(rig, fetch(vec![start(0, Place::TimestampMs(time))])).await.unwrap();
        assert!(got[&0].records().iter().any(|record| record.0 == first));
    }
}

#[tokio::test]
async fn what_is_produced_is_read_from_any_place_now_and_after_restarts() {
    let rig = Rig::with(|settings| settings.segment_bytes = SEGMENT_BYTES).await;
    create(&rig, 3).await;
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    for _ in 0..4 {
        producer.produce(0, 15, 100, 900).await;
        producer.produce(1, 20, 100, 600).await;
        producer.produce(2, 5, 10, 50).await;
    }
    let ends = [6_000, 8_000, 200];
    check_all(&rig, ends).await;
    drop(producer);
    let rig = rig.kill().await.start().await;
    check_all(&rig, ends).await;
    let dir = rig.settings.data_dir.join("shard-0000000001");
    let rig = rig.stop().await.start().await;
    check_all(&rig, ends).await;
    let sidecars = || {
        let names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|end| end == "index")).collect::<Vec<_>>()
    };
    let before = sidecars();
    assert!(before.len() > 3, "{before:?}");
    // Sidecars that are gone, torn, of another segment or damaged are made anew.
    let stopped = rig.stop().await;
    let content = std::fs::read(&before[0]).unwrap();
    std::fs::remove_file(&before[0]).unwrap();
    std::fs::write(&before[1], &content).unwrap();
    std::fs::write(&before[2], b"").unwrap();
    let mut damaged = std::fs::read(&before[3]).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&before[3], damaged).unwrap();
    let rig = stopped.start().await;
    check_all(&rig, ends).await;
    assert_eq!(std::fs::read(&before[0]).unwrap(), content);
    assert!(sidecars().len() >= before.len());
    rig.stop().await;
}

#[tokio::test]
async fn a_reader_that_follows_gets_what_is_appended_and_ends_with_the_node() {
    let rig = Rig::start().await;
    create(&rig, 3).await;
    let follow = FetchRequest {
        follow: true,
        ..fetch((0..3).map(|number| start(number, Place::Latest(true))).collect())
    };
    let mut replies = rig.streams().fetch(follow).await.unwrap().into_inner();
    let mut before = 0;
    for _ in 0..3 {
        let told = replies.message().await.unwrap().unwrap();
        before = told.collection_id;
        assert_eq!((told.batches.len(), told.next_offset, told.high_watermark), (0, 0, 0));
    }
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    for partition in [2, 0, 2, 1] {
        producer.produce(partition, 1, 5, 20).await;
        let reply = replies.message().await.unwrap().unwrap();
        let mut got = Got::default();
        got.take(&reply);
        let end = producer.sent[&partition];
        assert_eq!(reply.partition, partition);
        assert_eq!(got.records(), expected(end - 5, end));
        assert_eq!((reply.next_offset, reply.high_watermark), (end, end));
    }
    let dropped = DropCollectionRequest { name: EVENTS.to_owned() };
    rig.collections().drop(dropped).await.unwrap();
    let status = replies.message().await.unwrap_err();
    refused(&status, Code::NotFound, "partition_not_found");
    create(&rig, 1).await;
    let follow = FetchRequest { follow: true, ..fetch(vec![start(0, Place::Earliest(true))]) };
    let mut replies = rig.streams().fetch(follow).await.unwrap().into_inner();
    let told = replies.message().await.unwrap().unwrap();
    assert_eq!((told.high_watermark, told.collection_id == before), (0, false));
    // Whoever goes on where it was does not go on in another collection of that name.
    let on = FetchRequest { collection_id: before, ..fetch(vec![start(0, Place::Offset(0))]) };
    let status = rig.streams().fetch(on.clone()).await.unwrap_err();
    refused(&status, Code::NotFound, "collection_not_found");
    let on = FetchRequest { collection_id: told.collection_id, max_wait_ms: Some(1), ..on };
    rig.streams().fetch(on).await.unwrap();
    let stopping = tokio::spawn(rig.stop());
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_fetch_waits_no_longer_than_it_said_and_sends_no_more_than_it_said() {
    let rig = Rig::start().await;
    create(&rig, 2).await;
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    producer.produce(0, 20, 100, 100).await;
    let small = FetchRequest { max_bytes: 1, ..fetch(vec![start(0, Place::Offset(250))]) };
    let got = read(&rig, small).await.unwrap();
    assert_eq!(got[&0].records(), expected(200, 300), "one batch, the one with the offset");
    assert_eq!((got[&0].next_offset, got[&0].high_watermark), (300, 2_000));
    // Nothing comes: the wait ends it, and the watermark was told.
    let empty = FetchRequest {
        max_wait_ms: Some(50),
        ..fetch(vec![start(1, Place::Earliest(true)), start(0, Place::Latest(true))])
    };
    let got = read(&rig, empty).await.unwrap();
    assert_eq!((got[&0].next_offset, got[&1].next_offset), (2_000, 0));
    assert!(got.values().all(|got| got.batches.is_empty()));
    // Something comes: the wait ends early.
    let waiting =
        FetchRequest { max_wait_ms: Some(60_000), ..fetch(vec![start(1, Place::Earliest(true))]) };
    let mut replies = rig.streams().fetch(waiting).await.unwrap().into_inner();
    assert!(replies.message().await.unwrap().unwrap().batches.is_empty());
    producer.produce(1, 1, 3, 10).await;
    let mut got = Got::default();
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(reply) = replies.message().await.unwrap() {
            got.take(&reply);
        }
    });
    ended.await.unwrap();
    assert_eq!(got.records(), expected(0, 3));
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name() {
    let rig = Rig::start().await;
    create(&rig, 2).await;
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    producer.produce(0, 1, 7, 10).await;
    let status = read(&rig, fetch(vec![start(0, Place::Offset(8))])).await.err().unwrap();
    refused(&status, Code::OutOfRange, "offset_out_of_range");
    assert!(status.message().contains("from 0 up to 7, not 8"), "{status:?}");
    let cases = [
        (vec![start(2, Place::Earliest(true))], Code::NotFound, "partition_not_found"),
        (vec![], Code::InvalidArgument, "invalid_argument"),
        (vec![Start { partition: 0, from: None }], Code::InvalidArgument, "invalid_argument"),
        (
            vec![start(0, Place::Earliest(true)), start(0, Place::Latest(true))],
            Code::InvalidArgument,
            "invalid_argument",
        ),
    ];
    for (starts, code, name) in cases {
        let status = read(&rig, fetch(starts)).await.err().unwrap();
        refused(&status, code, name);
    }
    let unknown = FetchRequest {
        collection: "nobody".to_owned(),
        ..fetch(vec![start(0, Place::Earliest(true))])
    };
    let status = read(&rig, unknown).await.err().unwrap();
    refused(&status, Code::NotFound, "collection_not_found");
    let item = list_offsets_request::Item { partition: 9, position: at(Place::Latest(true)) };
    let status = list(&rig, vec![item]).await.err().unwrap();
    refused(&status, Code::NotFound, "partition_not_found");
    let ends: Vec<_> =
        list(&rig, Vec::new()).await.unwrap().iter().map(|item| item.log_end).collect();
    assert_eq!(ends, [7, 0]);
    let status = Producer::open(&rig, "nobody").await.err().unwrap();
    refused(&status, Code::NotFound, "collection_not_found");
    rig.stop().await;
}

#[tokio::test]
async fn damaged_and_foreign_batches_are_refused_and_a_repeat_is_known() {
    let rig = Rig::start().await;
    create(&rig, 1).await;
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    let batch = encode(&records(0, 3, 10), 0, Compression::None);
    let mut flipped = batch.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(producer.send(0, flipped.into()).await, Err("batch_corrupt".to_owned()));
    assert_eq!(producer.send(0, Bytes::new()).await, Err("batch_invalid".to_owned()));
    let mut anonymous = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
    anonymous.push(0, None, Some(b"x"), &[]).unwrap();
    let anonymous = anonymous.finish().unwrap().to_bytes();
    assert_eq!(producer.send(0, anonymous).await, Err("batch_invalid".to_owned()));
    assert_eq!(producer.send(1, batch.clone()).await, Err("partition_not_found".to_owned()));
    assert_eq!(producer.send(0, batch.clone()).await, Ok(0));
    assert_eq!(producer.send(0, batch.clone()).await, Ok(0), "the answer it had");
    let later = encode(&records(9, 3, 10), 9, Compression::None);
    assert_eq!(producer.send(0, later).await, Err("out_of_order".to_owned()));
    let got = read(&rig, fetch(vec![start(0, Place::Earliest(true))])).await.unwrap();
    assert_eq!(got[&0].records(), expected(0, 3));
    rig.stop().await;
}

#[tokio::test]
async fn events_and_keys_share_a_collection_with_an_index() {
    let rig = Rig::start().await;
    let key = keys_of(1, 3, 0, 1).remove(0);
    let stamp = ProducerStamp { id: 5, epoch: 0, base_sequence: 0 };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    builder.push(1, None, Some(b"event"), &[]).unwrap();
    builder.push(2, Some(key.as_bytes()), Some(b"value"), &[]).unwrap();
    let batch = builder.finish().unwrap().to_bytes();
    let mut producer = Producer::open(&rig, "default").await.unwrap();
    assert_eq!(producer.send(0, batch.clone()).await, Err("wrong_partition".to_owned()));
    assert_eq!(producer.send(1, batch).await, Ok(0));
    let found = rig.kv().get(get(&key)).await.unwrap().into_inner().found.unwrap();
    assert_eq!((found.value.as_ref(), found.version), (&b"value"[..], 1));
    let default = FetchRequest {
        collection: "default".to_owned(),
        ..fetch(vec![start(1, Place::Earliest(true))])
    };
    assert_eq!(read(&rig, default).await.unwrap()[&1].batches[0].header().count, 2);
    let rig = rig.kill().await.start().await;
    assert_eq!(rig.kv().get(get(&key)).await.unwrap().into_inner().found, Some(found));
    rig.stop().await;
}

#[tokio::test]
async fn a_collection_without_index_gets_more_partitions_and_no_fewer() {
    let rig = Rig::start().await;
    create(&rig, 2).await;
    let alter = |name: &str, partitions| {
        let request = AlterCollectionRequest {
            name: name.to_owned(),
            partitions,
            ..AlterCollectionRequest::default()
        };
        let mut collections = rig.collections();
        async move { collections.alter(request).await.map(tonic::Response::into_inner) }
    };
    assert!(!alter(EVENTS, Some(2)).await.unwrap().changed);
    assert!(!alter(EVENTS, None).await.unwrap().changed);
    let altered = alter(EVENTS, Some(5)).await.unwrap();
    assert!(altered.changed);
    assert_eq!(altered.collection.unwrap().partitions.len(), 5);
    let mut producer = Producer::open(&rig, EVENTS).await.unwrap();
    producer.produce(4, 1, 3, 10).await;
    let refusals = [
        (EVENTS, Some(4), Code::FailedPrecondition, "alter_refused"),
        ("default", Some(9), Code::FailedPrecondition, "alter_refused"),
        ("nobody", Some(9), Code::NotFound, "collection_not_found"),
        (EVENTS, Some(2_000), Code::InvalidArgument, "invalid_argument"),
    ];
    for (name, partitions, code, detail) in refusals {
        refused(&alter(name, partitions).await.unwrap_err(), code, detail);
    }
    let rig = rig.kill().await.start().await;
    assert_eq!(rig.log_ends(EVENTS).await, [0, 0, 0, 0, 3]);
    let groups = rig.groups().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    assert!(groups.groups.is_empty());
    rig.stop().await;
}
