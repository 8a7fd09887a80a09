//! Cleans a shard's log: on a thread of its own, at a pace that leaves the disk to the writers.

use std::{fmt, sync::Arc, thread, time::Duration};

use tracing::{debug, warn};

use super::{Checkpointer, Observer, sidecars};
use crate::storage::{CleanJob, CleanStep, Shard, clock::Clock, log::entry::LogId};

/// So often it is looked for what could be cleaned.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A reader that found a place in a segment reads there within this time.
const READERS_LOOK_MAX: Duration = Duration::from_secs(5);
/// After a cleaning, or a sidecar, that failed.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes that are read before it is looked at the time.
const PIECE_BYTES: u64 = 1 << 20;
/// While little waits half of the time is left to others: a piece is followed by as long a pause as it
/// took, up to this.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The pauses are shorter the more there is to clean, and none where it is so much: what is written
/// faster than it is cleaned would fill the disk.
const NEEDLESS_BYTES_MAX: u64 = 512 << 20;

/// Moves the mark below which the log is history. Whoever orders the entries does that.
pub(crate) trait Purge: Send + Sync + fmt::Debug {
    /// Returns once the mark is on the disk.
    ///
    /// # Errors
    /// Why it was not moved: it is tried again.
    fn purge(&self, up_to: LogId) -> Result<(), String>;
}

/// What cleans one shard.
#[derive(Debug)]
pub(crate) struct Cleaner {
    stop: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// What it works with.
#[derive(Debug)]
pub(crate) struct CleanerParts {
    pub(crate) number: u32,
    pub(crate) shard: Arc<Shard>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) purge: Box<dyn Purge>,
    pub(crate) observer: Arc<dyn Observer>,
}

/// It is to stop.
struct Stopped;

impl Cleaner {
    /// Starts the thread.
    ///
    /// # Errors
    /// That the system gives none.
    pub(crate) fn start(parts: CleanerParts) -> std::io::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel();
        let name = format!("clean-{}", parts.number);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let (mut pause, mut forgotten) = (LOOK_EVERY, parts.clock.monotonic());
            let mut retried = forgotten;
            // Anything but the end of the time means that it is to stop.
            while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let now = parts.clock.monotonic();
                if now.saturating_sub(forgotten) >= READERS_LOOK_MAX {
                    parts.shard.forget_removed();
                    forgotten = now;
                }
                if now.saturating_sub(retried) >= RETRY_AFTER {
                    parts.shard.retry_sidecars();
                    retried = now;
                }
                pause = match parts.look(&stopped) {
                    Ok(pause) => pause,
                    Err(Stopped) => return,
                };
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread; a cleaning under way is finished first, without pauses.
    pub(crate) fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        // A panic of it has ended the process already.
        let _ended = thread.join();
    }
}

impl CleanerParts {
    fn look(&self, stop: &std::sync::mpsc::Receiver<()>) -> Result<Duration, Stopped> {
        // What is not committed yet is committed by the next checkpoint, if that is worth it.
        self.checkpointer.wake();
        // A log at rest wakes nobody else up.
        sidecars::write(self.number, &self.shard);
        match self.shard.next_cleaning() {
            None => Ok(LOOK_EVERY),
            Some(CleanStep::Purge(up_to)) => match self.purge.purge(up_to) {
                Ok(()) => Ok(Duration::ZERO),
                Err(reason) => {
                    debug!(shard = self.number, reason, "the log is purged later");
                    Ok(LOOK_EVERY)
                }
            },
            Some(CleanStep::Clean(job)) => self.clean(job, stop),
        }
    }

    fn clean(
        &self,
        job: CleanJob,
        stop: &std::sync::mpsc::Receiver<()>,
    ) -> Result<Duration, Stopped> {
        let started = self.clock.monotonic();
        let mut pieces = Pieces { bytes: 0, since: started };
        let mut is_stopped = false;
        let needless_bytes = job.needless_bytes;
        let written = job.run(&mut |bytes| {
            pieces.bytes += bytes;
            if pieces.bytes < PIECE_BYTES || is_stopped {
                return;
            }
            let took = self.clock.monotonic().saturating_sub(pieces.since);
            is_stopped |= stop.recv_timeout(pause_after(took, needless_bytes))
                != Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            pieces = Pieces { bytes: 0, since: self.clock.monotonic() };
        });
        let done = match written {
            Ok(done) => done,
            Err(failed) => {
                warn!(shard = self.number, error = %failed, "the log was not cleaned");
                self.shard.not_cleaned(&failed);
                // What can be read is cleaned without the rest.
                return Ok(if failed.unreadable.is_some() { LOOK_EVERY } else { RETRY_AFTER });
            }
        };
        let (read, written) = (done.read_bytes, done.written_bytes);
        if let Err(error) = self.shard.cleaned(job, done, &mut || {}) {
            self.observer.failed(error);
            return Err(Stopped);
        }
        let took = self.clock.monotonic().saturating_sub(started);
        self.observer.cleaned(read, written, took);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        debug!(shard = self.number, read, written, ms, "cleaned");
        if is_stopped { Err(Stopped) } else { Ok(Duration::ZERO) }
    }
}

/// Returns how long others are left alone after a piece that took so long.
fn pause_after(took: Duration, needless_bytes: u64) -> Duration {
    let calm = NEEDLESS_BYTES_MAX.saturating_sub(needless_bytes) >> 20;
    let calm = u32::try_from(calm).unwrap_or(u32::MAX);
    let most = u32::try_from(NEEDLESS_BYTES_MAX >> 20).unwrap_or(u32::MAX);
    took.min(PAUSE_MAX) * calm / most
}

/// What was read since the last pause.
struct Pieces {
    bytes: u64,
    since: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_there_is_to_clean_the_shorter_are_the_pauses() {
        let pause = |mib: u64| pause_after(Duration::from_millis(8), mib << 20);
        assert_eq!(pause(0), Duration::from_millis(8));
        assert_eq!(pause(256), Duration::from_millis(4));
        assert_eq!(pause(512), Duration::ZERO);
        assert_eq!(pause(1 << 20), Duration::ZERO);
        assert_eq!(pause_after(Duration::from_secs(9), 0), PAUSE_MAX);
    }
}
