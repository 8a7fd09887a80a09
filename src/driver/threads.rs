//! The threads of a shard: one writes and syncs groups, one prepares segments, one takes checkpoints.
//!
//! Whoever appended hears of it through [`Flusher::when_synced`], in the order of the log, from the
//! flusher's thread. A failed write or sync is never tried again: nobody is told anything any more
//! (their outcome is unknown), and whoever observes hears of the error.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{debug, error, trace, warn};

use super::{
    checkpoints::{self, Checkpointer},
    rate::AppendRate,
    sidecars,
    signal::{Signal, Wake},
    waiters::{Waiters, WhenReached},
};
use crate::storage::{
    Shard, StorageError,
    clock::Clock,
    log::{FlushJob, PrepareMode, Prepared, header::Lsn},
};

/// A log that has nothing to write for so long gets a SYNC entry.
const IDLE_BEFORE_SYNC: Duration = Duration::from_millis(100);
/// How long after a full disk the next preparation is tried.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);
/// A group that takes longer is worth a line in the log of who asks for it.
const SLOW_GROUP: Duration = Duration::from_millis(10);
/// Above this rate of appended bytes per second, zeroing ahead would take the rate from the writer.
const ZERO_BELOW_BYTES_PER_SECOND: u64 = 64 << 20;

/// Hears what the threads of a shard do. Called from them: it must be short.
pub(crate) trait Observer: Send + Sync + fmt::Debug {
    /// A group was written and synced, or failed.
    fn flushed(&self, bytes: u64, entries: usize, took: Duration);
    /// Returns how many bytes were written so far, to all logs that share the disk.
    fn written_bytes(&self) -> u64;
    /// A checkpoint was written.
    fn checkpointed(&self, bytes: u64, took: Duration);
    /// A part of the log was cleaned: so many bytes were read, and so many of them left.
    fn cleaned(&self, read: u64, written: u64, took: Duration);
    /// The log failed: nothing is written or told any more.
    fn failed(&self, error: StorageError);
}

/// Room set aside for a full disk: given up when something admitted waits for a segment, and taken
/// back when there is room again.
pub(crate) trait Reserve: Send + Sync + fmt::Debug {
    /// Gives it up.
    ///
    /// # Errors
    /// What the disk says.
    fn release(&self) -> io::Result<()>;
    /// Takes it again.
    ///
    /// # Errors
    /// What the disk says.
    fn restore(&self) -> io::Result<()>;
    /// Returns whether there was no room for it at the start, and it is not there yet.
    fn is_lacking(&self) -> bool {
        false
    }
}

/// What both threads and every handle share.
pub(super) struct Shared {
    pub(super) number: u32,
    pub(super) shard: Arc<Shard>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Arc<dyn Observer>,
    reserve: Arc<dyn Reserve>,
    mode: FlushMode,
    synced: Waiters,
    written: Waiters,
    flush: Signal,
    prepare: Signal,
    pub(super) checkpoint: Signal,
    /// What the thread that takes checkpoints was told to do.
    pub(super) orders: Mutex<checkpoints::Orders>,
    /// The last preparation failed, so that what waits for a segment waits in vain.
    has_no_segment: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("shard", &self.number).finish_non_exhaustive()
    }
}

/// When groups are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushMode {
    /// Each at once.
    Synced,
    /// After a while, when the segment is full, and when nothing is written: those who wait for the
    /// sync wait as long.
    Written,
}

/// A handle to a shard's flusher.
#[derive(Clone, Debug)]
pub(crate) struct Flusher(Arc<Shared>);

impl Flusher {
    /// Returns once everything up to `lsn` is synced. Nothing is sent where the log fails first.
    pub(crate) fn synced(&self, lsn: Lsn) -> oneshot::Receiver<()> {
        let (done, synced) = oneshot::channel();
        let told = move || {
            // Nobody waits any more: the caller was stopped.
            let _sent = done.send(());
        };
        self.when_synced(lsn, Box::new(told));
        synced
    }

    /// Calls `done` when everything up to `lsn` is synced. If the log fails, it is dropped.
    pub(crate) fn when_synced(&self, lsn: Lsn, done: WhenReached) {
        self.0.synced.push(lsn, done);
        self.0.flush.wake();
    }

    /// Calls `done` when everything up to `lsn` is written, synced or not. If the log fails, it is
    /// dropped.
    pub(crate) fn when_written(&self, lsn: Lsn, done: WhenReached) {
        self.0.written.push(lsn, done);
        self.0.flush.wake();
    }
}

/// The threads of one shard.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// In the order in which they are stopped.
    threads: Vec<JoinHandle<()>>,
}

/// What a driver is made of.
#[derive(Debug)]
pub(crate) struct DriverParts {
    /// The shard's number, for names and messages.
    pub(crate) number: u32,
    /// The shard.
    pub(crate) shard: Arc<Shard>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Who hears what was done.
    pub(crate) observer: Arc<dyn Observer>,
    /// The reserve of room.
    pub(crate) reserve: Arc<dyn Reserve>,
    /// When groups are synced.
    pub(crate) mode: FlushMode,
}

