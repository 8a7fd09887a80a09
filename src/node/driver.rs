//! The threads that run a shard's jobs: one writes and syncs groups, one prepares segments, one takes
//! checkpoints.
//!
//! Whoever appended hears of it through [`Flusher::when_synced`], in the order of the log, from the
//! flusher's thread. A failed write or sync is never tried again: nobody is told anything any more
//! (their outcome is unknown), and the node ends.

mod checkpoints;

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{debug, error, warn};

pub(crate) use self::checkpoints::Checkpointer;
use super::{NodeError, fatal::Fatal, metrics::Metrics};
use crate::storage::{
    Shard,
    clock::Clock,
    log::{PrepareMode, Prepared, header::Lsn},
};

/// A log that has nothing to write for so long gets a SYNC entry.
const IDLE_BEFORE_SYNC: Duration = Duration::from_millis(100);
/// How long after a full disk the next preparation is tried.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);
/// Above this rate of appended bytes per second, zeroing ahead would take the rate from the writer.
const ZERO_BELOW_BYTES_PER_SECOND: u64 = 64 << 20;

/// Called when what it waits for is synced. Must be short: it runs on the flusher's thread.
pub(crate) type WhenSynced = Box<dyn FnOnce() + Send>;

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
}

/// What both threads and every handle share.
struct Shared {
    number: u32,
    shard: Arc<Shard>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    reserve: Arc<dyn Reserve>,
    fatal: Fatal,
    synced: AtomicU64,
    waiting: Mutex<VecDeque<(Lsn, WhenSynced)>>,
    flush: Signal,
    prepare: Signal,
    checkpoint: Signal,
    /// Who waits for a checkpoint of what is applied.
    asked: Mutex<Vec<checkpoints::Asked>>,
    /// The last preparation failed, so that what waits for a segment waits in vain.
    has_no_segment: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("shard", &self.number).finish_non_exhaustive()
    }
}

/// Why a thread woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// There may be work.
    Work,
    /// There was none for as long as the thread was willing to wait.
    Quiet,
    /// It is to stop, and there is no work.
    Stop,
}

/// A thread's reason to wake up.
#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct SignalState {
    has_work: bool,
    is_stopping: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; until it has, what the lock guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signal {
    fn wake(&self) {
        let mut state = lock(&self.state);
        if !state.has_work {
            state.has_work = true;
            self.changed.notify_one();
        }
    }

    /// Waits for work, whether it is time to stop or not.
    fn work(&self) {
        let state = lock(&self.state);
        let mut state = self
            .changed
            .wait_while(state, |state| !state.has_work)
            .unwrap_or_else(PoisonError::into_inner);
        state.has_work = false;
    }

    fn stop(&self) {
        lock(&self.state).is_stopping = true;
        self.changed.notify_one();
    }

    /// Waits for a stop or the end of `limit`, whatever work there is.
    fn pause(&self, limit: Duration) -> Wake {
        let state = lock(&self.state);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, limit, |state| !state.is_stopping)
            .unwrap_or_else(PoisonError::into_inner);
        match *state {
            SignalState { has_work: false, is_stopping: true } => Wake::Stop,
            SignalState { .. } => {
                state.has_work = false;
                Wake::Work
            }
        }
    }

    /// Waits for work, a stop, or the end of `limit`.
    fn wait(&self, limit: Option<Duration>) -> Wake {
        let state = lock(&self.state);
        let has_none = |state: &mut SignalState| !state.has_work && !state.is_stopping;
        let mut state = match limit {
            None => {
                self.changed.wait_while(state, has_none).unwrap_or_else(PoisonError::into_inner)
            }
            Some(limit) => {
                self.changed
                    .wait_timeout_while(state, limit, has_none)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        match *state {
            SignalState { has_work: true, .. } => {
                state.has_work = false;
                Wake::Work
            }
            SignalState { is_stopping: true, .. } => Wake::Stop,
            SignalState { .. } => Wake::Quiet,
        }
    }
}

/// A handle to a shard's flusher.
#[derive(Clone, Debug)]
pub(crate) struct Flusher(Arc<Shared>);

impl Flusher {
    /// Calls `done` when everything up to `lsn` is synced. If the log fails, it is dropped.
    pub(crate) fn when_synced(&self, lsn: Lsn, done: WhenSynced) {
        let mut waiting = lock(&self.0.waiting);
        waiting.push_back((lsn, done));
        // The group may have been synced between the append and this call.
        let ready = take_ready(&mut waiting, self.0.synced.load(Ordering::Acquire));
        drop(waiting);
        for done in ready {
            done();
        }
        self.0.flush.wake();
    }
}

fn take_ready(waiting: &mut VecDeque<(Lsn, WhenSynced)>, synced: Lsn) -> Vec<WhenSynced> {
    let ready = waiting.iter().take_while(|(lsn, _)| *lsn <= synced).count();
    waiting.drain(..ready).map(|(_, done)| done).collect()
}

/// The threads of one shard.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    flusher: JoinHandle<()>,
    preparer: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
}

/// What a driver is made of.
#[derive(Debug)]
pub(crate) struct DriverParts {
    /// The shard's number, for names and messages.
    pub(crate) number: u32,
    /// The shard.
    pub(crate) shard: Arc<Shard>,
    /// The node's clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The node's reserve of room.
    pub(crate) reserve: Arc<dyn Reserve>,
    /// Where a failure ends the node.
    pub(crate) fatal: Fatal,
}

