//! A closed or open loop of operations, and what they took.

use std::{cell::Cell, num::NonZeroU64, rc::Rc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::latencies::Latencies;
use crate::commands::failure::{Failure, Result};

/// How much, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Operations under way at a time.
    pub clients: u32,
    /// Before anything counts.
    pub warmup: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// So many operations instead.
    pub count: Option<NonZeroU64>,
    /// Operations begun in a second; `None` = each client begins when its last has ended.
    pub rate: Option<NonZeroU64>,
}

/// What was seen.
pub(super) struct Seen {
    /// Without errors.
    pub latencies: Latencies,
    /// Operations that failed.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<Failure>,
    /// How long it was counted.
    pub elapsed: Duration,
}

impl Seen {
    /// Returns operations in a second.
    pub(super) fn rate(&self) -> f64 {
        let count = f64::from(u32::try_from(self.latencies.count()).unwrap_or(u32::MAX));
        count / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

struct Counted {
    latencies: Latencies,
    errors: u64,
    first_error: Option<Failure>,
}

/// Runs operations: `operation(n)` is the `n`-th one.
///
/// # Errors
/// Exit 1 where latencies cannot be counted.
pub(super) async fn run(
    plan: Plan,
    operation: impl AsyncFn(u64) -> std::result::Result<(), Failure>,
) -> Result<Seen> {
    let started = Instant::now();
    let counts_from = started + plan.warmup;
    let ends = counts_from + plan.duration;
    let next = Rc::new(Cell::new(0_u64));
    // Of those that count, how many have begun.
    let begun_count = Rc::new(Cell::new(0_u64));
    let client = || async {
        let mut seen = Counted { latencies: Latencies::new()?, errors: 0, first_error: None };
        loop {
            let number = next.get();
            next.set(number + 1);
            let due = plan.rate.map(|rate| started + offset(number, rate));
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            // Latency counts from the time meant: a late start is part of it.
            let begun = due.unwrap_or_else(Instant::now);
            let is_done = match plan.count {
                Some(count) => begun_count.get() >= count.get(),
                None => begun >= ends,
            };
            if is_done {
                return Ok(seen);
            }
            let counts = begun >= counts_from;
            begun_count.set(begun_count.get() + u64::from(counts));
            let ended = operation(number).await;
            if !counts {
                continue;
            }
            match ended {
                Ok(()) => seen.latencies.record(begun.elapsed()),
                Err(failure) => {
                    seen.errors += 1;
                    seen.first_error.get_or_insert(failure);
                }
            }
        }
    };
    let clients = (0..plan.clients).map(|_| client());
    let all: Vec<Result<Counted>> = join_all(clients).await;
    let elapsed = Instant::now().saturating_duration_since(counts_from);
    let mut seen = Seen { latencies: Latencies::new()?, errors: 0, first_error: None, elapsed };
    for one in all {
        let one = one?;
        seen.latencies.add(one.latencies)?;
        seen.errors += one.errors;
        seen.first_error = seen.first_error.or(one.first_error);
    }
    Ok(seen)
}

/// Returns when the operation of a number is due, from the start on.
pub(super) fn offset(number: u64, rate: NonZeroU64) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_closed_loop_counts_operations_and_errors() {
        let plan = Plan {
            clients: 2,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            count: NonZeroU64::new(10),
            rate: None,
        };
        let seen = run(
            plan,
            async |number| {
                if number == 3 { Err(Failure::measurement("no")) } else { Ok(()) }
            },
        );
        let seen = seen.await.unwrap();
        assert_eq!((seen.errors, seen.latencies.count()), (1, 9));
        assert_eq!(seen.first_error.unwrap().message(), "no");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn no_more_operations_begin_than_were_asked_for() {
        for rate in [None, NonZeroU64::new(1_000_000)] {
            let plan = Plan {
                clients: 8,
                warmup: Duration::ZERO,
                duration: Duration::ZERO,
                count: NonZeroU64::new(10),
                rate,
            };
            let seen = run(plan, async |_| {
                tokio::task::yield_now().await;
                Ok(())
            });
            assert_eq!(seen.await.unwrap().latencies.count(), 10);
        }
    }

    #[test]
    fn an_open_loop_begins_at_fixed_times() {
        let rate = NonZeroU64::new(200).unwrap();
        assert_eq!(offset(0, rate), Duration::ZERO);
        assert_eq!(offset(3, rate), Duration::from_millis(15));
    }
}
