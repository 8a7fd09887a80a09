//! The codecs: whatever is packed, no more comes out than is allowed, and no length is believed.

use bytes::Bytes;
use prkdb_types::{Batch, BatchBuilder, BatchError, Compression, DecompressLimit, ProducerStamp};

use super::{seal, source::Source};

/// Bytes in front of the records.
const FIELDS: usize = 61;

fn batch(codec: Compression, packed: &[u8]) -> Option<Batch> {
    let mut whole = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
    whole.push(7, None, Some(b"one"), &[]).ok()?;
    let mut whole = whole.finish_bytes().ok()?.to_vec();
    whole.truncate(FIELDS);
    whole.extend_from_slice(packed);
    let length = i32::try_from(whole.len() - 12).ok()?;
    whole[8..12].copy_from_slice(&length.to_be_bytes());
    whole[21..23].copy_from_slice(&codec.number().to_be_bytes());
    seal::batch(&mut whole);
    Batch::parse(Bytes::from(whole)).ok()
}

/// The codec, a limit, what is packed.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let codec = Compression::ALL[usize::from(source.below(5))];
    let limit = DecompressLimit::new(16 << (source.byte() & 15));
    let packed = source.rest();
    let Some(batch) = batch(codec, packed) else { return };
    let cap = limit.for_input(packed.len());
    match batch.records(limit) {
        Ok(records) => {
            assert!(records.payload_len() <= cap || codec == Compression::None, "{codec}");
            // Whatever it is, reading it ends.
            let _read = records.iter().count();
        }
        Err(BatchError::TooLarge { limit }) => assert_eq!(limit, cap),
        Err(error) => assert!(matches!(error, BatchError::Decompress { .. }), "{error}"),
    }
}

/// What each codec makes of the same bytes, small and large.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, codec) in (0..).zip(Compression::ALL) {
        for len in [40, 3000] {
            let value: Vec<u8> = (0..len).map(|at: u32| (at % 23).to_le_bytes()[0]).collect();
            let mut builder = BatchBuilder::new(ProducerStamp::NONE, *codec);
            builder.push(7, Some(b"key"), Some(&value), &[]).expect("it fits");
            builder.push(7, Some(b"key"), Some(&value), &[]).expect("it fits");
            let batch = builder.finish_bytes().expect("it holds records");
            let packed = &batch[FIELDS..];
            if packed.len() < 600 {
                seeds.push([&[number, 12][..], packed].concat());
            }
        }
    }
    seeds
}
