//! Snapshots: there are none yet, and everything that would need one says so.
//!
//! A log keeps all its entries, so no replica ever needs more than them.

use std::io;

use openraft::{RaftSnapshotBuilder, type_config::alias::SnapshotOf};

use super::types::TypeConfig;

/// Builds no snapshots.
#[derive(Debug)]
pub(super) struct NoSnapshots;

/// Returns the error of everything that needs a snapshot.
pub(super) fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this version has no snapshots")
}

impl RaftSnapshotBuilder<TypeConfig> for NoSnapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        Err(unsupported())
    }
}