impl Driver {
    /// Starts the threads.
    ///
    /// # Errors
    /// That the system gives no thread.
    pub(crate) fn start(parts: DriverParts) -> io::Result<Self> {
        let DriverParts { number, shard, clock, observer, reserve, mode } = parts;
        let shared = Arc::new(Shared {
            number,
            mode,
            synced: Waiters::from(shard.synced_lsn()),
            written: Waiters::from(shard.synced_lsn()),
            shard,
            clock,
            observer,
            reserve,
            flush: Signal::default(),
            prepare: Signal::default(),
            checkpoint: Signal::default(),
            orders: Mutex::default(),
            has_no_segment: AtomicBool::new(false),
        });
        let runs: [(&str, fn(&Shared)); 3] =
            [("flush", run_flusher), ("prepare", run_preparer), ("checkpoint", checkpoints::run)];
        let mut driver = Self { shared, threads: Vec::with_capacity(runs.len()) };
        for (name, run) in runs {
            let shared = Arc::clone(&driver.shared);
            let named = thread::Builder::new().name(format!("{name}-{number}"));
            match named.spawn(move || run(&shared)) {
                Ok(thread) => driver.threads.push(thread),
                Err(error) => {
                    // Nobody prepares one, and what is left can wait for the next start.
                    driver.shared.has_no_segment.store(true, Ordering::Release);
                    driver.stop();
                    return Err(error);
                }
            }
        }
        driver.shared.prepare.wake();
        Ok(driver)
    }

    /// Returns a handle for those who append.
    pub(crate) fn flusher(&self) -> Flusher {
        Flusher(Arc::clone(&self.shared))
    }

    /// Returns a handle for those who want a checkpoint.
    pub(crate) fn checkpointer(&self) -> Checkpointer {
        Checkpointer::new(&self.shared)
    }

    /// Writes what waits, marks it synced, and ends the threads.
    pub(crate) fn stop(self) {
        let Self { shared, threads } = self;
        // The flusher first: what it has left may wait for a segment.
        let signals = [&shared.flush, &shared.prepare, &shared.checkpoint];
        for (signal, thread) in signals.into_iter().zip(threads) {
            signal.stop();
            // A panic of it has ended the process already.
            let _ended = thread.join();
        }
    }
}

fn run_flusher(shared: &Shared) {
    // Err: whoever waits has heard of it.
    if let Ok(()) = flush_until_stop(shared) {
        shared.synced.end();
        shared.written.end();
    }
}

fn flush_until_stop(shared: &Shared) -> Result<(), ()> {
    let mut is_marked = false;
    let mut synced_at = shared.clock.monotonic();
    loop {
        // Something was written since the last SYNC: wait no longer than that is due.
        let limit = (!is_marked).then_some(IDLE_BEFORE_SYNC);
        let wake = shared.flush.wait(limit);
        if flush_all(shared, shared.mode, &mut synced_at)? > 0 {
            is_marked = false;
        }
        match wake {
            // Only silence is marked: woken for what was written already, the next write may be near.
            Wake::Work => sync_if_due(shared, &mut synced_at)?,
            Wake::Quiet => {
                sync_written(shared)?;
                is_marked = shared.shard.mark_synced().is_none();
                flush_all(shared, FlushMode::Synced, &mut synced_at)?;
            }
            Wake::Stop => return finish(shared, &mut synced_at),
        }
    }
}

/// Writes what is left and the last SYNC. What cannot be written was not acknowledged.
fn finish(shared: &Shared, synced_at: &mut Duration) -> Result<(), ()> {
    sync_written(shared)?;
    shared.shard.mark_synced();
    loop {
        flush_all(shared, FlushMode::Synced, synced_at)?;
        if !shared.shard.has_unflushed() || shared.has_no_segment.load(Ordering::Acquire) {
            return Ok(());
        }
        shared.flush.work();
    }
}

/// Writes group after group, and syncs them; returns how many.
fn flush_all(shared: &Shared, mode: FlushMode, synced_at: &mut Duration) -> Result<usize, ()> {
    let mut count = 0;
    shared.shard.set_now(shared.clock.wall_ms());
    loop {
        let Some(job) = shared.shard.next_flush() else {
            // It may wait for what is not synced: the segment is full.
            let is_full = mode == FlushMode::Written && shared.shard.waits_for_sync();
            if is_full {
                sync_written(shared)?;
                continue;
            }
            break;
        };
        let started = shared.clock.monotonic();
        let (bytes, entries) = (job.bytes(), job.entries());
        let reached = match mode {
            FlushMode::Synced => {
                let result = write_and_sync(shared, &job);
                let synced = shared.shard.flushed(job, result);
                synced.inspect(|lsn| shared.synced.reach(*lsn))
            }
            FlushMode::Written => {
                let result = job.write();
                shared.shard.written(job, result)
            }
        };
        let took = shared.clock.monotonic().saturating_sub(started);
        shared.observer.flushed(bytes, entries, took);
        match reached {
            Ok(lsn) => shared.written.reach(lsn),
            Err(source) => return end(shared, "write", source),
        }
        count += 1;
        shared.prepare.wake();
        if mode == FlushMode::Written {
            // There may always be another group.
            sync_if_due(shared, synced_at)?;
        }
    }
    if shared.shard.has_unflushed() {
        // It waits for a segment.
        shared.prepare.wake();
    }
    Ok(count)
}

