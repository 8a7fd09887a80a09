//! Opaque batches over one stream.

use bytes::Bytes;
use prkdb_proto::v1::{
    ProduceReply, ProduceRequest,
    produce_reply::{Message as Reply, Opened},
    produce_request::{Batch, Message as Ask, Open},
};
use prkdb_types::{BatchBuilder, Compression, ProducerStamp, sequence_after};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::rig::{NOT_APPLIED, Rig, get, keys_of, refused};

/// One stream, opened.
struct Stream {
    requests: mpsc::Sender<ProduceRequest>,
    replies: Streaming<ProduceReply>,
    opened: Opened,
    sequence: [i32; 3],
}

async fn raw(rig: &Rig) -> Result<(mpsc::Sender<ProduceRequest>, Streaming<ProduceReply>), Status> {
    let (requests, queue) = mpsc::channel(64);
    let replies = rig.kv().batch_put(ReceiverStream::new(queue)).await?.into_inner();
    Ok((requests, replies))
}

fn open(collection: &str) -> ProduceRequest {
    ProduceRequest {
        message: Some(Ask::Open(Open { collection: collection.to_owned(), collection_id: 0 })),
    }
}

impl Stream {
    async fn open(rig: &Rig) -> Self {
        let (requests, queue) = mpsc::channel(64);
        requests.send(open("default")).await.unwrap();
        let replies = rig.kv().batch_put(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let mut stream = Self { requests, replies, opened: Opened::default(), sequence: [0; 3] };
        match stream.next().await {
            Reply::Opened(opened) => stream.opened = opened,
            other => panic!("{other:?} opens no stream"),
        }
        stream
    }

    /// The next reply that is no credit.
    async fn next(&mut self) -> Reply {
        loop {
            match self.replies.message().await.unwrap().unwrap().message.unwrap() {
                Reply::Credit(_) => {}
                reply => return reply,
            }
        }
    }

    async fn send(&self, id: u64, partition: u32, batch: Bytes) {
        let message = Some(Ask::Batch(Batch { id, partition, batch }));
        self.requests.send(ProduceRequest { message }).await.unwrap();
    }

    /// The next batch of the stream's producer for a partition.
    fn batch(&mut self, partition: u32, keys: &[String], compression: Compression) -> Bytes {
        let sequence = &mut self.sequence[usize::try_from(partition).unwrap()];
        let stamp = ProducerStamp { id: 42, epoch: 0, base_sequence: *sequence };
        *sequence = sequence_after(*sequence, u32::try_from(keys.len()).unwrap());
        batch(stamp, keys, compression)
    }

    async fn failed(&mut self, id: u64) -> (String, i32) {
        match self.next().await {
            Reply::Failed(failed) => {
                assert_eq!(failed.id, id);
                let detail = failed.detail.unwrap();
                assert!(!detail.message.is_empty());
                (detail.code, detail.outcome)
            }
            other => panic!("{other:?} is no failure"),
        }
    }
}

fn batch(stamp: ProducerStamp, keys: &[String], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(stamp, compression);
    for key in keys {
        builder
            .push(1, Some(key.as_bytes()), Some(format!("value of {key}").as_bytes()), &[])
            .unwrap();
    }
    builder.finish().unwrap().to_bytes()
}

#[tokio::test]
async fn the_stream_opens_with_the_limits_and_a_credit() {
    let rig = Rig::start().await;
    let stream = Stream::open(&rig).await;
    assert_eq!(stream.opened.credit_bytes, 16 << 20);
    let limits = stream.opened.limits.unwrap();
    assert_eq!((limits.max_key_bytes, limits.max_value_bytes), (4 << 10, 1 << 20));
    assert_eq!((limits.max_message_bytes, limits.max_keyed_batch_records), (8 << 20, 4096));
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn every_batch_is_acknowledged_with_dense_offsets_and_reads_back() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig).await;
    let mut id = 0;
    let mut next = [0_u64; 3];
    for round in 0..4 {
        for partition in 0..3_u32 {
            let keys = keys_of(partition, 3, 10 * round, 10);
            let codec = [Compression::None, Compression::Zstd][usize::from(round % 2 == 1)];
            let bytes = stream.batch(partition, &keys, codec);
            stream.send(id, partition, bytes).await;
            id += 1;
        }
    }
    for _ in 0..id {
        let Reply::Ack(ack) = stream.next().await else { panic!("a failure") };
        let partition = usize::try_from(ack.partition).unwrap();
        assert_eq!(ack.base_offset, next[partition], "acknowledged in order per partition");
        assert!(ack.revision > 0 && ack.append_time_ms > 0 && !ack.duplicate);
        next[partition] += 10;
    }
    drop(stream.requests);
    assert!(stream.replies.message().await.unwrap().is_none());
    assert_eq!(rig.log_ends("default").await, [40, 40, 40]);
    let mut kv = rig.kv();
    for key in keys_of(1, 3, 0, 40) {
        let found = kv.get(get(&key)).await.unwrap().into_inner().found.unwrap();
        assert_eq!(found.value, format!("value of {key}"));
        assert_eq!(found.partition, 1);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_applied_once() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig).await;
    let bytes = stream.batch(0, &keys_of(0, 3, 0, 5), Compression::None);
    stream.send(1, 0, bytes.clone()).await;
    let Reply::Ack(first) = stream.next().await else { panic!("a failure") };
    drop(stream);

