//! Who waits for the log to have come so far.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::signal::lock;
use crate::storage::log::header::Lsn;

/// Called when the log has come so far. Must be short: it runs on the flusher's thread.
pub(crate) type WhenReached = Box<dyn FnOnce() + Send>;

/// Those who wait for the log to have come so far.
pub(super) struct Waiters {
    reached: AtomicU64,
    /// `None`: it comes no further.
    waiting: Mutex<Option<VecDeque<(Lsn, WhenReached)>>>,
}

impl Waiters {
    /// Returns nobody, for a log that has come so far.
    pub(super) fn from(reached: Lsn) -> Self {
        Self { reached: AtomicU64::new(reached), waiting: Mutex::new(Some(VecDeque::new())) }
    }

    /// Takes one who waits for `lsn`: called at once where the log has come so far, dropped where it ends first.
    pub(super) fn push(&self, lsn: Lsn, done: WhenReached) {
        match &mut *lock(&self.waiting) {
            Some(waiting) => waiting.push_back((lsn, done)),
            // Dropped behind the lock.
            None => return,
        }
        // It may have come so far between the append and this call.
        self.call_ready();
    }

    /// Calls those who wait for `lsn`, or less.
    pub(super) fn reach(&self, lsn: Lsn) {
        self.reached.fetch_max(lsn, Ordering::AcqRel);
        self.call_ready();
    }

    fn call_ready(&self) {
        let ready: Vec<WhenReached> = {
            let mut waiting = lock(&self.waiting);
            let Some(waiting) = waiting.as_mut() else { return };
            let reached = self.reached.load(Ordering::Acquire);
            let ready = waiting.iter().take_while(|(lsn, _)| *lsn <= reached).count();
            waiting.drain(..ready).map(|(_, done)| done).collect()
        };
        for done in ready {
            done();
        }
    }

    /// Tells nobody anything any more, now or later.
    pub(super) fn end(&self) {
        let left = lock(&self.waiting).take();
        // Not under the lock: who waits hears of it.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvError, channel};

    use super::*;

    fn wait_for(waiters: &Waiters, lsn: Lsn) -> Receiver<()> {
        let (called, is_called) = channel();
        waiters.push(lsn, Box::new(move || called.send(()).unwrap()));
        is_called
    }

    #[test]
    fn whoever_waits_is_called_when_the_log_is_there_or_is_already() {
        let waiters = Waiters::from(5);
        assert_eq!(wait_for(&waiters, 5).try_recv(), Ok(()));
        let (six, seven) = (wait_for(&waiters, 6), wait_for(&waiters, 7));
        waiters.reach(6);
        assert_eq!(six.try_recv(), Ok(()));
        assert!(seven.try_recv().is_err());
        waiters.reach(9);
        assert_eq!(seven.try_recv(), Ok(()));
    }

    #[test]
    fn nobody_waits_for_a_log_that_has_ended() {
        let waiters = Waiters::from(5);
        let before = wait_for(&waiters, 6);
        waiters.end();
        assert_eq!(before.recv(), Err(RecvError));
        assert_eq!(wait_for(&waiters, 7).recv(), Err(RecvError));
        waiters.reach(9);
        assert_eq!(wait_for(&waiters, 8).recv(), Err(RecvError));
    }
}
