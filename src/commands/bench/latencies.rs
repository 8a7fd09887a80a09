//! How long operations took, and when the slowest of them ended.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use hdrhistogram::Histogram;
use prkdb_client::{Clock as _, SystemClock};
use prkdb_types::ErrorCode;

use crate::commands::failure::{Failure, Result};

/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 600_000_000_000;
/// So many of the slowest are told one by one.
const SLOWEST: usize = 100;

/// What operations took.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    /// In nanoseconds; three digits are exact.
    histogram: Histogram<u64>,
    /// The fastest of them first.
    slowest: BinaryHeap<Reverse<Slow>>,
}

/// An operation that was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slow {
    /// How long it took.
    pub took: Duration,
    /// When it ended, in milliseconds since 1970: what the logs of the node are looked up by.
    pub ended_ms: i64,
}

impl Latencies {
    /// Returns none.
    ///
    /// # Errors
    /// Exit 1 where they cannot be counted.
    pub(super) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|error| {
            Failure::of(ErrorCode::Internal, format!("count latencies: {error}"))
        })?;
        Ok(Self { histogram, slowest: BinaryHeap::new() })
    }

    /// Counts an operation that ended now.
    pub(super) fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST_NS));
        if self.is_slow(took) {
            self.keep(Slow { took, ended_ms: SystemClock.now_ms() });
        }
    }

    fn is_slow(&self, took: Duration) -> bool {
        self.slowest.len() < SLOWEST
            || self.slowest.peek().is_some_and(|Reverse(fastest)| fastest.took < took)
    }

    fn keep(&mut self, slow: Slow) {
        self.slowest.push(Reverse(slow));
        if self.slowest.len() > SLOWEST {
            self.slowest.pop();
        }
    }

    /// Counts those of another.
    ///
    /// # Errors
    /// Exit 1 where they cannot be counted.
    pub(super) fn add(&mut self, other: Self) -> Result {
        self.histogram
            .add(other.histogram)
            .map_err(|error| Failure::of(ErrorCode::Internal, format!("add latencies: {error}")))?;
        for Reverse(slow) in other.slowest {
            self.keep(slow);
        }
        Ok(())
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Returns a percentile.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_percentile(percent))
    }

    /// Returns the slowest, the slowest first.
    pub(super) fn slowest(&self) -> Vec<Slow> {
        let mut slowest: Vec<Slow> = self.slowest.iter().map(|Reverse(slow)| *slow).collect();
        slowest.sort_unstable_by(|one, other| other.cmp(one));
        slowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_all_are_kept() {
        let mut even = Latencies::new().unwrap();
        let mut odd = Latencies::new().unwrap();
        for number in 1..=300 {
            let one = if number % 2 == 0 { &mut even } else { &mut odd };
            one.record(Duration::from_micros(number));
        }
        even.add(odd).unwrap();
        let slowest: Vec<_> = even.slowest().iter().map(|slow| slow.took.as_micros()).collect();
        assert_eq!(slowest, (201..=300).rev().collect::<Vec<_>>());
        assert!(even.slowest().iter().all(|slow| slow.ended_ms > 1_600_000_000_000));
        assert_eq!(even.count(), 300);
        assert_eq!(even.percentile(50.0).as_micros(), 150);
    }
}
