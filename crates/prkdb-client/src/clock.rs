//! The client's wall clock, which stamps records whose caller gives no time.
//!
//! The only file that reads the system's time. Deadlines do not come from here: they are monotonic and
//! belong to the runtime.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the time that a record is stamped with.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "the client's clock")]
        let now = SystemTime::now();
        // A clock before 1970 or past the year 292 million counts as the nearest time that can be told.
        now.duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
