//! What ends a node, and the exit code of the process it ends.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use prkdb_types::ErrorCode;

use crate::storage::{
    StorageError,
    dir::{DirError, Kind},
};

/// An error that ends a node or keeps it from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration contradicts itself or asks for what is refused.
    #[error("{}", problems.join("; "))]
    Config {
        /// Every problem.
        problems: Vec<String>,
        /// The flag that helps, or empty.
        hint: &'static str,
    },
    /// A socket could not be bound.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process may not open enough files.
    #[error("the limit of open files is {limit}, a node needs {needed}")]
    FewFiles {
        /// What it may open.
        limit: u64,
        /// The least it needs.
        needed: u64,
    },
    /// A name could not be resolved.
    #[error("resolve {address}: {source}")]
    Resolve {
        /// What was given.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("open data directory: {0}")]
    Directory(#[from] DirError),
    /// A shard cannot be opened, or its log failed.
    #[error("shard {shard}: {source}")]
    Shard {
        /// The shard.
        shard: u32,
        /// What the storage engine said.
        #[source]
        source: StorageError,
    },
    /// A directory of a shard is missing or is not a directory.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Consensus stopped by itself.
    #[error("shard {shard}: consensus stopped: {reason}")]
    Consensus {
        /// The shard.
        shard: u32,
        /// Why.
        reason: String,
    },
    /// The node did not finish its writes within its time.
    #[error("stop took more than {} s: some writes were not applied", limit.as_secs())]
    ShutdownTimeout {
        /// The time it had.
        limit: Duration,
    },
}

/// The exit code of a usage error.
const USAGE: u8 = 2;

impl NodeError {
    /// Returns the row of the error table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config { .. } => ErrorCode::InvalidArgument,
            Self::Bind { .. } | Self::FewFiles { .. } | Self::Resolve { .. } | Self::Io { .. } => {
                ErrorCode::Io
            }
            Self::Directory(error) => error.code(),
            Self::Shard { source, .. } => source.code(),
            Self::Consensus { .. } | Self::ShutdownTimeout { .. } => ErrorCode::Internal,
        }
    }

    /// Returns the exit code of `prkdb serve`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => USAGE,
            other => other.code().exit_code(),
        }
    }

    /// Returns the data directory whose log is damaged, if it is that: the `wal` tools look at it.
    pub fn damaged(&self) -> Option<&Path> {
        match self {
            Self::Shard { source: StorageError::Corrupt { path, .. }, .. } => data_dir_of(path),
            _ => None,
        }
    }

    /// Returns what the operator can do; empty where there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Config { hint, .. } => hint,
            Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there: choose another address, or port 0"
                }
                io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
                io::ErrorKind::PermissionDenied => "ports below 1024 need a right: choose another",
                _ => "",
            },
            Self::Directory(DirError::WrongKind { found: Kind::Embedded, .. }) => {
                "a program has it inside (PrkDb): let that program copy its data into a node through a \
                 client, and give the node a directory of its own"
            }
            Self::FewFiles { .. } => "raise it: ulimit -n 65536, or LimitNOFILE= of the service",
            _ => "",
        }
    }
}

/// Returns the data directory that a shard's directory, or a file in one, lies in.
fn data_dir_of(path: &Path) -> Option<&Path> {
    let is_shards = |path: &&Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("shard-"))
    };
    path.ancestors().find(is_shards)?.parent()
}
