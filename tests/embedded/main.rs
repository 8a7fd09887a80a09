//! The engine inside of a program.

#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]
#![expect(clippy::disallowed_methods, reason = "a test gives up by the clock of the machine")]

mod adapters;
mod cleanup;
mod collections;
mod directory;
mod handles;
mod keys;
mod kill;
mod power;
mod transactions;

use std::time::{Duration, Instant};

use prkdb::db::{Durability, PrkDb};
use tempfile::TempDir;

/// A directory, and a database in it.
pub(crate) fn fresh() -> (TempDir, PrkDb) {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    (dir, db)
}

pub(crate) fn open(dir: &TempDir) -> PrkDb {
    PrkDb::builder().with_data_dir(dir.path().join("data")).build().unwrap()
}

pub(crate) fn open_relaxed(dir: &TempDir) -> PrkDb {
    let builder = PrkDb::builder().with_data_dir(dir.path().join("data"));
    builder.with_durability(Durability::Relaxed).build().unwrap()
}

/// Looks again and again, without a pause, until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}
