//! What can go wrong in the storage engine, and what a caller should do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use prkdb_types::{ErrorCode, ErrorKind};

/// An error of the storage engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A call to the disk failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "open segment".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what was stored.
    #[error(
        "corrupt {}: at byte {position}: expected {expected}, found {found}",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The file was written by a later version.
    #[error("{} has format {found}: it needs a newer prkdb, this one knows formats up to {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u8,
        /// The newest this version reads.
        known: u8,
    },
    /// The file belongs to another cluster or shard.
    #[error("{} belongs to {found}, not to {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// An earlier write or sync failed; nothing is accepted after it.
    #[error("log {} failed earlier and accepts nothing", path.display())]
    Failed {
        /// The log's directory.
        path: PathBuf,
    },
    /// An entry does not continue the log.
    #[error("entry {index} does not continue the log: {reason}")]
    Discontinuous {
        /// Its index.
        index: u64,
        /// What does not fit.
        reason: String,
    },
    /// An accepted write contradicts the applied state: a defect.
    #[error("apply entry {index}: {reason}")]
    Apply {
        /// Its index.
        index: u64,
        /// What does not fit.
        reason: String,
    },
    /// A snapshot of another replica cannot be installed. Nothing was changed.
    #[error("snapshot at entry {index} is not installed: {reason}")]
    Snapshot {
        /// The last entry in it.
        index: u64,
        /// Why.
        reason: String,
    },
}

impl StorageError {
    /// Returns a closure that wraps an I/O error, for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Returns the row of the error table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } | Self::Failed { .. } => ErrorCode::Io,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::NewerFormat { .. } => ErrorCode::NewerFormat,
            Self::Foreign { .. } => ErrorCode::IdentityMismatch,
            Self::Discontinuous { .. } | Self::Apply { .. } | Self::Snapshot { .. } => {
                ErrorCode::Internal
            }
        }
    }

    /// Returns what a caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }
}
