//! How a write ends, and what is said of a request that failed.

use std::borrow::Cow;

use prkdb_types::ErrorCode;

use crate::storage::{
    StorageError,
    kv::tree::Leaf,
    sequencer::{Conflict, Refusal},
};

/// What is known of a write that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The error is not about a write.
    None,
    /// It was not and never will be applied.
    NotApplied,
    /// It may be applied.
    Unknown,
}

/// A request that failed: the typed form of what goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The row of the error table.
    pub code: ErrorCode,
    /// What failed, on what, and why.
    pub message: Cow<'static, str>,
    /// A command or flag that helps; empty where there is none.
    pub hint: Cow<'static, str>,
    /// What is known of the write.
    pub outcome: Outcome,
    /// For a version that does not match: the one the key has.
    pub current_version: Option<u64>,
    /// For a transaction that conflicts: with what.
    pub conflict: Option<Box<ConflictKey>>,
}

/// The key on which a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictKey {
    /// Its collection: the id until a service says the name.
    pub collection: String,
    /// The key.
    pub key: bytes::Bytes,
}

impl Failure {
    /// Returns a failure of a request that is no write, or of a write that never began.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: Cow::Borrowed(""),
            outcome: Outcome::NotApplied,
            current_version: None,
            conflict: None,
        }
    }

    /// Returns the failure of a write whose outcome nobody knows.
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::new(ErrorCode::UnknownOutcome, message) }
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let key = |Conflict { collection, key, .. }| {
            Box::new(ConflictKey { collection: collection.to_string(), key })
        };
        Self {
            current_version: refusal.current_version,
            conflict: refusal.conflict.map(key),
            ..Self::new(refusal.code, refusal.message)
        }
    }
}

impl From<&StorageError> for Failure {
    /// A read that failed: what the storage engine says, under its own code.
    fn from(error: &StorageError) -> Self {
        // A local file's trouble travels as an internal error: `io` is for the machine's own user.
        let code = match error.code() {
            code if code.grpc_code().is_some() => code,
            _ => ErrorCode::Internal,
        };
        Self { outcome: Outcome::None, ..Self::new(code, error.to_string()) }
    }
}

/// A write that was applied, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The partition's number in frames.
    pub partition: u32,
    /// Offset of its first record. 0 for a delete that found nothing.
    pub base_offset: u64,
    /// The entry that holds it.
    pub revision: u64,
    /// The shard's time when it was decided.
    pub append_time_ms: i64,
    /// For a single key: the record that was its latest before.
    pub replaced: Option<Leaf>,
    /// How it came about.
    pub kind: WrittenKind,
}

/// How a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenKind {
    /// It was appended.
    Appended,
    /// It had been appended before: this is the answer it got then.
    Duplicate,
    /// A delete of a key without a value: nothing was appended.
    Absent,
}

/// Where the answer to a write goes. Called once, from the task that applies or decides: it must be
/// short and must not block. Dropped uncalled, it means that the outcome is unknown.
pub type Reply = Box<dyn FnOnce(Result<Written, Failure>) + Send>;
