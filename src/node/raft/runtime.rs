//! The runtime openraft runs on: tokio, but for one thing.
//!
//! openraft limits how often it forwards flush completions by sleeping for a microsecond. A timer of
//! tokio takes a millisecond at least, and every commit of the shard would wait for it. A deadline
//! that near is answered at once instead.

use std::{
    future::{Future, Ready, ready},
    time::Duration,
};

use futures_util::future::Either;
use openraft_rt::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_tokio::TokioRuntime;

/// Deadlines nearer than this are past.
const NEAR: Duration = Duration::from_micros(2);

/// Tokio, with near deadlines answered at once.
#[derive(Debug)]
pub(super) struct Runtime(TokioRuntime);

type Inner = TokioRuntime;

impl AsyncRuntime for Runtime {
    type JoinError = <Inner as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::JoinHandle<T>;
    type Sleep = Either<Ready<()>, <Inner as AsyncRuntime>::Sleep>;
    type Instant = <Inner as AsyncRuntime>::Instant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Inner as AsyncRuntime>::Mpsc;
    type Watch = <Inner as AsyncRuntime>::Watch;
    type Oneshot = <Inner as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Inner::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        if duration <= NEAR {
            Either::Left(ready(()))
        } else {
            Either::Right(Inner::sleep(duration))
        }
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        if deadline <= Self::Instant::now() + NEAR {
            Either::Left(ready(()))
        } else {
            Either::Right(Inner::sleep_until(deadline))
        }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Inner::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Inner::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Inner::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_near_deadline_is_no_sleep_and_a_far_one_is() {
        type Instant = <Runtime as AsyncRuntime>::Instant;
        let near = Instant::now() + Duration::from_micros(1);
        assert!(Runtime::sleep_until(near).now_or_never().is_some());
        assert!(Runtime::sleep(Duration::from_micros(1)).now_or_never().is_some());
        let far = Instant::now() + Duration::from_secs(60);
        assert!(Runtime::sleep_until(far).now_or_never().is_none());
        assert!(Runtime::sleep(Duration::from_secs(60)).now_or_never().is_none());
    }

    #[test]
    fn it_keeps_the_contract_of_a_runtime() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }
}
