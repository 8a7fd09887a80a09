//! Another implementation of the format reads what we write, and we read what it writes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records as kafka;
use prkdb_types::{Batch, BatchBuilder, Compression, ProducerStamp};
use proptest::prelude::*;

use super::{LIMIT, Owned, owned_records, records};

const STAMP: ProducerStamp = ProducerStamp { id: 0x1234_5678_9abc, epoch: 3, base_sequence: 40 };

fn kafka_compression(compression: Compression) -> kafka::Compression {
    match compression {
        Compression::None => kafka::Compression::None,
        Compression::Gzip => kafka::Compression::Gzip,
        Compression::Snappy => kafka::Compression::Snappy,
        Compression::Lz4 => kafka::Compression::Lz4,
        Compression::Zstd => kafka::Compression::Zstd,
    }
}

fn theirs_to_owned(record: &kafka::Record) -> Owned {
    Owned {
        timestamp_ms: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect(),
    }
}

fn encode_theirs(records: &[Owned], compression: Compression, base_offset: i64) -> Bytes {
    let records: Vec<kafka::Record> = (0_i32..)
        .zip(records)
        .map(|(index, record)| kafka::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 9,
            producer_id: STAMP.id,
            producer_epoch: STAMP.epoch,
            timestamp_type: kafka::TimestampType::Creation,
            offset: base_offset + i64::from(index),
            sequence: STAMP.base_sequence + index,
            timestamp: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.clone().into(), value.clone()))
                .collect(),
        })
        .collect();
    let options =
        kafka::RecordEncodeOptions { version: 2, compression: kafka_compression(compression) };
    let mut bytes = BytesMut::new();
    kafka::RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

fn encode_ours(records: &[Owned], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(STAMP, compression);
    for record in records {
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default()))
            .collect();
        builder
            .push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers)
            .unwrap();
    }
    let len_max = builder.len_bytes();
    let batch = builder.finish().unwrap();
    assert!(batch.len() <= len_max);
    batch
}

fn assert_theirs_reads_ours(records: &[Owned], compression: Compression) -> kafka::Compression {
    let mut batch = encode_ours(records, compression);
    batch.verify_crc().unwrap();
    batch.header().check_produced().unwrap();
    batch.set_base_offset(1_000_000_007);
    batch.set_leader_epoch(12);
    let mut bytes = batch.to_bytes();
    let set = kafka::RecordBatchDecoder::decode(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    let found: Vec<Owned> = set.records.iter().map(theirs_to_owned).collect();
    assert_eq!(found, records);
    for (index, record) in (0_i32..).zip(&set.records) {
        assert_eq!(record.offset, 1_000_000_007 + i64::from(index));
        assert_eq!(record.sequence, STAMP.base_sequence + index);
        assert_eq!(record.partition_leader_epoch, 12);
        assert_eq!((record.producer_id, record.producer_epoch), (STAMP.id, STAMP.epoch));
    }
    set.compression
}

fn assert_ours_reads_theirs(records: &[Owned], compression: Compression) {
    let bytes = encode_theirs(records, compression, 5_000_000_000);
    let batch = Batch::parse(bytes.clone()).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(owned_records(&batch), records);
    let header = batch.header();
    header.check_produced().unwrap();
    assert_eq!(header.compression().unwrap(), compression);
    assert_eq!(header.leader_epoch, 9);
    assert_eq!((header.producer_id, header.producer_epoch), (STAMP.id, STAMP.epoch));
    assert_eq!(header.base_sequence, STAMP.base_sequence);
    assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp_ms).max().unwrap());
    assert_eq!(batch.base_offset(), 5_000_000_000);
    let read = batch.records(LIMIT).unwrap();
    for (ordinal, record) in (0_u32..).zip(records) {
        let found = read.get(ordinal).unwrap().unwrap();
        assert_eq!(found.offset, 5_000_000_000 + u64::from(ordinal));
        assert_eq!(found.key_bytes(), record.key);
        assert_eq!(found.value_bytes(), record.value);
    }
    assert!(read.get(read.count()).unwrap().is_none());
    assert_eq!(batch.to_bytes(), bytes);
}

/// Records that every codec makes smaller, but not a hundredfold.
fn text_records() -> Vec<Owned> {
    let words = ["carrier", "delayed", "landed", "tail number", "gate", "scheduled"];
    (0..2000_u32)
        .map(|n| {
            let word = words[usize::try_from(n.wrapping_mul(2_654_435_761) % 6).unwrap()];
            Owned {
                timestamp_ms: 1_357_034_400_000 + i64::from(n),
                key: Some(Bytes::from(format!("N{:05}", n.wrapping_mul(48_271) % 65_537))),
                value: (n % 10 != 0).then(|| Bytes::from(format!("{word} {n} {word}"))),
                headers: vec![("source".into(), Some(Bytes::from_static(b"ewr")))],
            }
        })
        .collect()
}

#[test]
fn every_codec_is_read_by_the_other_side_compressed() {
    for compression in Compression::ALL {
        let found = assert_theirs_reads_ours(&text_records(), *compression);
        assert_eq!(found, kafka_compression(*compression), "compression did not help");
        assert_ours_reads_theirs(&text_records(), *compression);
    }
}

#[test]
fn a_single_record_has_the_bytes_of_a_built_batch_and_of_the_other_side() {
    let record = Owned {
        timestamp_ms: 7,
        key: Some(Bytes::from_static(b"k")),
        value: None,
        headers: vec![("h".into(), Some(Bytes::new()))],
    };
    let records = [record];
    let single = Batch::single(STAMP, 7, Some(b"k"), None, &[("h", b"")]).unwrap();
    assert_eq!(single, encode_ours(&records, Compression::None));
    let theirs = Batch::parse(encode_theirs(&records, Compression::None, 0)).unwrap();
    assert_eq!(single.tail(), theirs.tail());
    assert_eq!(single.crc(), theirs.crc());
}

#[test]
fn headers_without_a_value_are_read() {
    let record = Owned {
        timestamp_ms: 0,
        key: None,
        value: Some(Bytes::from_static(b"v")),
        headers: vec![("none".into(), None), ("empty".into(), Some(Bytes::new()))],
    };
    assert_ours_reads_theirs(&[record], Compression::None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn theirs_reads_what_ours_writes(records in records(), codec in 0_usize..5) {
        assert_theirs_reads_ours(&records, Compression::ALL[codec]);
    }

    #[test]
    fn ours_reads_what_theirs_writes(records in records(), codec in 0_usize..5) {
        // The bound on decompression is ours: single-valued records beyond it are not written.
        let plain = encode_theirs(&records, Compression::None, 0).len();
        let packed = encode_theirs(&records, Compression::ALL[codec], 0).len();
        prop_assume!(plain < 50 * (packed - 61));
        assert_ours_reads_theirs(&records, Compression::ALL[codec]);
    }

    #[test]
    fn ours_reads_what_ours_writes(records in records(), codec in 0_usize..5) {
        let batch = encode_ours(&records, Compression::ALL[codec]);
        let parsed = Batch::parse(batch.to_bytes()).unwrap();
        prop_assert_eq!(&parsed, &batch);
        prop_assert_eq!(owned_records(&parsed), records);
    }
}
