//! The engine as a storage adapter: below the typed layer, or beside others in the same suite.
//!
//! [`WalStorage`] has every tier but trimming, on the collection `default`: its log is the store, and what is
//! trimmed would take keys with it. [`SegmentedLog`] is the same log without a key index, which is trimmed.

mod log;
mod wal;

use std::sync::Arc;

use prkdb_types::adapter::AdapterError;

pub use self::{log::SegmentedLog, wal::WalStorage};
use super::DbError;

/// Returns the adapter's error of a database's.
fn adapted(error: DbError) -> AdapterError {
    match error {
        DbError::Refused { code, message, .. } => AdapterError::Refused { code, message },
        other => AdapterError::Failed(Arc::new(other)),
    }
}
