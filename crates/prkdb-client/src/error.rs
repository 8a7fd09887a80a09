//! What can go wrong for a caller, and what is known about the write when it does.
//!
//! Every error answers from the one table in `prkdb-types`: name, kind and exit code. A server's own
//! detail wins; the bare gRPC code counts only where there is none.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use prkdb_proto::v1::ErrorDetail;
use prkdb_types::{BatchError, ErrorCode, ErrorKind, Retry};

use crate::detail;

/// What is known about a write that ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not and never will be applied.
    NotApplied,
    /// It may or may not be applied.
    Unknown,
    /// It is applied; what failed came after it.
    Applied,
}

impl Outcome {
    /// Returns the name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
            Self::Applied => "applied",
        }
    }
}

/// One address that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address, as `host:port`.
    pub address: String,
    /// Why, in the words of the system.
    pub reason: String,
}

/// An answer of a server that says what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the table.
    pub code: ErrorCode,
    /// What failed, on what, and why.
    pub message: String,
    /// A command or flag that helps, or empty.
    pub hint: String,
    /// Where the leader is, for `not_leader`; else empty.
    pub leader_address: String,
    /// What is known about the write; `None` where the request was none.
    pub outcome: Option<Outcome>,
    /// For `version_mismatch`: the version the key has now.
    pub current_version: Option<u64>,
    /// For `conflict_detected`: the first key at fault.
    pub conflict: Option<ConflictKey>,
    /// Whether the server said so itself; else it was concluded from the gRPC code.
    pub detailed: bool,
}

/// The key on which a transaction failed: another write of it came first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictKey {
    /// Its collection.
    pub collection: String,
    /// The key.
    pub key: Bytes,
}

/// An operation that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address of a server cannot be read.
    #[error("server address '{address}': {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// Which part of it is wrong.
        reason: String,
    },
    /// The caller asked for something that cannot be sent.
    #[error("{message}")]
    Request {
        /// The code that a server would answer with.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// None of the servers answered.
    #[error("no server could be reached: {}", list(.attempts))]
    Unreachable {
        /// Every address tried, in order, with its reason.
        attempts: Vec<Attempt>,
    },
    /// A server answered with an error.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The connection broke and the retries ran out; nothing was or will be written.
    #[error("{operation}: the connection to {address} broke")]
    Broken {
        /// What was under way.
        operation: &'static str,
        /// The server.
        address: String,
        /// What the transport said.
        #[source]
        source: Arc<tonic::Status>,
    },
    /// The deadline passed; nothing was or will be written.
    #[error("{operation}: no answer within {timeout:?}")]
    Deadline {
        /// What was under way.
        operation: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The write was sent and how it ended is not known.
    #[error("{operation}: the write may or may not be applied: {reason}")]
    UnknownOutcome {
        /// What was under way.
        operation: &'static str,
        /// Why nothing more is known.
        reason: String,
    },
    /// The partition of a batch writer stopped after a failure and waits for `resume`.
    #[error("partition {partition} stopped after a batch that failed")]
    Halted {
        /// The number of the partition in its collection.
        partition: u32,
    },
    /// The batch writer was finished or ended with an error before.
    #[error("the batch writer is closed")]
    Closed,
    /// The system gave no random bytes for a producer id.
    #[error("draw a producer id")]
    Random {
        /// What the system said.
        #[source]
        source: getrandom::Error,
    },
    /// A batch that a server sent is damaged.
    #[error("read collection '{collection}', partition {partition}, batch at offset {offset}")]
    Corrupt {
        /// The collection.
        collection: Arc<str>,
        /// The number of the partition in it.
        partition: u32,
        /// The offset of the batch's first record; where not even that can be read, the offset that the
        /// partition was read up to.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: Arc<BatchError>,
    },
    /// A blocking call was made inside of an async runtime, which it would have blocked.
    #[error("a blocking call inside of an async runtime")]
    InsideRuntime,
    /// The system gave no thread for the runtime of a blocking client.
    #[error("start the client's runtime")]
    Runtime {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A server answered with something that no server of this version sends.
    #[error("{address} broke the protocol: {reason}")]
    Protocol {
        /// The server.
        address: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

impl ClientError {
    /// Returns the code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Address { .. } | Self::InsideRuntime => ErrorCode::InvalidArgument,
            Self::Request { code, .. } => *code,
            Self::Unreachable { .. } => ErrorCode::Unreachable,
            Self::Broken { source, .. } => detail::broken_code(source),
            Self::Refused(refusal) => refusal.code,
            Self::Deadline { .. } => ErrorCode::Deadline,
            Self::UnknownOutcome { .. } => ErrorCode::UnknownOutcome,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::Runtime { .. } => ErrorCode::Io,
            Self::Halted { .. } | Self::Closed | Self::Random { .. } | Self::Protocol { .. } => {
                ErrorCode::Internal
            }
        }
    }

    /// Returns what the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }

    /// Returns the exit code of a command that ends with it.
    pub fn exit_code(&self) -> u8 {
        self.code().exit_code()
    }

    /// Returns whether sending the request again, later, may help.
    pub fn is_retryable(&self) -> bool {
        self.code().retry() == Retry::Automatic
            || matches!(
                self,
                Self::Unreachable { .. } | Self::Broken { .. } | Self::Deadline { .. }
            )
    }

    /// Returns what is known about the write: `NotApplied` also where there was nothing to write, `None`
    /// where the error does not tell.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Refused(refusal) => refusal.outcome,
            Self::UnknownOutcome { .. } => Some(Outcome::Unknown),
            Self::Protocol { .. } => None,
            _ => Some(Outcome::NotApplied),
        }
    }

    /// Returns a command or flag that helps.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) if !refusal.hint.is_empty() => Some(&refusal.hint),
            Self::Unreachable { .. } => Some("prkdb serve"),
            _ => None,
        }
    }

    /// Returns the version a key has now, where a write asked for another.
    pub fn current_version(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => refusal.current_version,
            _ => None,
        }
    }

    /// Returns the key on which a transaction failed.
    pub fn conflict(&self) -> Option<&ConflictKey> {
        match self {
            Self::Refused(refusal) => refusal.conflict.as_ref(),
            _ => None,
        }
    }

    /// Returns whether a transaction that ended with it may be run again from its start: nothing of it
    /// was applied, and on another snapshot it may be.
    pub fn is_conflict(&self) -> bool {
        crate::transaction::is_conflict(self.code())
    }

    /// Returns whether node and client do not agree any more on which sequence comes next.
    pub(crate) fn has_lost_count(&self) -> bool {
        matches!(
            self.code(),
            ErrorCode::SequenceReused | ErrorCode::OutOfOrder | ErrorCode::UnknownProducer
        )
    }

    /// Makes the error of a detail that came inside a stream.
    pub fn from_detail(detail: ErrorDetail) -> Self {
        Self::Refused(Box::new(detail::refusal(detail, None)))
    }

    /// Makes the error of a call: of its detail, or of its gRPC code where there is none.
    pub fn from_status(status: &tonic::Status) -> Self {
        Self::Refused(Box::new(detail::of_status(status)))
    }
}

fn list(attempts: &[Attempt]) -> String {
    let each: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.address, attempt.reason)).collect();
    each.join("; ")
}
