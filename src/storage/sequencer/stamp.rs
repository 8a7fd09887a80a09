//! The time that entries are stamped with: the clock on the wall, held to the pace of time.
//!
//! The log's time decides what is expired, so a clock that is set forward must not carry it along at
//! once, and one that is set back must not hold it. The first stamp after a start believes the clock;
//! from then on the time rises with the monotonic clock: twice as fast at most, however often it is asked
//! for, and by a second more at most, however seldom.

use std::time::Duration;

/// What one time may be ahead of the pace of time.
const AHEAD: Duration = Duration::from_secs(1);

/// In a millisecond.
const NANOS: i128 = 1_000_000;

/// Gives the times of entries. One for each shard, for as long as the process lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogClock {
    /// The last time, in nanoseconds since 1970, and when it was given.
    last: Option<(i128, Duration)>,
}

/// A time for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTime {
    /// Milliseconds since 1970.
    pub ms: i64,
    /// How far the wall clock is ahead of it, where it was not followed.
    pub held_back_ms: i64,
}

impl LogClock {
    /// Returns the time, which is never before the one given before.
    pub fn now(&mut self, wall_ms: i64, monotonic: Duration) -> LogTime {
        let wall = i128::from(wall_ms) * NANOS;
        let now = match self.last {
            None => wall,
            Some((last, then)) => {
                let passed = monotonic.saturating_sub(then);
                let fastest = passed.saturating_add(passed.min(AHEAD)).as_nanos();
                let fastest = last.saturating_add(i128::try_from(fastest).unwrap_or(i128::MAX));
                wall.min(fastest).max(last)
            }
        };
        self.last = Some((now, monotonic));
        // It is a time of the wall, or between two.
        let ms = i64::try_from(now.div_euclid(NANOS)).unwrap_or(wall_ms);
        LogTime { ms, held_back_ms: wall_ms.saturating_sub(ms).max(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_clock_that_runs_is_followed() {
        let mut clock = LogClock::default();
        for step in 0..10 {
            let time = clock.now(5000 + step, at(step.unsigned_abs()));
            assert_eq!(time, LogTime { ms: 5000 + step, held_back_ms: 0 });
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed_a_second_at_a_time() {
        let mut clock = LogClock::default();
        clock.now(0, at(0));
        let hour = 3_600_000;
        let time = clock.now(hour + 2000, at(2000));
        assert_eq!(time, LogTime { ms: 3000, held_back_ms: hour - 1000 });
        assert_eq!(clock.now(hour + 2500, at(2500)).ms, 4000);
        assert_eq!(clock.now(hour + 60_000, at(60_000)).ms, 62_500);
    }

    #[test]
    fn asking_often_brings_no_time_forward() {
        let mut clock = LogClock::default();
        clock.now(0, at(0));
        let day = 86_400_000;
        // A write each 20 microseconds, for ten seconds.
        for micros in (0..10_000_000).step_by(20) {
            let time = clock.now(day, Duration::from_micros(micros));
            assert!(time.ms <= 20_000, "{time:?} after {micros} us");
        }
        assert!(clock.now(day, at(10_000)).ms > 19_990, "and it goes on");
    }

    #[test]
    fn parts_of_a_millisecond_are_not_lost() {
        let mut clock = LogClock::default();
        clock.now(0, at(0));
        let mut last = 0;
        for step in 1..=1000 {
            last = clock.now(86_400_000, Duration::from_micros(step * 900)).ms;
        }
        assert!((1799..=1800).contains(&last), "{last} ms after 900");
    }

    #[test]
    fn a_clock_that_is_set_back_holds_the_time_until_it_is_there_again() {
        let mut clock = LogClock::default();
        clock.now(10_000, at(0));
        assert_eq!(clock.now(2_000, at(100)), LogTime { ms: 10_000, held_back_ms: 0 });
        assert_eq!(clock.now(9_999, at(8_000)).ms, 10_000);
        assert_eq!(clock.now(10_050, at(8_060)).ms, 10_050);
    }

    #[test]
    fn the_first_time_after_a_start_is_the_walls() {
        assert_eq!(LogClock::default().now(7_000_000, at(3)).ms, 7_000_000);
    }
}