    let mut stream = Stream::open(&rig).await;
    stream.send(1, 0, bytes).await;
    let Reply::Ack(again) = stream.next().await else { panic!("a failure") };
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.revision), (first.base_offset, first.revision));
    assert_eq!(rig.log_ends("default").await[0], 5);
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn after_a_failure_the_rest_of_the_partitions_window_is_not_applied() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig).await;
    let good = stream.batch(0, &keys_of(0, 3, 0, 2), Compression::None);
    let mut bad = stream.batch(0, &keys_of(0, 3, 2, 2), Compression::None).to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let behind = stream.batch(0, &keys_of(0, 3, 4, 2), Compression::None);
    let other = stream.batch(1, &keys_of(1, 3, 0, 2), Compression::None);
    stream.send(1, 0, good).await;
    stream.send(2, 0, bad.into()).await;
    stream.send(3, 0, behind).await;
    stream.send(4, 1, other).await;
    drop(stream.requests);
    let (mut acked, mut failed) = (Vec::new(), Vec::new());
    while let Some(reply) = stream.replies.message().await.unwrap() {
        match reply.message.unwrap() {
            Reply::Ack(ack) => acked.push(ack.id),
            Reply::Failed(fail) => {
                let detail = fail.detail.unwrap();
                assert_eq!(detail.outcome, NOT_APPLIED);
                failed.push((fail.id, detail.code));
            }
            _ => {}
        }
    }
    acked.sort_unstable();
    assert_eq!(acked, [1, 4], "what was sent before and to another partition goes on");
    assert_eq!(failed.first(), Some(&(2, "batch_corrupt".to_owned())));
    assert_eq!(rig.log_ends("default").await, [2, 2, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn batches_that_break_a_rule_are_refused_whole() {
    let rig = Rig::start().await;
    let stamp = |base_sequence| ProducerStamp { id: 9, epoch: 0, base_sequence };
    let of = |keys: &[String]| batch(stamp(0), keys, Compression::None);
    let mut mixed = keys_of(0, 3, 0, 3);
    mixed.push(keys_of(1, 3, 0, 1).remove(0));
    let long = vec!["x".repeat(5000)];
    let gap = batch(stamp(7), &keys_of(0, 3, 0, 1), Compression::None);
    let cut = of(&keys_of(0, 3, 0, 3)).slice(..70);
    for (bytes, code) in [
        (of(&mixed), "wrong_partition"),
        (of(&long), "key_too_large"),
        (of(&[String::new()]), "key_empty"),
        (of(&keys_of(0, 3, 0, 4097)), "batch_invalid"),
        (gap, "unknown_producer"),
        (cut, "batch_invalid"),
        (Bytes::new(), "batch_invalid"),
    ] {
        let mut stream = Stream::open(&rig).await;
        stream.send(1, 0, bytes).await;
        assert_eq!(stream.failed(1).await, (code.to_owned(), NOT_APPLIED));
    }
    let mut stream = Stream::open(&rig).await;
    stream.send(1, 3, of(&keys_of(0, 3, 0, 1))).await;
    assert_eq!(stream.failed(1).await, ("partition_not_found".to_owned(), NOT_APPLIED));
    assert_eq!(rig.log_ends("default").await, [0, 0, 0]);
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn a_full_batch_of_a_keyed_partition_is_taken() {
    let rig = Rig::start().await;
    let mut stream = Stream::open(&rig).await;
    let bytes = stream.batch(2, &keys_of(2, 3, 0, 4096), Compression::Lz4);
    stream.send(1, 2, bytes).await;
    let Reply::Ack(ack) = stream.next().await else { panic!("a failure") };
    assert_eq!(ack.base_offset, 0);
    assert_eq!(rig.log_ends("default").await, [0, 0, 4096]);
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_begins_with_its_collection_and_names_it_once() {
    let rig = Rig::start().await;
    for messages in [
        vec![ProduceRequest { message: Some(Ask::Batch(Batch::default())) }],
        vec![ProduceRequest { message: None }],
        vec![open("default"), open("default")],
    ] {
        let (requests, queue) = mpsc::channel(4);
        for message in messages {
            requests.send(message).await.unwrap();
        }
        let error = first_error(&rig, queue).await;
        refused(&error, Code::InvalidArgument, "invalid_argument");
    }
    let (requests, queue) = mpsc::channel(4);
    requests.send(open("nowhere")).await.unwrap();
    let error = first_error(&rig, queue).await;
    refused(&error, Code::NotFound, "collection_not_found");

    let (requests, mut replies) = raw(&rig).await.unwrap();
    drop(requests);
    // Nothing was said, so there is nothing to answer.
    let _end = replies.message().await;
    rig.stop().await;
}

async fn first_error(rig: &Rig, queue: mpsc::Receiver<ProduceRequest>) -> Status {
    match rig.kv().batch_put(ReceiverStream::new(queue)).await {
        Err(status) => status,
        Ok(reply) => {
            let mut replies = reply.into_inner();
            loop {
                match replies.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended well"),
                    Err(status) => return status,
                }
            }
        }
    }
}

/// Puts other records, compressed, into a batch; its length and checksum are right again.
fn with_records(batch: &[u8], codec: u8, records: &[u8]) -> Bytes {
    const HEADER_BYTES: usize = 61;
    let mut bytes = batch[..HEADER_BYTES].to_vec();
    bytes.extend_from_slice(records);
    bytes[22] = bytes[22] & !7 | codec;
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]);
    bytes[17..21].copy_from_slice(&u32::try_from(crc).unwrap().to_be_bytes());
    bytes.into()
}

#[tokio::test]
async fn a_batch_that_unpacks_to_too_much_is_cut_off_and_refused() {
    let rig = Rig::start().await;
    let stamp = ProducerStamp { id: 9, epoch: 0, base_sequence: 0 };
    let plain = batch(stamp, &keys_of(0, 3, 0, 1), Compression::None);
    let zeros = std::io::Read::take(std::io::repeat(0), 256 << 20);
    let bomb = zstd::encode_all(zeros, 1).unwrap();
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    for (codec, records) in [(4, &bomb[..]), (4, b"no zstd"), (1, b"no gzip"), (7, &bomb)] {
        let mut stream = Stream::open(&rig).await;
        stream.send(1, 0, with_records(&plain, codec, records)).await;
        assert_eq!(stream.failed(1).await, ("batch_invalid".to_owned(), NOT_APPLIED), "{codec}");
    }
    assert_eq!(rig.log_ends("default").await, [0, 0, 0]);
    // What was refused for its form is taken where its form is right.
    let mut stream = Stream::open(&rig).await;
    stream.send(1, 0, with_records(&plain, 0, &plain[61..])).await;
    let Reply::Ack(_) = stream.next().await else { panic!("a failure") };
    drop(stream);
    rig.stop().await;
}
