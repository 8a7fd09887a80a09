//! The thread that writes what nobody asks for: tombstones for keys whose time is over, and where partitions
//! begin that hold more than their retention. As in a node these are decisions, and stand in the log.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use prkdb_types::headers::Operation;
use tracing::debug;

use super::{
    DbError,
    engine::Engine,
    trim::{BYTES_AT_ONCE, KEYS_AT_ONCE, trim},
};
use crate::storage::sequencer::{LogClock, WriteRequest};

/// So often it is looked for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two batches others get their turn: at most 50,000 keys a second.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread.
pub(super) struct Janitor {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Janitor {
    /// Starts it.
    ///
    /// # Errors
    /// That the system gives no thread.
    pub(super) fn start(engine: Arc<Engine>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let mut work = Work { engine, stopped, clock: LogClock::default() };
        // The first time is believed.
        work.now_ms();
        let thread =
            thread::Builder::new().name("janitor-0".to_owned()).spawn(move || work.run())?;
        Ok(Self { stop, thread })
    }

    /// Tells it to end, and returns what is to be joined: it may wait for a write that is answered only when
    /// the database has ended.
    pub(super) fn finish(self) -> JoinHandle<()> {
        let Self { stop, thread } = self;
        drop(stop);
        thread
    }
}

struct Work {
    engine: Arc<Engine>,
    stopped: Receiver<()>,
    /// Ages go by the log's time, also where nothing is written: a clock that is set forward is not believed.
    clock: LogClock,
}

impl Work {
    fn run(&mut self) {
        while !self.is_stopped_within(LOOK_EVERY) {
            // Whatever is refused is tried at the next look: a full disk refuses tombstones, and takes what
            // gives room back.
            if let Err(error) = self.sweep() {
                debug!(%error, "expiry goes on later");
            }
            self.retain();
        }
    }

    fn is_stopped_within(&self, limit: Duration) -> bool {
        self.stopped.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }

    fn now_ms(&mut self) -> i64 {
        let clock = &self.engine.clock;
        let now = self.clock.now(clock.wall_ms(), clock.monotonic());
        now.ms.max(self.engine.shard.log_time_ms())
    }

    /// Appends tombstones for all keys that are expired.
    fn sweep(&mut self) -> Result<(), DbError> {
        loop {
            let now_ms = self.now_ms();
            let shard = &self.engine.shard;
            if shard.next_expiry_ms().is_none_or(|next_ms| next_ms > now_ms) {
                return Ok(());
            }
            let Some(expired) = shard.expired(now_ms, KEYS_AT_ONCE, BYTES_AT_ONCE) else {
                return Ok(());
            };
            let (partition, collection, keys) =
                (expired.partition, expired.collection, expired.keys);
            let reason = Operation::Expired;
            let count = keys.len();
            let done =
                self.engine.write(WriteRequest::Sweep { partition, collection, keys, reason })?;
            debug!(count, "keys expired");
            if !done || self.is_stopped_within(PAUSE) {
                return Ok(());
            }
        }
    }

    /// Lets partitions begin later that hold more than they should.
    fn retain(&mut self) {
        let now_ms = self.now_ms();
        for overdue in self.engine.shard.overdue(now_ms) {
            let place = (overdue.partition, overdue.collection);
            let is_stopped = || self.is_stopped_within(Duration::ZERO);
            if let Err(error) =
                trim(&self.engine, place, (overdue.begun, overdue.point), is_stopped)
            {
                debug!(partition = overdue.partition, %error, "trimmed later");
            }
        }
    }
}
