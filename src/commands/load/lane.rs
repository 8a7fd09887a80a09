//! One partition's records on their way: collected, cut, sent, answered, in order.

use std::collections::VecDeque;

use bytes::Bytes;
use prkdb_types::{BatchBuilder, BatchError, Compression, ProducerStamp};

use super::read::{Place, Record};

/// What a record takes in a batch beside its key and value, at most.
const RECORD_OVERHEAD: usize = 32;

/// A record that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Key and value.
    pub record: Record,
    /// Where it stood.
    pub start: Place,
    /// Its bytes as they stood, where they may be needed.
    pub raw: Vec<u8>,
}

/// Records that are applied together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// The records.
    pub entries: Vec<Entry>,
    bytes: usize,
}

impl Batch {
    /// Returns where its first record stood.
    pub(crate) fn start(&self) -> Option<Place> {
        self.entries.first().map(|entry| entry.start)
    }

    /// Returns the bytes of its keys and values.
    pub(crate) fn payload(&self) -> u64 {
        u64::try_from(self.entries.iter().map(|entry| entry.record.payload()).sum::<usize>())
            .unwrap_or(u64::MAX)
    }

    /// Encodes it: the same records, stamp and time give the same bytes.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn encode(
        &self,
        stamp: ProducerStamp,
        timestamp_ms: i64,
    ) -> Result<Bytes, BatchError> {
        let mut builder = BatchBuilder::with_capacity(stamp, Compression::None, self.bytes);
        for Entry { record, .. } in &self.entries {
            builder.push(timestamp_ms, Some(&record.key), record.value.as_deref(), &[])?;
        }
        Ok(builder.finish()?.to_bytes())
    }
}

/// A partition's records on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    /// What is being collected.
    open: Batch,
    /// Cut, not yet sent.
    pub waiting: VecDeque<Batch>,
    /// Sent, not yet answered.
    pub in_flight: VecDeque<Batch>,
    /// Not applied because one before it failed.
    pub returned: VecDeque<Batch>,
    /// The sequence of the first record that is not answered.
    pub sequence: u32,
    /// Batches answered since the last checkpoint.
    pub unsaved: usize,
    /// Records before it were put by an earlier run.
    pub done_to: u64,
}

/// Where batches are cut: by count and bytes, and by nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The most records.
    pub records: usize,
    /// The most bytes; a record that is longer is a batch of its own.
    pub bytes: usize,
}

impl Lane {
    /// Adds a record; returns whether a batch became ready to be sent.
    pub(crate) fn push(&mut self, entry: Entry, cut: Cut) -> bool {
        let length = entry.record.payload() + RECORD_OVERHEAD;
        let ready = self.waiting.len();
        if !self.open.entries.is_empty() && self.open.bytes + length > cut.bytes {
            self.close();
        }
        self.open.bytes += length;
        self.open.entries.push(entry);
        if self.open.entries.len() >= cut.records {
            self.close();
        }
        self.waiting.len() > ready
    }

    /// Cuts what is being collected.
    pub(crate) fn close(&mut self) {
        if !self.open.entries.is_empty() {
            self.waiting.push_back(std::mem::take(&mut self.open));
        }
    }

    /// Puts what came back in front of what waits.
    pub(crate) fn requeue(&mut self) {
        while let Some(batch) = self.returned.pop_back() {
            self.waiting.push_front(batch);
        }
    }

    /// Returns where the first record stands that is not answered.
    pub(crate) fn first_unanswered(&self) -> Option<Place> {
        let sent = self.in_flight.front().or(self.returned.front());
        sent.or(self.waiting.front()).unwrap_or(&self.open).start()
    }

    /// Returns whether nothing is cut, sent or came back.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.returned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(offset: u64, length: usize) -> Entry {
        let record = Record { key: b"k".to_vec(), value: Some(vec![b'v'; length]) };
        Entry { record, start: Place { offset, ..Place::default() }, raw: Vec::new() }
    }

    fn starts(lengths: &[usize], cut: Cut) -> Vec<u64> {
        let mut lane = Lane::default();
        for (offset, length) in lengths.iter().enumerate() {
            lane.push(entry(u64::try_from(offset).unwrap(), *length), cut);
        }
        lane.close();
        lane.waiting.iter().filter_map(Batch::start).map(|place| place.offset).collect()
    }

    #[test]
    fn batches_are_cut_by_count_and_by_bytes() {
        let cut = Cut { records: 2, bytes: 200 };
        assert_eq!(starts(&[1, 1, 1, 150, 20, 500, 1], cut), [0, 2, 3, 4, 5, 6]);
    }

    proptest! {
        #[test]
        fn a_run_that_begins_at_a_batch_cuts_the_rest_in_the_same_way(
            lengths in prop::collection::vec(0_usize..120, 1..60),
            at in 0_usize..20,
        ) {
            let cut = Cut { records: 5, bytes: 300 };
            let all = starts(&lengths, cut);
            prop_assume!(at < all.len());
            let begin = usize::try_from(all[at]).unwrap();
            let later = starts(&lengths[begin..], cut);
            let shifted: Vec<u64> = later.iter().map(|start| start + all[at]).collect();
            prop_assert_eq!(shifted, all[at..].to_vec());
        }
    }

    #[test]
    fn the_same_records_are_the_same_bytes() {
        let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 3 };
        let batch = Batch { entries: vec![entry(0, 3)], bytes: 3 };
        assert_eq!(batch.encode(stamp, 9).unwrap(), batch.encode(stamp, 9).unwrap());
    }
}
