//! The suite that an adapter's author runs: what the tiers promise, checked from outside.
//!
//! [`conformance!`](crate::conformance) makes a test of each check. A check of a tier that the adapter does
//! not claim demands that the calls of it are refused.

mod kv;
mod log;
mod txn;

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;

use super::{AdapterError, Applied, Snapshot, StorageAdapter, WriteBatch};

/// One empty store, which can be opened again.
pub trait Fixture {
    /// Opens the store. If the adapter is durable, opened again it has what was applied before; the suite
    /// lets go of the one opened before.
    ///
    /// # Errors
    /// That it cannot be opened.
    fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError>;
}

/// What is wrong with an adapter.
pub type Failure = String;

/// A check of one property, on an empty store.
pub type Check = fn(&dyn Fixture) -> Result<(), Failure>;

/// Every check and its name.
pub const CHECKS: &[(&str, Check)] = &[
    ("an_empty_store_is_empty", kv::empty),
    ("changes_of_a_batch_hold_in_order", kv::changes),
    ("a_scan_is_in_the_order_of_bytes_and_within_its_bounds", kv::scans),
    ("a_snapshot_stays_as_it_was", kv::snapshots),
    ("a_batch_is_seen_whole_or_not_at_all", kv::whole),
    ("what_is_refused_leaves_nothing_behind", kv::refused),
    ("what_is_durable_is_there_when_it_is_opened_again", kv::reopened),
    ("a_batch_whose_reads_still_hold_is_applied", txn::holds),
    ("a_batch_whose_keys_were_written_conflicts", txn::keys),
    ("a_key_that_is_put_back_was_written", txn::put_back),
    ("a_range_that_changed_conflicts", txn::ranges),
    ("a_conflict_names_its_key_and_applies_nothing", txn::names),
    ("counters_lose_no_update", txn::counters),
    ("the_log_has_every_commit_in_order", log::commits),
    ("the_log_is_read_in_pieces", log::pieces),
    ("a_trimmed_log_says_where_it_begins", log::trims),
];

/// Runs all checks, each on a fixture of its own; returns what is wrong.
pub fn failures<F: Fixture>(fresh: impl Fn() -> F) -> Vec<(&'static str, Failure)> {
    CHECKS
        .iter()
        .filter_map(|(name, check)| check(&fresh()).err().map(|failure| (*name, failure)))
        .collect()
}

/// Makes a test that runs every check of the suite on an adapter, given how to make a fixture.
#[macro_export]
macro_rules! conformance {
    ($fresh:expr) => {
        #[test]
        fn the_adapter_keeps_what_its_tiers_promise() {
            let failures = $crate::adapter::conformance::failures($fresh);
            assert!(failures.is_empty(), "{failures:#?}");
        }
    };
}

/// Wakes the thread that waits.
#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rings: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.has_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rings.notify_one();
    }
}

/// Waits for a future on this thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        let has_rung = bell.has_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.rings.wait_while(has_rung, |has_rung| !*has_rung);
        *waited.unwrap_or_else(PoisonError::into_inner) = false;
    }
}

fn open(fixture: &dyn Fixture) -> Result<Arc<dyn StorageAdapter>, Failure> {
    fixture.open().map_err(|error| format!("open: {error}"))
}

fn apply(adapter: &dyn StorageAdapter, batch: WriteBatch) -> Result<Applied, Failure> {
    wait(adapter.apply(batch)).map_err(|error| format!("apply: {error}"))
}

fn snapshot(adapter: &dyn StorageAdapter) -> Result<Box<dyn Snapshot>, Failure> {
    adapter.snapshot().map_err(|error| format!("snapshot: {error}"))
}

fn value(snapshot: &dyn Snapshot, key: &[u8]) -> Result<Option<Bytes>, Failure> {
    snapshot.get(key).map_err(|error| format!("get: {error}"))
}

fn demand(holds: bool, failure: impl FnOnce() -> Failure) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(failure()) }
}

/// Demands that a call outside of the tiers is refused as such.
fn is_unsupported<T>(what: &str, result: Result<T, AdapterError>) -> Result<(), Failure> {
    match result {
        Err(AdapterError::Unsupported { .. }) => Ok(()),
        Err(error) => Err(format!("{what} is not claimed, and is refused as: {error}")),
        Ok(_) => Err(format!("{what} is not claimed, and is done")),
    }
}
