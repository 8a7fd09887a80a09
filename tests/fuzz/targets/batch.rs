//! A record batch: its fixed fields, its records in every way they are read, and what a node checks.

use bytes::Bytes;
use prkdb::storage::sequencer::{CheckedBatch, KeyRules, Keyless};
use prkdb_types::{
    Batch, BatchBuilder, BatchError, BatchHeader, Compression, DecompressLimit, ProducerStamp,
    SharedRecord, batch::Records,
};

use super::{seal, source::Source};

const LIMIT: DecompressLimit = DecompressLimit::new(1 << 20);

/// A flag: the length says what is there, and the checksum is made right.
const SEALED: u8 = 1;

fn same(view: &prkdb_types::RecordView<'_>, shared: &SharedRecord) {
    assert_eq!((view.offset, view.timestamp_ms), (shared.offset, shared.timestamp_ms));
    assert_eq!((view.key, view.value), (shared.key.as_deref(), shared.value.as_deref()));
    assert!(view.headers().eq(shared.headers.iter()));
    assert_eq!(view.headers().count(), view.header_count(), "no header is lost");
}

fn check_records(batch: &Batch, records: &Records) {
    let header = batch.header();
    let end = batch.next_offset();
    let mut next = batch.base_offset();
    let mut read = 0;
    let mut cursor = records.clone().into_iter();
    let mut places = Vec::new();
    let mut iter = records.iter();
    loop {
        let start = iter.position();
        match (iter.next(), cursor.next()) {
            (Some(Ok(view)), Some(Ok(shared))) => {
                same(&view, &shared);
                assert!((next..end).contains(&view.offset), "offsets rise within the batch");
                next = view.offset + 1;
                if places.len() < 8 {
                    places.push((start, read, shared));
                }
                read += 1;
            }
            (None, None) => break,
            (Some(Err(_)), Some(Err(_))) => return,
            other => panic!("two ways of reading differ: {other:?}"),
        }
    }
    assert_eq!(read, header.record_count(), "all records were read");
    for (start, ordinal, shared) in places {
        same(&records.get_at(start).expect("it was read there"), &shared);
        let found = records.get(ordinal).expect("it was read before");
        same(&found.expect("its number is below the count"), &shared);
    }
    rewrite(batch, records);
}

/// Encodes what was read, and reads that.
fn rewrite(batch: &Batch, records: &Records) {
    let header = batch.header();
    let stamp = ProducerStamp {
        id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
    };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    for view in records.iter().flatten() {
        let headers: Vec<(&str, &[u8])> =
            view.headers().map(|(name, value)| (name, value.unwrap_or_default())).collect();
        builder.push(view.timestamp_ms, view.key, view.value, &headers).expect("it fits");
    }
    let written = builder.finish().expect("it holds a record");
    let again = written.records(LIMIT).expect("it is not compressed");
    for (read, written) in records.iter().flatten().zip(again.iter()) {
        let written = written.expect("it was written by us");
        assert_eq!((read.key, read.value), (written.key, written.value));
        assert_eq!(read.timestamp_ms, written.timestamp_ms);
    }
}

fn admit(bytes: &Bytes) {
    let _events = CheckedBatch::check(bytes.clone(), None);
    let partition_of = |key: &[u8]| u32::from(key[0] & 1);
    for keyless in [Keyless::Refused, Keyless::Allowed] {
        let rules = KeyRules {
            bytes_max: 64,
            value_bytes_max: 4096,
            records_max: 4096,
            decompressed_bytes_max: 1 << 20,
            number: 0,
            partition_of: &partition_of,
            keyless,
        };
        if let Ok(checked) = CheckedBatch::check(bytes.clone(), Some(&rules)) {
            assert_eq!(checked.len_bytes(), bytes.len());
            assert!((1..=4096).contains(&checked.record_count()));
        }
    }
}

/// Flags, a batch.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let flags = source.byte();
    let mut bytes = source.rest().to_vec();
    if flags & SEALED != 0 && bytes.len() > 21 {
        let length = i32::try_from(bytes.len() - 12).unwrap_or_default();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        seal::batch(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    admit(&bytes);
    let _first = Records::first_len(&bytes);
    if let Some(header) = BatchHeader::peek(&bytes) {
        // A part of a batch, as a get reads it: no count is believed.
        let _part = Records::part_of(&header, bytes.clone()).get_at(u32::from(flags));
    }
    let batch = match Batch::parse(bytes.clone()) {
        Ok(batch) => batch,
        Err(BatchError::TrailingBytes(_)) => match Batch::split_first(&bytes) {
            Ok((batch, len)) => {
                assert_eq!(batch.len(), len);
                batch
            }
            Err(_) => return,
        },
        Err(_) => return,
    };
    assert_eq!(batch.to_bytes(), bytes[..batch.len()], "a batch is written as it was read");
    let parts = Batch::from_parts(*batch.head(), batch.tail().clone());
    assert_eq!(parts.ok().as_ref(), Some(&batch));
    assert!(batch.next_offset() > batch.base_offset());
    let _crc = batch.verify_crc();
    let _produced = batch.header().check_produced();
    if let Ok(records) = batch.records(LIMIT) {
        assert!(records.payload_len() <= LIMIT.for_input(bytes.len()).max(bytes.len()));
        check_records(&batch, &records);
    }
}

/// Batches of every codec, and one with headers.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for codec in Compression::ALL {
        let stamp = ProducerStamp { id: 7, epoch: 1, base_sequence: 30 };
        let mut builder = BatchBuilder::new(stamp, *codec);
        for record in 0..6_u8 {
            let key = (record != 3).then_some([2 * record]);
            let value = (record != 4).then_some(b"door opened, door opened".as_slice());
            let key = key.as_ref().map(<[u8; 1]>::as_slice);
            let headers: &[(&str, &[u8])] = &[("from", b"gate"), ("", b"")];
            let headers = if record == 2 { headers } else { &[] };
            builder.push(1000 + i64::from(record), key, value, headers).expect("it fits");
        }
        let batch = builder.finish_bytes().expect("it holds records");
        seeds.push([&[SEALED][..], &batch].concat());
        seeds.push([&[0][..], &batch].concat());
    }
    seeds
}
