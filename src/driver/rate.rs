//! How fast a log grows.

use std::time::Duration;

/// How fast a log grows, over windows of a tenth of a second or more.
#[derive(Debug, Default)]
pub(super) struct AppendRate {
    since: Duration,
    bytes_then: u64,
    pub(super) bytes_per_second: u64,
}

/// Shorter windows tell of one group or none.
const RATE_WINDOW: Duration = Duration::from_millis(100);

impl AppendRate {
    pub(super) fn sample(&mut self, now: Duration, bytes: u64) {
        let elapsed = now.saturating_sub(self.since);
        if elapsed < RATE_WINDOW {
            return;
        }
        let grown = u128::from(bytes.saturating_sub(self.bytes_then));
        (self.since, self.bytes_then) = (now, bytes);
        let rate = grown * 1000 / elapsed.as_millis().max(1);
        self.bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_jobs_in_a_row_see_the_same_rate() {
        let mut rate = AppendRate::default();
        let at = Duration::from_millis;
        rate.sample(at(1000), 0);
        rate.sample(at(1200), 100 << 20);
        assert_eq!(rate.bytes_per_second, 500 << 20);
        rate.sample(at(1201), 100 << 20);
        assert_eq!(rate.bytes_per_second, 500 << 20, "a millisecond of silence is not calm");
        rate.sample(at(1400), 100 << 20);
        assert_eq!(rate.bytes_per_second, 0);
    }
}
