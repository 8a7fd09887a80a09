//! What holds for record batches and partitioners, whoever wrote the bytes.

#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]

mod adapters;
mod agreement;
mod damage;
mod golden;
mod partitions;

use bytes::Bytes;
use prkdb_types::{Batch, DecompressLimit, RecordView, SharedRecord};
use proptest::prelude::*;

/// Enough for every batch of these tests.
const LIMIT: DecompressLimit = DecompressLimit::new(64 << 20);

/// A record that owns what it holds, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    timestamp_ms: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

impl From<RecordView<'_>> for Owned {
    fn from(record: RecordView<'_>) -> Self {
        Self {
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice)))
                .collect(),
        }
    }
}

impl From<SharedRecord> for Owned {
    fn from(record: SharedRecord) -> Self {
        Self {
            timestamp_ms: record.timestamp_ms,
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice)))
                .collect(),
            key: record.key,
            value: record.value,
        }
    }
}

fn owned_records(batch: &Batch) -> Vec<Owned> {
    let records = batch.records(LIMIT).unwrap();
    let read: Vec<Owned> = records.iter().map(|record| Owned::from(record.unwrap())).collect();
    let offsets: Vec<u64> = records.iter().map(|record| record.unwrap().offset).collect();
    let shared: Vec<SharedRecord> = records.into_iter().map(Result::unwrap).collect();
    assert!(shared.iter().map(|record| record.offset).eq(offsets));
    assert_eq!(shared.into_iter().map(Owned::from).collect::<Vec<_>>(), read);
    read
}

fn payload() -> impl Strategy<Value = Option<Bytes>> {
    let bytes = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..5000_usize).prop_map(|(byte, count)| vec![byte; count]),
    ];
    proptest::option::weighted(0.8, bytes.prop_map(Bytes::from))
}

/// Records as a producer of ours would write them: every header has a value.
fn records() -> impl Strategy<Value = Vec<Owned>> {
    let header = ("[a-zé.-]{0,12}", payload().prop_map(|value| Some(value.unwrap_or_default())));
    let headers = proptest::collection::btree_map(header.0, header.1, 0..4)
        .prop_map(|headers| headers.into_iter().collect());
    let record = (0_i64..2_000_000_000_000, payload(), payload(), headers).prop_map(
        |(timestamp_ms, key, value, headers)| Owned { timestamp_ms, key, value, headers },
    );
    proptest::collection::vec(record, 1..30)
}
