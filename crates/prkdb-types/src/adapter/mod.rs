//! What an engine must offer to be used below the typed layer, and the suite that tells whether it does.
//!
//! A [`StorageAdapter`] claims [`Tiers`]; a call outside of them is refused as unsupported, and never done
//! half. [`MemoryStorage`] is the reference: small, and right. Whoever writes another runs the
//! [`conformance`] suite on it:
//!
//! ```
//! use std::sync::Arc;
//! use prkdb_types::adapter::{AdapterError, MemoryStorage, StorageAdapter, conformance::Fixture};
//!
//! #[derive(Default)]
//! struct Memory(Arc<MemoryStorage>);
//!
//! impl Fixture for Memory {
//!     fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError> {
//!         Ok(self.0.clone())
//!     }
//! }
//!
//! prkdb_types::conformance!(Memory::default);
//! # fn main() {}
//! ```

pub mod conformance;

mod memory;

use std::{
    fmt,
    future::Future,
    ops::{Bound, RangeBounds},
    pin::Pin,
};

use bytes::Bytes;

pub use self::memory::MemoryStorage;
use crate::{ErrorCode, transaction::Order};

/// Numbers commits of one adapter: a later one has a higher number. 0 is before the first.
pub type Revision = u64;

/// A future of no particular runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Rows of a scan.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), AdapterError>> + Send + 'a>;

/// A range of keys.
pub type KeyRange = (Bound<Bytes>, Bound<Bytes>);

/// What an adapter can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiers {
    /// Commits are kept and can be read in order: [`StorageAdapter::log`].
    pub log: bool,
    /// Keys can be read, at one moment: [`StorageAdapter::snapshot`].
    pub kv: bool,
    /// Batches may have a [`ReadSet`].
    pub txn: bool,
    /// Old commits can be let go: [`StorageAdapter::trim_log`]. Only with `log`.
    pub trim: bool,
}

/// What an adapter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Its name.
    pub name: &'static str,
    /// What it can do.
    pub tiers: Tiers,
    /// Whether what is applied is there when it is opened again.
    pub is_durable: bool,
    /// Whether its log is its store, and not kept beside it.
    pub has_native_log: bool,
    /// Longest key.
    pub key_bytes_max: usize,
    /// Longest value.
    pub value_bytes_max: usize,
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, not empty.
    pub key: Bytes,
    /// Its next value; `None` takes the value away.
    pub value: Option<Bytes>,
}

/// What a batch rests on: nothing of it may have been written since a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// The revision of the snapshot. It should be held still: an adapter may have forgotten what was
    /// written since one that nobody holds, and then refuses the batch.
    pub revision: Revision,
    /// Keys that were read, with a value or without. The keys that the batch writes count as read, and
    /// must not even have been written and put back.
    pub keys: Vec<Bytes>,
    /// Ranges that were read: no key of them may have changed, appeared or gone.
    pub ranges: Vec<KeyRange>,
}

/// Changes that are applied as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// In order: of two of one key the later one holds.
    pub changes: Vec<Change>,
    /// What must hold; `None` = nothing.
    pub read_set: Option<ReadSet>,
}

impl WriteBatch {
    /// Returns a batch that rests on nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.changes.push(Change { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Takes a key's value away.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.changes.push(Change { key: key.into(), value: None });
        self
    }

    /// Makes it rest on what was read.
    #[must_use]
    pub fn resting_on(mut self, read_set: ReadSet) -> Self {
        self.read_set = Some(read_set);
        self
    }

    /// Refuses a batch that is empty, or has a key or value that an adapter does not take.
    ///
    /// # Errors
    /// [`AdapterError::Refused`].
    pub fn check(&self, info: &AdapterInfo) -> Result<(), AdapterError> {
        let refused = |code, message| Err(AdapterError::Refused { code, message });
        if self.changes.is_empty() {
            return refused(ErrorCode::InvalidArgument, "the batch has no changes".to_owned());
        }
        for Change { key, value } in &self.changes {
            if key.is_empty() {
                return refused(
                    ErrorCode::KeyEmpty,
                    "a key must have at least one byte".to_owned(),
                );
            }
            if key.len() > info.key_bytes_max {
                let message =
                    format!("key is {} bytes, limit {} bytes", key.len(), info.key_bytes_max);
                return refused(ErrorCode::KeyTooLarge, message);
            }
            let bytes = value.as_ref().map_or(0, Bytes::len);
            if bytes > info.value_bytes_max {
                let message =
                    format!("value is {bytes} bytes, limit {} bytes", info.value_bytes_max);
                return refused(ErrorCode::ValueTooLarge, message);
            }
        }
        if self.read_set.is_some() && !info.tiers.txn {
            return Err(AdapterError::unsupported(info, "a batch with a read set"));
        }
        Ok(())
    }
}

