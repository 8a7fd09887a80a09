//! The time that entries are stamped with: the clock on the wall, held to the pace of time.
//!
//! The log's time decides what is expired, so a clock that is set forward must not carry it along at
//! once, and one that is set back must not hold it. The first stamp after a start believes the clock;
//! from then on the time rises with the monotonic clock, and by a second more at most.

use std::time::Duration;

/// What the wall clock may be ahead of the pace of time.
const AHEAD_MS: i64 = 1000;

/// Gives the times of entries. One for each shard, for as long as the process lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogClock {
    /// The last time, and when it was given.
    last: Option<(i64, Duration)>,
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
        let ms = match self.last {
            None => wall_ms,
            Some((last_ms, then)) => {
                let passed = monotonic.saturating_sub(then).as_millis();
                let passed = i64::try_from(passed).unwrap_or(i64::MAX);
                let fastest = last_ms.saturating_add(passed).saturating_add(AHEAD_MS);
                wall_ms.min(fastest).max(last_ms)
            }
        };
        self.last = Some((ms, monotonic));
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
        assert_eq!(clock.now(hour, at(0)), LogTime { ms: 1000, held_back_ms: hour - 1000 });
        assert_eq!(clock.now(hour + 500, at(500)).ms, 2500);
        assert_eq!(clock.now(hour + 60_000, at(60_000)).ms, 63_000);
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
