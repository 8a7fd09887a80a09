//! Damaged, cut and made-up batches are refused, and never cost more than their bytes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records as kafka;
use prkdb_types::{
    Batch, BatchBuilder, BatchError, Compression, DecompressLimit, ErrorCode, ProducerStamp, crc32c,
};
use proptest::prelude::*;

use super::LIMIT;

const STAMP: ProducerStamp = ProducerStamp { id: 77, epoch: 0, base_sequence: 0 };

fn small_batch() -> Batch {
    let mut builder = BatchBuilder::new(STAMP, Compression::None);
    builder.push(1000, Some(b"one"), Some(b"1"), &[("h", b"x")]).unwrap();
    builder.push(1001, Some(b"two"), None, &[]).unwrap();
    let mut batch = builder.finish().unwrap();
    batch.set_base_offset(5);
    batch.set_leader_epoch(2);
    batch
}

/// Writes `bytes` at `at` and makes the checksum right again.
fn forged(at: usize, bytes: &[u8]) -> Bytes {
    let mut whole = small_batch().to_bytes().to_vec();
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&whole[21..]);
    whole[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(whole)
}

fn parse_error(at: usize, bytes: &[u8]) -> BatchError {
    let error = Batch::parse(forged(at, bytes)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BatchInvalid);
    error
}

#[test]
fn no_flipped_bit_verifies() {
    let whole = small_batch().to_bytes();
    let mut refused = 0;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let checked =
            Batch::parse(Bytes::from(bytes)).and_then(|batch| batch.verify_crc().map(|()| batch));
        match (bit / 8, checked) {
            // What the server stamps lies outside of the checksum, and is seen as what it is.
            (0..8, Ok(batch)) => assert_ne!(batch.base_offset(), 5),
            (12..16, Ok(batch)) => assert_ne!(batch.header().leader_epoch, 2),
            (_, Ok(_)) => panic!("bit {bit} flipped and not noticed"),
            (_, Err(_)) => refused += 1,
        }
    }
    // The sign of the base offset is refused too.
    assert_eq!(refused, whole.len() * 8 - 63 - 32);
}

#[test]
fn every_truncation_is_refused() {
    let whole = small_batch().to_bytes();
    for cut in 0..whole.len() {
        let part = whole.slice(..cut);
        assert!(matches!(Batch::parse(part.clone()), Err(BatchError::Truncated { .. })));
        assert!(matches!(Batch::split_first(&part), Err(BatchError::Truncated { .. })));
    }
}

#[test]
fn a_run_of_batches_splits_and_is_not_one_batch() {
    let one = small_batch().to_bytes();
    let two = Bytes::from([one.as_ref(), one.as_ref()].concat());
    let trailing = Batch::parse(two.clone()).unwrap_err();
    assert!(matches!(trailing, BatchError::TrailingBytes(bytes) if bytes == one.len()));
    let (first, length) = Batch::split_first(&two).unwrap();
    assert_eq!((first, length), (small_batch(), one.len()));
    let (second, _) = Batch::split_first(&two.slice(length..)).unwrap();
    assert_eq!(second, small_batch());
}

#[test]
fn head_and_tail_that_came_apart_are_checked_as_one() {
    let whole = small_batch().to_bytes();
    let head: [u8; 21] = *whole.first_chunk().unwrap();
    let tail = whole.slice(21..);
    assert_eq!(Batch::from_parts(head, tail.clone()).unwrap(), small_batch());
    let cut = Batch::from_parts(head, tail.slice(..tail.len() - 1)).unwrap_err();
    assert!(matches!(cut, BatchError::Truncated { needed, .. } if needed == whole.len()));
    let longer = Bytes::from([tail.as_ref(), &[0]].concat());
    let longer = Batch::from_parts(head, longer).unwrap_err();
    assert!(matches!(longer, BatchError::TrailingBytes(1)));
    for (at, bytes) in [(8, &[0xff; 4][..]), (16, &[1]), (0, &[0xff; 8])] {
        let forged = forged(at, bytes);
        let head = *forged.first_chunk().unwrap();
        let apart = Batch::from_parts(head, forged.slice(21..)).unwrap_err();
        assert_eq!(apart.to_string(), Batch::parse(forged).unwrap_err().to_string());
    }
}

