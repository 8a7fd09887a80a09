//! What can go wrong in an embedded database, and what its program can do about it.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use prkdb_types::{ErrorCode, ErrorKind, TransactionError};

use crate::storage::{
    StorageError,
    dir::{DirError, Kind},
    sequencer::Refusal,
};

/// An error of an embedded database.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The builder was told too little, or what cannot be.
    #[error("open a database: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
    /// The directory cannot be used.
    #[error("open a database: {0}")]
    Directory(#[source] Arc<DirError>),
    /// A call to the system failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The log or what it holds failed.
    #[error("{0}")]
    Storage(#[source] Arc<StorageError>),
    /// No collection has that name.
    #[error("collection not found: {name}")]
    NoSuchCollection {
        /// The name.
        name: String,
    },
    /// A call was refused; nothing of it was or will be applied.
    #[error("{message}")]
    Refused {
        /// The row of the table of errors.
        code: ErrorCode,
        /// What failed, on what, and why.
        message: String,
        /// For a version that does not match: the one the key has.
        current_version: Option<u64>,
    },
    /// A transaction was refused because of what was written since its snapshot. Nothing of it was
    /// applied: run it again.
    #[error("{message}")]
    ConflictDetected {
        /// The collection of the key.
        collection: String,
        /// The first key at fault.
        key: Bytes,
        /// What became of it.
        message: String,
    },
    /// A transaction was given more than it takes, or a savepoint that it does not have.
    #[error("{0}")]
    Transaction(#[from] TransactionError),
    /// A transaction was open for longer than it may be. Nothing of it was applied.
    #[error("the transaction was open for longer than {limit:?}")]
    TransactionTimeout {
        /// How long it may be open.
        limit: std::time::Duration,
    },
    /// The database stopped before the write was applied: it may be there after the next opening.
    #[error("the database stopped before the write was applied: it may or may not be there")]
    Unknown,
    /// The database is closed, or its log failed earlier.
    #[error("the database is closed")]
    Closed,
}

impl DbError {
    /// Returns the row of the table of errors.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Settings { .. } => ErrorCode::InvalidArgument,
            Self::Directory(error) => error.code(),
            Self::Io { .. } => ErrorCode::Io,
            Self::Storage(error) => error.code(),
            Self::NoSuchCollection { .. } => ErrorCode::CollectionNotFound,
            Self::Refused { code, .. } => *code,
            Self::ConflictDetected { .. } => ErrorCode::ConflictDetected,
            Self::Transaction(error) => error.code(),
            Self::TransactionTimeout { .. } => ErrorCode::Deadline,
            Self::Unknown => ErrorCode::UnknownOutcome,
            Self::Closed => ErrorCode::Stopping,
        }
    }

    /// Returns what the program should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }

    /// Returns whether a transaction that ended with it may be run again from its start.
    pub fn is_conflict(&self) -> bool {
        matches!(self.code(), ErrorCode::ConflictDetected | ErrorCode::SnapshotGone)
    }

    /// Returns whether the write may or may not be applied.
    pub fn is_unknown_outcome(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// Returns what helps; empty where there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Directory(error) => match **error {
                DirError::WrongKind { found: Kind::Node, .. } => {
                    "it belongs to a node: serve it with prkdb serve and reach it with a client; \
                     to have its data in a program, copy them through a client into a new directory"
                }
                DirError::Locked { .. } => "close the other program, or choose another directory",
                _ => "",
            },
            _ => "",
        }
    }

    pub(super) fn io(action: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }

    /// Returns the error of a refusal; `name` names a collection by its id.
    pub(super) fn refused(refusal: Refusal, name: impl FnOnce(u32) -> String) -> Self {
        let Refusal { code, message, current_version, conflict } = refusal;
        match conflict {
            Some(conflict) => Self::ConflictDetected {
                collection: name(conflict.collection),
                key: conflict.key,
                message,
            },
            None => Self::Refused { code, message, current_version },
        }
    }
}

impl From<StorageError> for DbError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<DirError> for DbError {
    fn from(error: DirError) -> Self {
        Self::Directory(Arc::new(error))
    }
}
