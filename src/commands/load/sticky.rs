//! Where records without a key go: to one partition until a batch of them is full, then to the next.
//!
//! It depends on these records and the cut alone, so that a run that goes on with the state of the place
//! where it begins sends every record where the run before it did.

use serde::{Deserialize, Serialize};

use super::lane::Cut;

/// The partition of the moment, and what it was given since it became that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sticky {
    /// Its number.
    pub partition: u32,
    /// Records since then.
    pub records: usize,
    /// Their bytes in a batch, at most.
    pub bytes: usize,
}

impl Sticky {
    /// Begins somewhere, so that many short runs fill all partitions alike.
    pub(crate) fn begin(producer_id: u64, partitions: u32) -> Self {
        let partition = producer_id % u64::from(partitions.max(1));
        Self { partition: u32::try_from(partition).unwrap_or_default(), ..Self::default() }
    }

    /// Places a record of `length` bytes; returns the partition that was left for it, if one was.
    pub(crate) fn place(&mut self, length: usize, cut: Cut, partitions: u32) -> Option<u32> {
        let is_full = self.records > 0
            && (self.records >= cut.records || self.bytes.saturating_add(length) > cut.bytes);
        let left = is_full.then_some(self.partition);
        if is_full {
            let next = self.partition.saturating_add(1) % partitions.max(1);
            *self = Self { partition: next, ..Self::default() };
        }
        self.records += 1;
        self.bytes = self.bytes.saturating_add(length);
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CUT: Cut = Cut { records: 3, bytes: 100 };

    fn places(from: Sticky, lengths: &[usize]) -> Vec<(u32, Sticky)> {
        let mut sticky = from;
        let mut places = Vec::new();
        for length in lengths {
            let before = sticky;
            sticky.place(*length, CUT, 3);
            places.push((sticky.partition, before));
        }
        places
    }

    #[test]
    fn it_changes_with_each_batch_and_comes_round() {
        let placed = places(Sticky::default(), &[1, 1, 1, 60, 60, 1, 1, 500, 1]);
        let numbers: Vec<u32> = placed.iter().map(|(partition, _)| *partition).collect();
        assert_eq!(numbers, [0, 0, 0, 1, 2, 2, 2, 0, 1]);
    }

    proptest! {
        #[test]
        fn a_run_that_goes_on_places_records_as_the_first_did(
            lengths in prop::collection::vec(1_usize..80, 1..40),
            at in 0_usize..40,
        ) {
            let all = places(Sticky::default(), &lengths);
            prop_assume!(at < all.len());
            let later = places(all[at].1, &lengths[at..]);
            prop_assert_eq!(&later, &all[at..]);
        }
    }

    #[test]
    fn it_begins_at_a_partition_there_is() {
        assert!((0..100).all(|id| Sticky::begin(u64::MAX - id, 7).partition < 7));
        assert_eq!(Sticky::begin(5, 0).partition, 0);
    }
}