#[test]
fn stamping_leaves_the_checksum_and_the_records_as_they_are() {
    let mut batch = small_batch();
    let before = batch.clone();
    batch.set_base_offset(u64::from(u32::MAX) * 9);
    batch.set_leader_epoch(i32::MAX);
    batch.verify_crc().unwrap();
    assert_eq!(batch.tail(), before.tail());
    assert_eq!(batch.base_offset(), u64::from(u32::MAX) * 9);
    let records = batch.records(LIMIT).unwrap();
    assert_eq!(records.get(1).unwrap().unwrap().offset, u64::from(u32::MAX) * 9 + 1);
}

#[test]
fn impossible_fixed_fields_are_refused() {
    assert!(matches!(parse_error(0, &[0xff; 8]), BatchError::BaseOffset(-1)));
    assert!(matches!(parse_error(0, &i64::MAX.to_be_bytes()), BatchError::BaseOffset(i64::MAX)));
    assert!(matches!(parse_error(8, &48_i32.to_be_bytes()), BatchError::Length(48)));
    assert!(matches!(parse_error(8, &[0xff; 4]), BatchError::Length(-1)));
    assert!(matches!(parse_error(8, &i32::MAX.to_be_bytes()), BatchError::Truncated { .. }));
    assert!(matches!(parse_error(16, &[1]), BatchError::Magic(1)));
    assert!(matches!(parse_error(22, &[5]), BatchError::UnknownCompression(5)));
    assert!(matches!(parse_error(57, &[0; 4]), BatchError::Count(0)));
    assert!(matches!(parse_error(57, &[0xff; 4]), BatchError::Count(-1)));
    assert!(matches!(parse_error(57, &i32::MAX.to_be_bytes()), BatchError::Count(i32::MAX)));
    assert!(matches!(parse_error(23, &[0; 4]), BatchError::LastOffsetDelta { .. }));
    assert!(matches!(parse_error(43, &[0xff; 8]), BatchError::Producer { id: -1, .. }));
    assert!(matches!(parse_error(51, &[0xff; 2]), BatchError::Producer { epoch: -1, .. }));
}

#[test]
fn gaps_are_read_but_not_taken_from_a_producer() {
    let batch = Batch::parse(forged(23, &9_i32.to_be_bytes())).unwrap();
    let header = batch.header();
    assert!(!header.is_dense());
    assert_eq!((header.record_count(), header.offset_count()), (2, 10));
    assert!(matches!(header.check_produced(), Err(BatchError::LastOffsetDelta { .. })));
    assert_eq!(batch.records(LIMIT).unwrap().iter().filter_map(Result::ok).count(), 2);
}

#[test]
fn control_and_transactional_batches_are_not_taken_from_a_producer() {
    for bit in 3..8 {
        let batch = Batch::parse(forged(22, &[1 << bit])).unwrap();
        let error = batch.header().check_produced().unwrap_err();
        assert!(matches!(error, BatchError::Attributes(_)), "bit {bit}");
    }
}

#[test]
fn a_record_that_does_not_decode_is_named_by_its_index() {
    let records_at = 61;
    let first_len = usize::from(small_batch().to_bytes()[records_at] / 2);
    let second_at = records_at + 1 + first_len;
    // The offset delta of the second record: 0 and 2 instead of 1.
    for delta in [0, 4] {
        let batch = Batch::parse(forged(second_at + 3, &[delta])).unwrap();
        let records = batch.records(LIMIT).unwrap();
        let found: Vec<_> = records.iter().collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].is_ok());
        assert!(matches!(found[1], Err(BatchError::Record { index: 1, .. })));
    }
    // A length of the key that goes beyond the record.
    let batch = Batch::parse(forged(records_at + 4, &[120])).unwrap();
    let records = batch.records(LIMIT).unwrap();
    let error = records.iter().next().unwrap().unwrap_err();
    assert!(matches!(error, BatchError::Record { index: 0, .. }));
    assert_eq!(error.code(), ErrorCode::BatchInvalid);
    assert!(records.get(0).is_err());
    assert!(records.get(1).unwrap().is_some());
    // A header's name that is not UTF-8.
    let name_at = second_at - 3;
    assert_eq!(small_batch().to_bytes()[name_at], b'h');
    let batch = Batch::parse(forged(name_at, &[0xff])).unwrap();
    assert!(batch.records(LIMIT).unwrap().iter().next().unwrap().is_err());
}