/// A batch in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub revision: Revision,
    /// What it changed. Of several changes of one key an adapter may keep only the last.
    pub changes: Vec<Change>,
}

/// How much of a log to read: at least one commit if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit {
    /// Most commits.
    pub commits: usize,
    /// About so many bytes.
    pub bytes: usize,
}

/// A batch that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub revision: Revision,
}

/// Why an adapter did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The batch rests on something that was written since. Nothing of it was applied.
    #[error("the batch conflicts: key \"{}\" was written since revision {revision}", .key.escape_ascii())]
    Conflict {
        /// A key that was.
        key: Bytes,
        /// The revision of the read set.
        revision: Revision,
    },
    /// The adapter does not know any more what was written since the read set. Nothing was applied.
    #[error("what was written since revision {revision} is not known any more")]
    SnapshotGone {
        /// The revision of the read set.
        revision: Revision,
    },
    /// Commits of the log were let go.
    #[error("the log begins at revision {oldest}")]
    Compacted {
        /// The first that is left, or is to come.
        oldest: Revision,
    },
    /// The call is not in the tiers that the adapter claims.
    #[error("{adapter} does not support {what}")]
    Unsupported {
        /// The adapter.
        adapter: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// The call is refused. Nothing was applied.
    #[error("{message}")]
    Refused {
        /// The row of the table of errors.
        code: ErrorCode,
        /// What failed, on what, and why.
        message: String,
    },
    /// The engine below failed; of a batch it is not known whether it was applied.
    #[error("storage failed: {0}")]
    Failed(std::sync::Arc<dyn std::error::Error + Send + Sync>),
}

impl AdapterError {
    /// Returns the error of a call outside of an adapter's tiers.
    pub fn unsupported(info: &AdapterInfo, what: &'static str) -> Self {
        Self::Unsupported { adapter: info.name, what }
    }

    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Conflict { .. } => ErrorCode::ConflictDetected,
            Self::SnapshotGone { .. } => ErrorCode::SnapshotGone,
            Self::Compacted { .. } => ErrorCode::OffsetOutOfRange,
            Self::Unsupported { .. } => ErrorCode::Unsupported,
            Self::Refused { code, .. } => *code,
            Self::Failed(_) => ErrorCode::Internal,
        }
    }
}

/// An engine below the typed layer. No method has a default: what an adapter does is its author's word.
pub trait StorageAdapter: Send + Sync + fmt::Debug + 'static {
    /// Says what it is. Always the same.
    fn info(&self) -> AdapterInfo;

    /// Returns the keys as they are now; later batches do not change what it shows. Tier `kv`.
    ///
    /// # Errors
    /// [`AdapterError::Unsupported`], [`AdapterError::Failed`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, AdapterError>;

    /// Applies a batch: all of it or nothing, after every batch before. Answered when it is as durable as
    /// [`AdapterInfo`] says, and seen by every snapshot taken after that. Every tier; with a read set,
    /// tier `txn`.
    ///
    /// # Errors
    /// [`AdapterError::Conflict`], [`AdapterError::SnapshotGone`], [`AdapterError::Refused`],
    /// [`AdapterError::Unsupported`]: nothing was applied. [`AdapterError::Failed`].
    fn apply(&self, batch: WriteBatch) -> BoxFuture<'_, Result<Applied, AdapterError>>;

    /// Returns commits from revision `from` on, in order. Tier `log`.
    ///
    /// # Errors
    /// [`AdapterError::Compacted`], [`AdapterError::Unsupported`], [`AdapterError::Failed`].
    fn log(&self, from: Revision, limit: LogLimit) -> Result<Vec<Commit>, AdapterError>;

    /// Lets commits before a revision go, all or some of them. Keys are not changed. Tier `trim`.
    ///
    /// # Errors
    /// [`AdapterError::Unsupported`], [`AdapterError::Failed`].
    fn trim_log(&self, before: Revision) -> Result<(), AdapterError>;

    /// Returns when everything that was answered is durable; at once in an adapter that is not.
    ///
    /// # Errors
    /// [`AdapterError::Failed`].
    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>>;
}

/// Keys at one moment.
pub trait Snapshot: Send + Sync {
    /// Returns the last commit that it has.
    fn revision(&self) -> Revision;

    /// Reads a key.
    ///
    /// # Errors
    /// [`AdapterError::Failed`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, AdapterError>;

    /// Reads keys of a range in order of their bytes; none if its bounds are the wrong way round.
    fn scan(&self, range: KeyRange, order: Order) -> Rows<'_>;
}

/// Returns whether a range has a key.
pub fn contains(range: &KeyRange, key: &Bytes) -> bool {
    RangeBounds::<Bytes>::contains(&(range.0.as_ref(), range.1.as_ref()), key)
}

/// Returns whether the bounds of a range leave nothing between them, so that a map may not be asked.
pub fn is_empty(range: &KeyRange) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
