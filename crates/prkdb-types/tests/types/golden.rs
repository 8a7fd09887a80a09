//! The bytes of a batch are frozen: `tests/golden/batch` holds them as hex under a sentence in prose.

use std::{fmt::Write as _, fs, path::PathBuf};

use bytes::Bytes;
use prkdb_types::{Batch, BatchBuilder, Compression, ProducerStamp};

use super::{Owned, owned_records};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/batch").join(name)
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for (index, byte) in line.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(text, "{gap}{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Bytes {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Checks that `batch` has the bytes of the file and that these give the same records again.
fn assert_golden(name: &str, prose: &str, batch: &Batch) {
    let path = golden(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{prose}\n{}", to_hex(&batch.to_bytes()))).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let (first, hex) = text.split_once('\n').unwrap();
    assert_eq!(first, prose);
    assert_eq!(to_hex(&batch.to_bytes()), hex, "{}", path.display());
    let parsed = Batch::parse(from_hex(hex)).unwrap();
    parsed.verify_crc().unwrap();
    assert_eq!(owned_records(&parsed), owned_records(batch));
}

#[test]
fn one_put() {
    let batch =
        Batch::single(ProducerStamp::NONE, 1_385_251_200_000, Some(b"key"), Some(b"value"), &[])
            .unwrap();
    let prose = "One record, key \"key\" and value \"value\", without a producer, not placed yet.";
    assert_golden("one_put.txt", prose, &batch);
}

#[test]
fn one_tombstone_placed() {
    let stamp = ProducerStamp { id: 0x0123_4567_89ab_cdef, epoch: 1, base_sequence: 0x7fff_ffff };
    let mut batch = Batch::single(stamp, 1_385_251_200_000, Some(b"key"), None, &[]).unwrap();
    batch.set_base_offset(4_294_967_296);
    batch.set_leader_epoch(7);
    let prose = "A tombstone of a producer at its last sequence, placed at offset 2^32 in epoch 7.";
    assert_golden("one_tombstone_placed.txt", prose, &batch);
}

#[test]
fn three_records_with_headers() {
    let stamp = ProducerStamp { id: 42, epoch: 0, base_sequence: 10 };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    builder.push(1000, Some(b""), Some(b""), &[]).unwrap();
    builder.push(2000, None, Some(b"event"), &[("a", b"1"), ("b", b"")]).unwrap();
    builder.push(0, Some(&[0xff; 70]), None, &[("c", &[0; 64])]).unwrap();
    let batch = builder.finish().unwrap();
    assert_eq!(
        owned_records(&batch)[1],
        Owned {
            timestamp_ms: 2000,
            key: None,
            value: Some(Bytes::from_static(b"event")),
            headers: vec![
                ("a".into(), Some(Bytes::from_static(b"1"))),
                ("b".into(), Some(Bytes::new())),
            ],
        }
    );
    let prose = "Three records: empty key and value; an event with two headers; a long key, \
                 earlier than the first, deleted, with a header.";
    assert_golden("three_records_with_headers.txt", prose, &batch);
}
