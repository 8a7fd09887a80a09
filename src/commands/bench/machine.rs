//! Is the machine quiet enough to be measured?

use std::{fs, time::Duration};

use prkdb_types::ErrorCode;

use crate::commands::failure::{Failure, Result};

/// How long is looked at, and how often before the machine is called busy.
const SAMPLE: Duration = Duration::from_millis(500);
const SAMPLES: u32 = 10;
/// More than this share of all processors, in percent, is no quiet machine.
const BUSY_PERCENT: u64 = 5;

/// Processor time since the start of the machine, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Refuses to measure while others use the processors. What was measured before may still be put in
/// order, by the node and by the kernel: only a machine that stays busy is refused.
///
/// # Errors
/// Exit 1 where they do.
pub(super) async fn check_quiet() -> Result {
    let Some(mut before) = ticks() else { return Ok(()) };
    let mut least = 100;
    for _ in 0..SAMPLES {
        tokio::time::sleep(SAMPLE).await;
        let Some(after) = ticks() else { return Ok(()) };
        least = least.min(percent(before, after));
        if least <= BUSY_PERCENT {
            return Ok(());
        }
        before = after;
    }
    let message =
        format!("the machine is busy: {least} % of its processors, limit {BUSY_PERCENT} %");
    Err(Failure::measurement(message).hint("stop what else runs, and measure again").into())
}

/// `None` where the system does not say.
fn ticks() -> Option<Ticks> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// user nice system idle iowait irq softirq steal: what waits and what is idle is not busy.
fn parse(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let mut all = 0;
    let mut idle = 0;
    for (index, word) in line.split_whitespace().take(8).enumerate() {
        let value: u64 = word.parse().ok()?;
        all += value;
        if matches!(index, 3 | 4) {
            idle += value;
        }
    }
    Some(Ticks { busy: all - idle, all })
}

fn percent(before: Ticks, after: Ticks) -> u64 {
    let all = after.all.saturating_sub(before.all).max(1);
    after.busy.saturating_sub(before.busy) * 100 / all
}

/// Returns random bytes for payloads that do not compress.
///
/// # Errors
/// Exit 1 where the system gives none.
pub(super) fn random(length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::of(ErrorCode::Internal, format!("draw random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_idle_time_is_not_busy() {
        let before = parse("cpu  10 0 10 100 5 0 0 0 0 0\ncpu0 1\n").unwrap();
        let after = parse("cpu  20 0 10 180 15 0 0 0 0 0\n").unwrap();
        assert_eq!(before, Ticks { busy: 20, all: 125 });
        assert_eq!(percent(before, after), 10);
        assert_eq!(percent(before, before), 0);
    }
}
