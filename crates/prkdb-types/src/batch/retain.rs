//! A batch without some of its records.
//!
//! What is kept stands as it stood: base offset, last offset, producer, sequence and codec are those of the
//! batch, so that offsets and repeats mean what they meant. Only the count, the largest timestamp and the
//! checksum are new.

use super::{Batch, BatchError, BatchHeader, DecompressLimit, HEADER_LEN, RecordView};

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Every record: the batch as it is.
    All,
    /// Some of them.
    Some(Batch),
    /// None.
    None,
}

impl Batch {
    /// Returns the batch without the records that `keeps` does not want. It is told where each record
    /// begins among the records of this batch, as for [`super::Records::get_at`].
    ///
    /// # Errors
    /// Those of reading the records, and [`BatchError::Compress`].
    pub fn retain(
        &self,
        limit: DecompressLimit,
        mut keeps: impl FnMut(u32, &RecordView<'_>) -> bool,
    ) -> Result<Retained, BatchError> {
        let header = self.header();
        let records = self.records(limit)?;
        let mut plain = Vec::new();
        let (mut kept, mut max_timestamp) = (0_u32, i64::MIN);
        let mut iter = records.iter();
        loop {
            let start = iter.position();
            let Some(record) = iter.next() else { break };
            let record = record?;
            if !keeps(start, &record) {
                continue;
            }
            plain.extend_from_slice(records.bytes(start, iter.position()));
            kept += 1;
            max_timestamp = max_timestamp.max(record.timestamp_ms);
        }
        if kept == header.record_count() {
            return Ok(Retained::All);
        }
        if kept == 0 {
            return Ok(Retained::None);
        }
        let count = i32::try_from(kept).unwrap_or(i32::MAX);
        Self::with_records(&BatchHeader { count, max_timestamp, ..header }, &plain)
            .map(Retained::Some)
    }

    fn with_records(header: &BatchHeader, plain: &[u8]) -> Result<Self, BatchError> {
        let mut whole = Vec::with_capacity(HEADER_LEN + plain.len());
        whole.resize(HEADER_LEN, 0);
        let codec = header.compression()?;
        codec.compress(plain, &mut whole)?;
        // It is left out where it would not help, as its producer leaves it out.
        let compressed = whole.len() - HEADER_LEN;
        let is_readable = plain.len() <= DecompressLimit::new(usize::MAX).for_input(compressed);
        let mut header = *header;
        if compressed >= plain.len() || !is_readable {
            whole.truncate(HEADER_LEN);
            whole.extend_from_slice(plain);
            header.attributes &= !super::header::COMPRESSION_MASK;
        }
        let length = i32::try_from(whole.len() - super::header::LENGTH_END);
        header.length = length.map_err(|_| BatchError::TooLarge { limit: whole.len() })?;
        Self::seal(&header, &mut whole);
        Self::parse(whole.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BatchBuilder, Compression, ProducerStamp};

    const LIMIT: DecompressLimit = DecompressLimit::new(1 << 20);

    fn batch(codec: Compression, values: &[Vec<u8>]) -> Batch {
        let stamp = ProducerStamp { id: 7, epoch: 1, base_sequence: 40 };
        let mut builder = BatchBuilder::new(stamp, codec);
        for (number, value) in (0_i64..).zip(values) {
            let key = number.to_be_bytes();
            builder.push(1000 + number * 7 % 5, Some(&key), Some(value), &[("h", b"v")]).unwrap();
        }
        let mut batch = builder.finish().unwrap();
        batch.set_base_offset(77);
        batch.set_leader_epoch(3);
        batch
    }

    type Row = (u64, i64, Vec<u8>, Vec<u8>, usize);

    fn rows(batch: &Batch) -> Vec<Row> {
        let records = batch.records(LIMIT).unwrap();
        let row = |record: RecordView<'_>| {
            let (key, value) = (record.key.unwrap().to_vec(), record.value.unwrap().to_vec());
            (record.offset, record.timestamp_ms, key, value, record.header_count())
        };
        records.iter().map(|record| row(record.unwrap())).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_stands_as_it_stood(
            values in prop::collection::vec(prop::collection::vec(0_u8..4, 0..60), 1..40),
            keeps in prop::collection::vec(any::<bool>(), 40),
        ) {
            for codec in Compression::ALL {
                let batch = batch(*codec, &values);
                let all = rows(&batch);
                let is_kept = |row: &Row| keeps[usize::try_from(row.0 - 77).unwrap()];
                let expected: Vec<Row> = all.iter().filter(|row| is_kept(row)).cloned().collect();
                let mut starts = Vec::new();
                let retained = batch.retain(LIMIT, |start, record| {
                    starts.push((start, record.offset));
                    keeps[usize::try_from(record.offset - 77).unwrap()]
                }).unwrap();
                let records = batch.records(LIMIT).unwrap();
                for (start, offset) in starts {
                    prop_assert_eq!(records.get_at(start).unwrap().offset, offset);
                }
                match retained {
                    Retained::All => prop_assert_eq!(expected.len(), all.len()),
                    Retained::None => prop_assert!(expected.is_empty()),
                    Retained::Some(left) => {
                        left.verify_crc().unwrap();
                        prop_assert_eq!(rows(&left), expected);
                        let (before, after) = (batch.header(), left.header());
                        prop_assert_eq!(after.offset_count(), before.offset_count());
                        prop_assert_eq!(left.next_offset(), batch.next_offset());
                        prop_assert_eq!(after.leader_epoch, 3);
                        prop_assert_eq!(
                            (after.producer_id, after.producer_epoch, after.base_sequence),
                            (7, 1, 40)
                        );
                        let latest = rows(&left).iter().map(|row| row.1).max().unwrap();
                        prop_assert_eq!(after.max_timestamp, latest);
                        prop_assert!(left.len() <= batch.len() * 5 / 4 + 64);
                    }
                }
            }
        }
    }
}
