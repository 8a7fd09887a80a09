//! The thread that applies what is committed, and answers who waits for it.
//!
//! Durable, then applied and visible, then answered: in that order, and in the order of the log.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::error;

use super::{
    DbError,
    engine::{Engine, OnDone, done},
};
use crate::{
    driver::{
        Observer,
        signal::{Signal, Wake, lock},
    },
    storage::{Shard, StorageError, log::entry::LogId},
};

/// Most entries applied as one group.
const GROUP_ENTRIES_MAX: usize = 1024;

/// An entry on its way, and who waits for it.
pub(super) struct Waiting {
    pub(super) id: LogId,
    pub(super) sequence: u64,
    pub(super) frame: usize,
    pub(super) reply: OnDone,
}

/// What the thread works with.
#[derive(Default)]
pub(super) struct Applier {
    under_way: Mutex<VecDeque<Waiting>>,
    committed: AtomicU64,
    signal: Signal,
    written_bytes: AtomicU64,
    groups: AtomicU64,
    /// The error that ended the database.
    failure: Mutex<Option<Arc<StorageError>>>,
    engine: OnceLock<Weak<Engine>>,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("committed", &self.committed).finish_non_exhaustive()
    }
}

impl Applier {
    /// Tells it whose entries it applies. Called once.
    pub(super) fn serve(&self, engine: &Arc<Engine>) {
        let _set = self.engine.set(Arc::downgrade(engine));
    }

    /// Takes an entry that is about to be appended.
    pub(super) fn expect(&self, waiting: Waiting) {
        lock(&self.under_way).push_back(waiting);
    }

    /// Hears that the entries up to `index` are committed.
    pub(super) fn committed(&self, index: u64) {
        self.committed.fetch_max(index, Ordering::AcqRel);
        self.signal.wake();
    }

    /// Returns why the database ended, if it failed.
    pub(super) fn failure(&self) -> Option<DbError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map(DbError::Storage)
    }

    /// Returns how many groups of entries were written.
    pub(super) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// Ends the database: nothing that was not answered is known.
    pub(super) fn fail(&self, error: Arc<StorageError>) {
        lock(&self.failure).get_or_insert(error);
        // The one who appends may hold the lock of the engine: it is closed by the thread.
        self.signal.stop();
    }

    /// Stops the thread when everything that is committed is applied.
    pub(super) fn stop(&self) {
        self.signal.stop();
    }

    /// Applies until it is stopped.
    pub(super) fn run(&self, shard: &Shard) {
        loop {
            let wake = self.signal.wait(None);
            while self.failure().is_none() && self.apply_some(shard) {}
            if wake == Wake::Stop || self.failure().is_some() {
                break;
            }
        }
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
            engine.end();
        }
        // Those that are left are answered by being dropped: nobody knows.
        let left = std::mem::take(&mut *lock(&self.under_way));
        drop(left);
    }

    /// Applies a group; returns whether there was one.
    fn apply_some(&self, shard: &Shard) -> bool {
        let committed = self.committed.load(Ordering::Acquire);
        let group: Vec<Waiting> = {
            let mut under_way = lock(&self.under_way);
            let ready = under_way.iter().take_while(|one| one.id.index <= committed).count();
            under_way.drain(..ready.min(GROUP_ENTRIES_MAX)).collect()
        };
        let Some(last) = group.last() else { return false };
        let (last_id, last_sequence) = (last.id, last.sequence);
        shard.set_committed(Some(last_id));
        let ids: Vec<LogId> = group.iter().map(|one| one.id).collect();
        match shard.apply_all(&ids) {
            Ok(applied) => {
                if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
                    engine.applied(last_sequence, last_id.index);
                }
                for (one, applied) in group.into_iter().zip(applied) {
                    (one.reply)(done(&applied, one.frame));
                }
                true
            }
            Err(error) => {
                error!(%error, "apply failed: the database ends");
                self.fail(Arc::new(error));
                false
            }
        }
    }
}

impl Observer for Applier {
    fn flushed(&self, bytes: u64, _entries: usize, _took: Duration) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.groups.fetch_add(1, Ordering::Relaxed);
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    fn checkpointed(&self, _bytes: u64, _took: Duration) {}

    fn cleaned(&self, _read: u64, _written: u64, _took: Duration) {}

    fn failed(&self, error: StorageError) {
        self.fail(Arc::new(error));
    }
}