fn write_and_sync(shared: &Shared, job: &FlushJob) -> io::Result<()> {
    let begun = shared.clock.monotonic();
    job.write()?;
    let written = shared.clock.monotonic();
    job.sync()?;
    let synced = shared.clock.monotonic();
    let micros =
        |from, to: Duration| u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX);
    let (wrote_us, synced_us) = (micros(begun, written), micros(written, synced));
    if synced.saturating_sub(begun) >= SLOW_GROUP {
        debug!(shard = shared.number, bytes = job.bytes(), wrote_us, synced_us, "slow disk");
    } else {
        trace!(shard = shared.number, bytes = job.bytes(), wrote_us, synced_us, "synced");
    }
    Ok(())
}

/// Syncs what was written without a sync, if that was not done for a while.
fn sync_if_due(shared: &Shared, synced_at: &mut Duration) -> Result<(), ()> {
    let now = shared.clock.monotonic();
    if now.saturating_sub(*synced_at) < IDLE_BEFORE_SYNC {
        return Ok(());
    }
    *synced_at = now;
    sync_written(shared)
}

/// Syncs what was written without a sync.
fn sync_written(shared: &Shared) -> Result<(), ()> {
    let Some(job) = shared.shard.next_sync() else { return Ok(()) };
    let result = job.run();
    match shared.shard.synced(job, result) {
        Ok(lsn) => {
            shared.synced.reach(lsn);
            // A checkpoint has only what is synced.
            shared.checkpoint.wake();
            Ok(())
        }
        Err(source) => end(shared, "write", source),
    }
}

/// Tells nobody anything any more.
fn end<T>(shared: &Shared, what: &str, source: StorageError) -> Result<T, ()> {
    error!(shard = shared.number, error = %source, "{what} failed: stopping");
    shared.synced.end();
    shared.written.end();
    checkpoints::end(shared);
    shared.observer.failed(source);
    Err(())
}

fn run_preparer(shared: &Shared) {
    let mut retry = None;
    let mut has_released = false;
    let mut rate = AppendRate::default();
    loop {
        // Whoever waits for a segment asks again and again: a disk without room is not tried as often.
        let wake = match retry.take() {
            Some(limit) => shared.prepare.pause(limit),
            None => shared.prepare.wait(shared.reserve.is_lacking().then_some(FULL_DISK_RETRY)),
        };
        if wake == Wake::Stop {
            return;
        }
        rate.sample(shared.clock.monotonic(), shared.observer.written_bytes());
        while let Some(job) = shared.shard.next_prepare() {
            rate.sample(shared.clock.monotonic(), shared.observer.written_bytes());
            let is_calm = rate.bytes_per_second < ZERO_BELOW_BYTES_PER_SECOND && !has_released;
            let mode = if is_calm { PrepareMode::Zero } else { PrepareMode::Allocate };
            debug!(shard = shared.number, file = %job.path().display(), ?mode, "prepare");
            let result = job.run(mode);
            let reason = result.as_ref().err().map(ToString::to_string);
            let prepared = shared.shard.prepared(job, result);
            shared
                .has_no_segment
                .store(!matches!(prepared, Ok(Prepared::Ready)), Ordering::Release);
            shared.flush.wake();
            match prepared {
                Ok(Prepared::Ready) => {}
                Ok(Prepared::DiskFull) => {
                    let reason = reason.unwrap_or_default();
                    debug!(shard = shared.number, reason, "no segment can be prepared for now");
                    if !has_released && shared.shard.has_unflushed() {
                        has_released = release(shared);
                        if has_released {
                            continue;
                        }
                    }
                    retry = Some(FULL_DISK_RETRY);
                    break;
                }
                Err(source) => {
                    let _failed: Result<(), ()> = end(shared, "prepare", source);
                    return;
                }
            }
        }
        sidecars::write(shared.number, &shared.shard);
        shared.checkpoint.wake();
        if !has_released && retry.is_none() && shared.reserve.is_lacking() {
            // Without it is how it started: whoever writes is not kept from that.
            let _later = shared.reserve.restore();
        }
        if has_released && retry.is_none() {
            has_released = shared.reserve.restore().is_err();
            shared.shard.on_reserve(has_released);
            retry = has_released.then_some(FULL_DISK_RETRY);
        }
    }
}

/// What was admitted before the disk filled up gets the room set aside for it.
fn release(shared: &Shared) -> bool {
    warn!(
        shard = shared.number,
        "no room for another segment: giving up the reserve for what was admitted"
    );
    match shared.reserve.release() {
        Ok(()) => {
            shared.shard.on_reserve(true);
            true
        }
        Err(error) => {
            error!(shard = shared.number, %error, "the reserve cannot be given up");
            false
        }
    }
}