#[test]
fn a_record_of_the_cursor_shares_the_buffer_and_outlives_its_batch() {
    let tail = small_batch().tail().clone();
    let batch = Batch::from_parts(*small_batch().head(), tail.clone()).unwrap();
    let mut records = batch.records(LIMIT).unwrap().into_iter();
    let first = records.next().unwrap().unwrap();
    assert_eq!(records.records().count(), 2);
    drop((batch, records));
    let key = first.key.as_ref().unwrap();
    let buffer = tail.as_ptr_range();
    assert!(buffer.contains(&key.as_ptr()), "a slice, not a copy");
    assert_eq!((key.as_ref(), first.offset), (&b"one"[..], 5));
    assert_eq!(first.headers.iter().collect::<Vec<_>>(), [("h", Some(&b"x"[..]))]);
    assert_eq!(first.headers.len(), 1);
}

#[test]
fn fewer_records_than_bytes_are_noticed_at_the_end() {
    let batch = Batch::parse(forged(57, &1_i32.to_be_bytes())).unwrap();
    let found: Vec<_> = batch.records(LIMIT).unwrap().iter().map(|r| r.is_ok()).collect();
    assert_eq!(found, [true, false]);
    let found: Vec<_> = batch.records(LIMIT).unwrap().into_iter().map(|r| r.is_ok()).collect();
    assert_eq!(found, [true, false]);
}

#[test]
fn a_bomb_is_cut_at_the_cap_and_ours_are_never_bombs() {
    let value = Bytes::from(vec![0; 8 << 20]);
    let record = kafka::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: kafka::TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 0,
        key: None,
        value: Some(value.clone()),
        headers: std::iter::empty().collect(),
    };
    for compression in [kafka::Compression::Zstd, kafka::Compression::Gzip] {
        let mut bytes = BytesMut::new();
        let options = kafka::RecordEncodeOptions { version: 2, compression };
        kafka::RecordBatchEncoder::encode(&mut bytes, [&record], &options).unwrap();
        let packed = bytes.len() - 61;
        let batch = Batch::parse(bytes.freeze()).unwrap();
        let error = batch.records(LIMIT).unwrap_err();
        assert!(matches!(error, BatchError::TooLarge { limit } if limit == packed * 100));
        let error = batch.records(DecompressLimit::new(1000)).unwrap_err();
        assert!(matches!(error, BatchError::TooLarge { limit: 1000 }));
    }
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, *compression);
        builder.push(0, None, Some(&value), &[]).unwrap();
        let batch = builder.finish().unwrap();
        let records = batch.records(LIMIT).unwrap();
        assert_eq!(records.get(0).unwrap().unwrap().value, Some(value.as_ref()));
    }
}

#[test]
fn an_empty_batch_is_not_built() {
    let builder = BatchBuilder::new(ProducerStamp::NONE, Compression::Zstd);
    assert!(matches!(builder.finish(), Err(BatchError::Empty)));
}

#[test]
fn a_batch_in_one_buffer_is_the_same_batch_and_may_be_stamped_at_last() {
    for compression in Compression::ALL {
        let builder = |stamp| {
            let mut builder = BatchBuilder::new(stamp, *compression);
            for record in 0..50_u32 {
                builder.push(9, None, Some(&record.to_be_bytes()), &[]).unwrap();
            }
            builder
        };
        let mut late = builder(ProducerStamp::NONE);
        late.set_stamp(STAMP);
        let len_max = late.len_bytes();
        let bytes = late.finish_bytes().unwrap();
        assert!(bytes.len() <= len_max);
        assert_eq!(Batch::parse(bytes).unwrap(), builder(STAMP).finish().unwrap());
    }
}

#[test]
fn sequences_wrap_at_two_to_the_31() {
    use prkdb_types::sequence_after;
    assert_eq!(sequence_after(0, 3), 3);
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 4), 2);
    assert_eq!(sequence_after(7, 1 << 31), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn made_up_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 61..300),
        attributes in 0_u8..5,
        count in 1_i32..40,
    ) {
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[0] = 0;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[22] = attributes;
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[43..57].fill(0xff);
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        if let Ok(batch) = Batch::parse(Bytes::from(bytes)) {
            let _crc = batch.verify_crc();
            if let Ok(records) = batch.records(LIMIT) {
                let read = records.iter().map_while(Result::ok).count();
                prop_assert!(read <= usize::try_from(count).unwrap());
                for ordinal in 0..records.count() {
                    let _record = records.get(ordinal);
                }
                let all = records.iter().count();
                let mut shared = records.into_iter();
                prop_assert_eq!(shared.by_ref().map_while(Result::ok).count(), read);
                prop_assert!(all == read || shared.next().is_none(), "nothing after an error");
            }
        }
    }
}
