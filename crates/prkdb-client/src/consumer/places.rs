//! How far each partition is read.
//!
//! Pure state: where to go on, where to end, and what may come next. A place moves when a batch is handed
//! out, never before, so that a new stream opened from it gives every record once.

use std::collections::BTreeMap;

use prkdb_proto::v1::fetch_request::Start;
use prkdb_types::Batch;

use crate::consumer::StartAt;

/// The places of all partitions that are read.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<u32, Place>,
    /// How many have not reached their end.
    live: usize,
}

/// How far one partition is read.
#[derive(Debug)]
pub(super) struct Place {
    /// What to ask for, as long as nothing was heard of the partition.
    start: Option<StartAt>,
    next: u64,
    /// The offset to end before; the largest number = never.
    until: u64,
    high_watermark: u64,
    /// The next batch is the first of its stream, which may begin before the place.
    is_first: bool,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Hand out its records from one offset to before the other.
    Range { from: u64, until: u64 },
    /// Drop it: the partition has ended.
    Behind,
}

impl Places {
    /// Adds a partition: `next` is where it is read from as far as known, `start` what the server is asked
    /// for at first.
    pub(super) fn insert(
        &mut self,
        partition: u32,
        (start, next): (StartAt, u64),
        until: Option<u64>,
        high_watermark: u64,
    ) {
        let until = until.unwrap_or(u64::MAX);
        let place = Place { start: Some(start), next, until, high_watermark, is_first: true };
        self.live += usize::from(!place.has_ended());
        self.places.insert(partition, place);
    }

    pub(super) fn get(&self, partition: u32) -> Option<&Place> {
        self.places.get(&partition)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.places.keys().copied()
    }

    /// Returns whether every partition has reached its end.
    pub(super) fn have_ended(&self) -> bool {
        self.live == 0
    }

    /// Returns whether there is anything more to read in a partition.
    pub(super) fn is_live(&self, partition: u32) -> bool {
        self.get(partition).is_some_and(|place| !place.has_ended())
    }

    /// Returns where a new stream begins in a partition, and expects its first batch.
    pub(super) fn start(&mut self, partition: u32) -> Option<Start> {
        let place = self.places.get_mut(&partition).filter(|place| !place.has_ended())?;
        place.is_first = true;
        let start = place.start.unwrap_or(StartAt::Offset(place.next));
        Some(Start { partition, from: Some(start.position()) })
    }

    /// Takes what a reply says of its partition.
    pub(super) fn hear(&mut self, partition: u32, high_watermark: u64) {
        if let Some(place) = self.places.get_mut(&partition) {
            place.high_watermark = place.high_watermark.max(high_watermark);
        }
    }

    /// Decides on the next batch of a partition.
    ///
    /// # Errors
    /// Says what is wrong with a batch that does not lie behind what was read.
    pub(super) fn admit(&self, partition: u32, batch: &Batch) -> Result<Admission, String> {
        let Some(place) = self.get(partition) else { return Ok(Admission::Behind) };
        let (base, next) = (batch.base_offset(), batch.next_offset());
        if next <= place.next || (base < place.next && !place.is_first) {
            return Err(format!(
                "partition {partition} goes back from offset {} to a batch at {base}",
                place.next
            ));
        }
        if base >= place.until {
            return Ok(Admission::Behind);
        }
        Ok(Admission::Range { from: place.next, until: place.until })
    }

    /// Moves a partition's place behind a batch.
    pub(super) fn pass(&mut self, partition: u32, batch: &Batch) {
        if let Some(place) = self.places.get_mut(&partition) {
            place.is_first = false;
        }
        self.advance(partition, batch.next_offset());
    }

    /// Moves a partition's place on to what a reply says, over offsets that have no record.
    pub(super) fn advance(&mut self, partition: u32, next: u64) {
        let Some(place) = self.places.get_mut(&partition).filter(|place| !place.has_ended()) else {
            return;
        };
        // The first word about a partition settles where it begins.
        place.start = None;
        place.next = next.min(place.until).max(place.next);
        if place.has_ended() {
            self.live -= 1;
        }
    }
}

impl Place {
    /// Returns the offset to go on from.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn high_watermark(&self) -> u64 {
        self.high_watermark
    }

    fn has_ended(&self) -> bool {
        self.next >= self.until
    }
}

#[cfg(test)]
mod tests {
    use prkdb_proto::v1::position::Place as Wire;
    use prkdb_types::{BatchBuilder, Compression, ProducerStamp};

    use super::*;

    fn batch(base_offset: u64, records: u32) -> Batch {
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        for _ in 0..records {
            builder.push(7, None, Some(b"value"), &[]).unwrap();
        }
        let mut batch = builder.finish().unwrap();
        batch.set_base_offset(base_offset);
        batch
    }

    fn places(start: StartAt, next: u64, until: Option<u64>) -> Places {
        let mut places = Places::default();
        places.insert(3, (start, next), until, 100);
        places
    }

    fn asked(places: &mut Places) -> Option<Wire> {
        places.start(3)?.from?.place
    }

    #[test]
    fn the_first_batch_of_a_stream_may_begin_before_the_place_and_no_later_one() {
        let mut places = places(StartAt::Offset(5), 5, None);
        let range = Admission::Range { from: 5, until: u64::MAX };
        assert_eq!(places.admit(3, &batch(0, 10)), Ok(range));
        places.pass(3, &batch(0, 10));
        assert!(
            places.admit(3, &batch(9, 3)).unwrap_err().contains("from offset 10 to a batch at 9")
        );
        assert!(places.admit(3, &batch(12, 1)).is_ok(), "a gap is no error");
        assert_eq!(asked(&mut places), Some(Wire::Offset(10)));
        assert!(places.admit(3, &batch(9, 3)).is_ok(), "it is the first again");
        assert!(places.admit(3, &batch(0, 10)).is_err(), "everything in it was read");
    }

    #[test]
    fn the_earliest_is_asked_for_until_something_was_heard() {
        let mut places = places(StartAt::Earliest, 4, None);
        assert_eq!(asked(&mut places), Some(Wire::Earliest(true)));
        places.advance(3, 6);
        assert_eq!(asked(&mut places), Some(Wire::Offset(6)));
        assert!(places.admit(3, &batch(5, 3)).is_ok(), "the start may lie inside of a batch");
    }

    #[test]
    fn a_partition_ends_at_its_end_whether_a_record_reaches_it_or_not() {
        for reach in [8, 9, 20] {
            let mut places = places(StartAt::Offset(5), 5, Some(8));
            places.advance(3, 7);
            assert!(places.is_live(3) && !places.have_ended());
            places.advance(3, reach);
            assert!(places.have_ended());
            assert_eq!(places.get(3).map(Place::next), Some(8));
            assert_eq!(asked(&mut places), None);
        }
        assert!(places(StartAt::Offset(9), 9, Some(8)).have_ended());
    }

    #[test]
    fn a_batch_at_the_end_or_behind_is_dropped() {
        let mut places = places(StartAt::Offset(5), 5, Some(8));
        assert_eq!(places.admit(3, &batch(8, 1)), Ok(Admission::Behind));
        assert_eq!(places.admit(3, &batch(6, 5)), Ok(Admission::Range { from: 5, until: 8 }));
        places.hear(3, 101);
        places.hear(3, 90);
        assert_eq!(places.get(3).map(Place::high_watermark), Some(101));
    }
}
