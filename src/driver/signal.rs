//! What wakes a thread that runs jobs.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Takes a lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; until it has, what the lock guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a thread woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There may be work.
    Work,
    /// There was none for as long as the thread was willing to wait.
    Quiet,
    /// It is to stop, and there is no work.
    Stop,
}

/// A thread's reason to wake up.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct SignalState {
    has_work: bool,
    is_stopping: bool,
}

impl Signal {
    /// Says that there is work.
    pub(crate) fn wake(&self) {
        let mut state = lock(&self.state);
        if !state.has_work {
            state.has_work = true;
            self.changed.notify_one();
        }
    }

    /// Waits for work, whether it is time to stop or not.
    pub(crate) fn work(&self) {
        let state = lock(&self.state);
        let mut state = self
            .changed
            .wait_while(state, |state| !state.has_work)
            .unwrap_or_else(PoisonError::into_inner);
        state.has_work = false;
    }

    /// Says that it is time to stop, after what work there is.
    pub(crate) fn stop(&self) {
        lock(&self.state).is_stopping = true;
        self.changed.notify_one();
    }

    /// Waits for a stop or the end of `limit`, whatever work there is.
    pub(crate) fn pause(&self, limit: Duration) -> Wake {
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
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Wake {
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

#[cfg(test)]
mod tests {
    use super::*;

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