impl Driver {
    /// Starts the threads.
    ///
    /// # Errors
    /// That the system gives no thread.
    pub(crate) fn start(parts: DriverParts) -> io::Result<Self> {
        let DriverParts { number, shard, clock, metrics, reserve, fatal } = parts;
        let shared = Arc::new(Shared {
            number,
            synced: AtomicU64::new(shard.synced_lsn()),
            shard,
            clock,
            metrics,
            reserve,
            fatal,
            waiting: Mutex::default(),
            flush: Signal::default(),
            prepare: Signal::default(),
            checkpoint: Signal::default(),
            asked: Mutex::default(),
            has_no_segment: AtomicBool::new(false),
        });
        let start = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || run(&shared))
        };
        let flusher = start("flush", run_flusher)?;
        let preparer = start("prepare", run_preparer)?;
        let checkpointer = start("checkpoint", checkpoints::run)?;
        shared.prepare.wake();
        Ok(Self { shared, flusher, preparer, checkpointer })
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
        // The flusher first: what it has left may wait for a segment. A panic of a thread has ended
        // the process already.
        self.shared.flush.stop();
        let _ended = self.flusher.join();
        self.shared.prepare.stop();
        let _ended = self.preparer.join();
        self.shared.checkpoint.stop();
        let _ended = self.checkpointer.join();
    }
}

fn run_flusher(shared: &Shared) {
    let mut is_marked = false;
    loop {
        // Something was written since the last SYNC: wait no longer than that is due.
        let limit = (!is_marked).then_some(IDLE_BEFORE_SYNC);
        let wake = shared.flush.wait(limit);
        match flush_all(shared) {
            Ok(0) => {}
            Ok(_) => is_marked = false,
            Err(()) => return,
        }
        match wake {
            // Only silence is marked: woken for what was written already, the next write may be near.
            Wake::Work => {}
            Wake::Quiet => {
                is_marked = shared.shard.mark_synced().is_none();
                if flush_all(shared).is_err() {
                    return;
                }
            }
            Wake::Stop => return finish(shared),
        }
    }
}

/// Writes what is left and the last SYNC. What cannot be written was not acknowledged.
fn finish(shared: &Shared) {
    shared.shard.mark_synced();
    while flush_all(shared).is_ok()
        && shared.shard.has_unflushed()
        && !shared.has_no_segment.load(Ordering::Acquire)
    {
        shared.flush.work();
    }
}

/// Writes and syncs group after group; returns how many.
fn flush_all(shared: &Shared) -> Result<usize, ()> {
    let mut count = 0;
    shared.shard.set_now(shared.clock.wall_ms());
    while let Some(job) = shared.shard.next_flush() {
        let started = shared.clock.monotonic();
        let result = job.run();
        let took = shared.clock.monotonic().saturating_sub(started);
        shared.metrics.flushed(job.bytes(), job.entries(), took);
        match shared.shard.flushed(job, result) {
            Ok(synced) => {
                shared.synced.store(synced, Ordering::Release);
                let ready = take_ready(&mut lock(&shared.waiting), synced);
                for done in ready {
                    done();
                }
            }
            Err(source) => {
                error!(shard = shared.number, error = %source, "write failed: stopping");
                lock(&shared.waiting).clear();
                shared.fatal.raise(NodeError::Shard { shard: shared.number, source });
                return Err(());
            }
        }
        count += 1;
        shared.prepare.wake();
    }
    if shared.shard.has_unflushed() {
        // It waits for a segment.
        shared.prepare.wake();
    }
    Ok(count)
}

fn run_preparer(shared: &Shared) {
    let mut retry = None;
    let mut has_released = false;
    let mut rate = AppendRate::default();
    loop {
        // Whoever waits for a segment asks again and again: a disk without room is not tried as often.
        let wake = match retry.take() {
            Some(limit) => shared.prepare.pause(limit),
            None => shared.prepare.wait(None),
        };
        if wake == Wake::Stop {
            return;
        }
        rate.sample(shared.clock.monotonic(), shared.metrics.appended_bytes());
        while let Some(job) = shared.shard.next_prepare() {
            rate.sample(shared.clock.monotonic(), shared.metrics.appended_bytes());
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
                    error!(shard = shared.number, error = %source, "prepare failed: stopping");
                    shared.fatal.raise(NodeError::Shard { shard: shared.number, source });
                    return;
                }
            }
        }
        write_sidecars(shared);
        shared.checkpoint.wake();
        if has_released && retry.is_none() {
            has_released = shared.reserve.restore().is_err();
            shared.shard.on_reserve(has_released);
            retry = has_released.then_some(FULL_DISK_RETRY);
        }
    }
}

/// Writes the sidecars of segments that are finished. Without one the index stays in memory.
fn write_sidecars(shared: &Shared) {
    while let Some(job) = shared.shard.next_sidecar() {
        let result = job.run();
        if let Err(error) = &result {
            let file = job.path();
            warn!(shard = shared.number, file = %file.display(), %error, "sidecar not written");
        }
        shared.shard.sidecar_done(&job, result);
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

/// How fast a log grows, over windows of a tenth of a second or more.
#[derive(Debug, Default)]
struct AppendRate {
    since: Duration,
    bytes_then: u64,
    bytes_per_second: u64,
}

/// Shorter windows tell of one group or none.
const RATE_WINDOW: Duration = Duration::from_millis(100);

impl AppendRate {
    fn sample(&mut self, now: Duration, bytes: u64) {
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

    #[test]
    fn work_is_told_from_silence_and_from_a_stop() {
        let signal = Signal::default();
        assert_eq!(signal.wait(Some(Duration::ZERO)), Wake::Quiet);
        signal.wake();
        signal.wake();
        assert_eq!(signal.wait(Some(Duration::ZERO)), Wake::Work);
        assert_eq!(signal.wait(Some(Duration::ZERO)), Wake::Quiet);
        signal.wake();
        signal.stop();
        assert_eq!(signal.wait(None), Wake::Work, "what waits is done before the stop");
        assert_eq!(signal.wait(None), Wake::Stop);
    }
}
