//! The answer to a call: awaited on any runtime, or waited for on a thread.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use prkdb_types::ErrorCode;

use super::DbError;

/// An answer that is there, or will be.
///
/// Cancel safety: dropped, a write goes on and nobody hears how it ended; one that is made again where it meets
/// another, as [`super::Kv::expire`], is not made again.
#[must_use = "a write is acknowledged by its reply alone"]
pub struct Reply<T>(State<T>);

enum State<T> {
    Ready(Option<Result<T, DbError>>),
    Waiting(Arc<Slot<T>>),
    Trying(Box<Trying<T>>),
}

/// A call that is made again where it was refused because of another.
struct Trying<T> {
    call: Box<dyn FnMut() -> Reply<T> + Send>,
    under_way: Reply<T>,
    left: usize,
}

impl<T> Trying<T> {
    /// Makes the call again if that is what this answer asks for.
    fn again(&mut self, answer: Result<T, DbError>) -> Option<Result<T, DbError>> {
        match answer {
            Err(error) if error.code() == ErrorCode::VersionMismatch && self.left > 0 => {
                self.left -= 1;
                self.under_way = (self.call)();
                None
            }
            answer => Some(answer),
        }
    }
}

struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

struct SlotState<T> {
    answer: Option<Result<T, DbError>>,
    waker: Option<Waker>,
}

/// Answers once. Dropped without an answer, the outcome is unknown.
pub(super) struct Replier<T>(Option<Arc<Slot<T>>>);

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, SlotState<T>> {
        // Nothing that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reply<T> {
    /// Returns an answer that is there.
    pub(super) fn ready(answer: Result<T, DbError>) -> Self {
        Self(State::Ready(Some(answer)))
    }

    /// Returns an answer to come, and who gives it.
    pub(super) fn waiting() -> (Replier<T>, Self) {
        let state = Mutex::new(SlotState { answer: None, waker: None });
        let slot = Arc::new(Slot { state, filled: Condvar::new() });
        (Replier(Some(Arc::clone(&slot))), Self(State::Waiting(slot)))
    }

    /// Makes a call, and up to so many times again while it is answered with a version that does not
    /// match. Later calls are made by whoever waits for the answer.
    pub(super) fn trying(left: usize, mut call: impl FnMut() -> Self + Send + 'static) -> Self {
        let under_way = call();
        Self(State::Trying(Box::new(Trying { call: Box::new(call), under_way, left })))
    }

    /// Waits for the answer on this thread.
    ///
    /// # Errors
    /// What the call was answered with.
    pub fn wait(self) -> Result<T, DbError> {
        match self.0 {
            State::Ready(answer) => answer.unwrap_or(Err(DbError::Closed)),
            State::Waiting(slot) => {
                let state = slot.lock();
                let mut state = slot
                    .filled
                    .wait_while(state, |state| state.answer.is_none())
                    .unwrap_or_else(PoisonError::into_inner);
                state.answer.take().unwrap_or(Err(DbError::Closed))
            }
            State::Trying(mut trying) => loop {
                let under_way = std::mem::replace(&mut trying.under_way, Self(State::Ready(None)));
                if let Some(answer) = trying.again(under_way.wait()) {
                    return answer;
                }
            },
        }
    }
}

impl<T> Unpin for Reply<T> {}

impl<T> Future for Reply<T> {
    type Output = Result<T, DbError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(answer) => Poll::Ready(answer.take().unwrap_or(Err(DbError::Closed))),
            State::Waiting(slot) => {
                let mut state = slot.lock();
                match state.answer.take() {
                    Some(answer) => Poll::Ready(answer),
                    None => {
                        state.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            }
            State::Trying(trying) => loop {
                let Poll::Ready(answer) = Pin::new(&mut trying.under_way).poll(context) else {
                    return Poll::Pending;
                };
                if let Some(answer) = trying.again(answer) {
                    return Poll::Ready(answer);
                }
            },
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl<T> Replier<T> {
    /// Gives the answer.
    pub(super) fn answer(mut self, answer: Result<T, DbError>) {
        self.answer_once(answer);
    }

    fn answer_once(&mut self, answer: Result<T, DbError>) {
        let Some(slot) = self.0.take() else { return };
        let waker = {
            let mut state = slot.lock();
            state.answer = Some(answer);
            state.waker.take()
        };
        slot.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Replier<T> {
    fn drop(&mut self) {
        self.answer_once(Err(DbError::Unknown));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_reaches_who_waits_and_who_awaits() {
        let (replier, reply) = Reply::waiting();
        let waiting = thread::spawn(|| reply.wait());
        replier.answer(Ok(7));
        assert_eq!(waiting.join().unwrap().unwrap(), 7);
        let (replier, mut reply) = Reply::waiting();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut reply).poll(&mut context).is_pending());
        replier.answer(Ok(8));
        assert!(matches!(Pin::new(&mut reply).poll(&mut context), Poll::Ready(Ok(8))));
        assert_eq!(Reply::ready(Ok(9)).wait().unwrap(), 9);
    }

    #[test]
    fn an_answer_that_is_never_given_is_unknown() {
        let (replier, reply) = Reply::<u8>::waiting();
        drop(replier);
        assert!(matches!(reply.wait(), Err(DbError::Unknown)));
    }
}
