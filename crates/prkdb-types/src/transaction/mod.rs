//! What a transaction is before it is committed: what it wrote, what it read, where it may go back to.
//!
//! A [`Buffer`] is plain data. It knows no snapshot, no collection's partitions and no server: the
//! embedded engine reads through it from a snapshot of its own, the client from one that a server keeps.

mod buffer;
mod merge;
#[cfg(test)]
mod tests;

use crate::{ErrorCode, limits};

pub use self::{
    buffer::{Buffer, RangeRead, Reads},
    merge::{Merged, Order, Source},
};

/// What a transaction is kept from seeing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// It reads one snapshot, and of two that write a key the first to commit wins.
    #[default]
    Snapshot,
    /// Also, what it read is as it was when it commits: single keys, ranges, and what was absent. It is
    /// as if it had run alone at the moment of its commit.
    Serializable,
}

impl Isolation {
    /// Returns the name used in messages and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Serializable => "serializable",
        }
    }
}

/// A call that a transaction cannot take. What was done before stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// No savepoint has that name, or it went with one before it.
    #[error("the transaction has no savepoint '{name}'")]
    NoSuchSavepoint {
        /// The name.
        name: String,
    },
    /// One of its limits is reached.
    #[error("a transaction has at most {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// What it wrote takes more memory than it may have.
    #[error("the transaction's writes are {bytes} bytes, limit {limit} bytes (transaction-bytes)")]
    TooLarge {
        /// What they would be.
        bytes: usize,
        /// What they may be.
        limit: usize,
    },
}

impl TransactionError {
    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchSavepoint { .. } => ErrorCode::InvalidArgument,
            Self::TooMany { .. } | Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
        }
    }

    fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), Self> {
        if count < limit { Ok(()) } else { Err(Self::TooMany { what, limit }) }
    }

    fn check_writes(count: usize) -> Result<(), Self> {
        Self::check_count("keys written", count, limits::MAX_TRANSACTION_WRITES)
    }

    fn check_reads(count: usize) -> Result<(), Self> {
        Self::check_count("keys read", count, limits::MAX_TRANSACTION_READS)
    }

    fn check_ranges(count: usize) -> Result<(), Self> {
        Self::check_count("ranges read", count, limits::MAX_TRANSACTION_RANGES)
    }

    fn check_savepoints(count: usize) -> Result<(), Self> {
        Self::check_count("savepoints", count, limits::MAX_SAVEPOINTS)
    }
}
