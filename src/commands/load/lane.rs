//! One partition's records on their way: collected, cut, sent, answered, in order.

use std::collections::VecDeque;

use bytes::Bytes;
use prkdb_types::{BatchBuilder, BatchError, Compression, ProducerStamp};

use super::{
    read::{Place, Record},
    sticky::Sticky,
};

/// What a record takes in a batch beside its key, value and headers, at most.
const RECORD_OVERHEAD: usize = 32;
/// What a header takes beside its name and value, at most.
const HEADER_OVERHEAD: usize = 10;

/// Returns how many bytes a record takes in a batch, at most.
pub(crate) fn length(record: &Record) -> usize {
    record.payload() + RECORD_OVERHEAD + record.headers.len() * HEADER_OVERHEAD
}

/// A record that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Key, value and headers.
    pub record: Record,
    /// Its time, in milliseconds since 1970.
    pub timestamp_ms: i64,
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
    /// Where records without a key went before its first record was placed.
    sticky: Sticky,
}

impl Batch {
    /// Returns where its first record stood, and where records without a key went then.
    pub(crate) fn start(&self) -> Option<(Place, Sticky)> {
        self.entries.first().map(|entry| (entry.start, self.sticky))
    }

    /// Returns the bytes of its keys, values and headers.
    pub(crate) fn payload(&self) -> u64 {
        u64::try_from(self.entries.iter().map(|entry| entry.record.payload()).sum::<usize>())
            .unwrap_or(u64::MAX)
    }

    /// Encodes it: the same records and stamp give the same bytes.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn encode(
        &self,
        stamp: ProducerStamp,
        compression: Compression,
    ) -> Result<Bytes, BatchError> {
        let mut builder = BatchBuilder::with_capacity(stamp, compression, self.bytes);
        for Entry { record, timestamp_ms, .. } in &self.entries {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let headers: Vec<(&str, &[u8])> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect();
            builder.push(*timestamp_ms, key, value, &headers)?;
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
    /// Not applied because one before it failed; where that ends the run, it is the first of them.
    pub returned: VecDeque<Batch>,
    /// The sequence of the first record that is not answered.
    pub sequence: u32,
    /// Batches answered since the last checkpoint.
    pub unsaved: usize,
    /// Records before it were sent by an earlier run.
    pub done_to: u64,
    /// The first and the last offset of its records.
    pub offsets: Option<(u64, u64)>,
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
    /// Adds a record; returns whether a batch became ready to be sent. `sticky` is where records without
    /// a key went before this one was placed.
    pub(crate) fn push(&mut self, entry: Entry, cut: Cut, sticky: Sticky) -> bool {
        let length = length(&entry.record);
        let ready = self.waiting.len();
        if !self.open.entries.is_empty() && self.open.bytes + length > cut.bytes {
            self.close();
        }
        if self.open.entries.is_empty() {
            self.open.sticky = sticky;
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

    /// Counts a batch that was applied.
    pub(crate) fn applied(&mut self, base_offset: u64, records: u32) {
        let last = base_offset.saturating_add(u64::from(records)).saturating_sub(1);
        let (first, before) = self.offsets.unwrap_or((base_offset, last));
        self.offsets = Some((first.min(base_offset), before.max(last)));
    }

    /// Returns where the first record stands that is not answered, and where records without a key went
    /// then.
    pub(crate) fn first_unanswered(&self) -> Option<(Place, Sticky)> {
        // What came back was sent before what is under way.
        let sent = self.returned.front().or(self.in_flight.front());
        sent.or(self.waiting.front()).unwrap_or(&self.open).start()
    }

    /// Returns whether there is a batch to send next: one that stands whole before the byte where sending
    /// stops, if it does.
    pub(crate) fn has_next(&self, stop_at: Option<u64>) -> bool {
        let Some(stop_at) = stop_at else { return !self.waiting.is_empty() };
        let last = self.waiting.front().and_then(|batch| batch.entries.last());
        self.returned.is_empty() && last.is_some_and(|last| last.start.offset < stop_at)
    }

    /// Returns whether records are being collected.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.entries.is_empty()
    }

    /// Returns whether nothing is left to send and everything that was sent is answered.
    pub(crate) fn is_settled(&self, stop_at: Option<u64>) -> bool {
        self.in_flight.is_empty() && !self.has_next(stop_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(offset: u64, length: usize) -> Entry {
        let record = Record::new(b"k".to_vec(), vec![b'v'; length]);
        let start = Place { offset, ..Place::default() };
        Entry { record, timestamp_ms: 9, start, raw: Vec::new() }
    }

    fn starts(lengths: &[usize], cut: Cut) -> Vec<u64> {
        let mut lane = Lane::default();
        for (offset, length) in lengths.iter().enumerate() {
            lane.push(entry(u64::try_from(offset).unwrap(), *length), cut, Sticky::default());
        }
        lane.close();
        lane.waiting.iter().filter_map(Batch::start).map(|(place, _)| place.offset).collect()
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

    /// A lane with batches of two records of ten bytes each, cut and not sent.
    fn lane(batches: u64) -> Lane {
        let mut lane = Lane::default();
        for offset in 0..batches * 2 {
            lane.push(entry(offset * 10, 1), Cut { records: 2, bytes: 1000 }, Sticky::default());
        }
        lane
    }

    #[test]
    fn what_came_back_stands_before_what_is_under_way() {
        let mut lane = lane(3);
        let first = |lane: &Lane| lane.first_unanswered().map(|(place, _)| place.offset);
        let batches = [lane.waiting.pop_front(), lane.waiting.pop_front()];
        let [Some(returned), Some(in_flight)] = batches else { panic!("two batches") };
        assert_eq!(first(&lane), Some(40));
        lane.in_flight.push_back(in_flight);
        assert_eq!(first(&lane), Some(20));
        lane.returned.push_back(returned);
        assert_eq!(first(&lane), Some(0));
    }

    #[test]
    fn only_what_stands_whole_before_the_stop_is_sent() {
        let mut lane = lane(2);
        assert!(lane.has_next(None));
        for (stop_at, has_next) in [(0, false), (10, false), (11, true), (20, true)] {
            assert_eq!(lane.has_next(Some(stop_at)), has_next, "{stop_at}");
        }
        let sent = lane.waiting.pop_front();
        assert!(!lane.has_next(Some(20)));
        // A lane that came back is not gone on with.
        lane.returned.extend(sent);
        assert!(!lane.has_next(Some(100)) && lane.is_settled(Some(100)));
    }

    #[test]
    fn the_same_records_are_the_same_bytes() {
        let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 3 };
        let batch = Batch { entries: vec![entry(0, 3)], ..Batch::default() };
        for compression in Compression::ALL {
            let encoded = || batch.encode(stamp, *compression).unwrap();
            assert_eq!(encoded(), encoded());
        }
    }
}
