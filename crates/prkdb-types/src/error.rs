//! The one table of errors.
//!
//! Names, gRPC codes, kinds and exit codes stand here and nowhere else: the mappings of server and
//! client, `prkdb help exit-codes`, the man pages and `docs/reference/errors.md` are made from it.

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong; change it.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The state does not allow it; read again and decide.
    Conflict,
    /// Send it again, later or elsewhere.
    Retry,
    /// The service cannot do it at present.
    Unavailable,
    /// Stored data is damaged; restore it from elsewhere.
    Corrupt,
    /// A defect or a failed machine; report it.
    Internal,
}

/// Whether a client sends the request again by itself, within its deadline and under the same sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It does.
    Automatic,
    /// It does not.
    No,
}

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $grpc:expr, $kind:ident, $exit:literal, $retry:ident;)+) => {
        /// A named error. The name is API: it is `error.code` in JSON and `code` on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name used on the wire and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the number of the gRPC status code; `None` for an error that never travels.
            pub fn grpc_code(self) -> Option<i32> {
                match self { $(Self::$variant => $grpc,)+ }
            }

            /// Returns what a caller should do about it.
            pub fn kind(self) -> ErrorKind {
                match self { $(Self::$variant => ErrorKind::$kind,)+ }
            }

            /// Returns the exit code of a command that ends with it.
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)+ }
            }

            /// Returns whether a client repeats the request by itself.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)+ }
            }

            /// Returns one sentence on what happened.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

const NOT_FOUND: Option<i32> = Some(5);
const ALREADY_EXISTS: Option<i32> = Some(6);
const PERMISSION_DENIED: Option<i32> = Some(7);
const RESOURCE_EXHAUSTED: Option<i32> = Some(8);
const FAILED_PRECONDITION: Option<i32> = Some(9);
const ABORTED: Option<i32> = Some(10);
const OUT_OF_RANGE: Option<i32> = Some(11);
const UNIMPLEMENTED: Option<i32> = Some(12);
const INTERNAL: Option<i32> = Some(13);
const UNAVAILABLE: Option<i32> = Some(14);
const DATA_LOSS: Option<i32> = Some(15);
const UNAUTHENTICATED: Option<i32> = Some(16);
const INVALID_ARGUMENT: Option<i32> = Some(3);
const DEADLINE_EXCEEDED: Option<i32> = Some(4);
const LOCAL: Option<i32> = None;

error_codes! {
    /// The key has no value.
    KeyNotFound = "key_not_found", NOT_FOUND, NotFound, 3, No;
    /// No collection has that name.
    CollectionNotFound = "collection_not_found", NOT_FOUND, NotFound, 3, No;
    /// The collection has no such partition.
    PartitionNotFound = "partition_not_found", NOT_FOUND, NotFound, 3, No;
    /// The cluster, or the address that was asked, has no such node.
    NodeNotFound = "node_not_found", NOT_FOUND, NotFound, 3, No;
    /// A collection of that name exists with other settings.
    CollectionExists = "collection_exists", ALREADY_EXISTS, Conflict, 7, No;
    /// The collection cannot be changed like that.
    AlterRefused = "alter_refused", FAILED_PRECONDITION, Conflict, 7, No;
    /// The key's version is not the one the write asked for.
    VersionMismatch = "version_mismatch", ABORTED, Conflict, 7, No;
    /// Another write came between a transaction's snapshot and its commit: run it again.
    ConflictDetected = "conflict_detected", ABORTED, Conflict, 7, No;
    /// The transaction's snapshot is not kept any more: run it again.
    SnapshotGone = "snapshot_gone", ABORTED, Conflict, 7, No;
    /// A transaction covers the collections of one shard, and these lie in several.
    CrossShard = "cross_shard", FAILED_PRECONDITION, Invalid, 1, No;
    /// A key must have at least one byte.
    KeyEmpty = "key_empty", INVALID_ARGUMENT, Invalid, 1, No;
    /// The key is longer than the node's limit.
    KeyTooLarge = "key_too_large", INVALID_ARGUMENT, Invalid, 1, No;
    /// The value is longer than the node's limit.
    ValueTooLarge = "value_too_large", RESOURCE_EXHAUSTED, Invalid, 1, No;
    /// The message is longer than the node's limit.
    MessageTooLarge = "message_too_large", RESOURCE_EXHAUSTED, Invalid, 1, No;
    /// A field of the request is wrong.
    InvalidArgument = "invalid_argument", INVALID_ARGUMENT, Invalid, 1, No;
    /// The batch does not match its checksum.
    BatchCorrupt = "batch_corrupt", INVALID_ARGUMENT, Invalid, 1, No;
    /// The batch breaks a rule of its format.
    BatchInvalid = "batch_invalid", INVALID_ARGUMENT, Invalid, 1, No;
    /// A key of the batch belongs to another partition.
    WrongPartition = "wrong_partition", INVALID_ARGUMENT, Invalid, 1, No;
    /// The sequence was used before for other bytes.
    SequenceReused = "sequence_reused", INVALID_ARGUMENT, Invalid, 1, No;
    /// The partition has no such offset: it begins later or ends earlier.
    OffsetOutOfRange = "offset_out_of_range", OUT_OF_RANGE, Invalid, 1, No;
    /// The sequence leaves a gap.
    OutOfOrder = "out_of_order", FAILED_PRECONDITION, Conflict, 7, No;
    /// The producer is not known here and does not start at sequence 0.
    UnknownProducer = "unknown_producer", FAILED_PRECONDITION, Conflict, 7, No;
    /// Another replica leads the shard.
    NotLeader = "not_leader", UNAVAILABLE, Retry, 4, Automatic;
    /// The shard has no leader at present.
    NoLeader = "no_leader", UNAVAILABLE, Unavailable, 4, Automatic;
    /// The node has not finished reading its log.
    Replaying = "replaying", UNAVAILABLE, Unavailable, 4, Automatic;
    /// The node is stopping.
    Stopping = "stopping", UNAVAILABLE, Unavailable, 4, Automatic;
    /// No server could be reached.
    Unreachable = "unreachable", LOCAL, Unavailable, 4, No;
    /// The disk has no room for more of the log.
    DiskFull = "disk_full", RESOURCE_EXHAUSTED, Unavailable, 1, No;
    /// The key index has reached its share of memory.
    IndexMemory = "index_memory", RESOURCE_EXHAUSTED, Unavailable, 1, No;
    /// More is under way than the node admits.
    Overloaded = "overloaded", RESOURCE_EXHAUSTED, Retry, 1, Automatic;
    /// The deadline passed before the request was begun.
    Deadline = "deadline", DEADLINE_EXCEEDED, Retry, 5, No;
    /// The write may or may not be applied.
    UnknownOutcome = "unknown_outcome", DEADLINE_EXCEEDED, Retry, 5, Automatic;
    /// The caller did not say who it is.
    Unauthenticated = "unauthenticated", UNAUTHENTICATED, Invalid, 6, No;
    /// The caller may not do this.
    PermissionDenied = "permission_denied", PERMISSION_DENIED, Invalid, 6, No;
    /// Stored data does not match its checksum.
    Corrupt = "corrupt", DATA_LOSS, Corrupt, 12, No;
    /// A local file or port failed.
    Io = "io", LOCAL, Internal, 13, No;
    /// The directory is not one of ours, or not one for this use.
    WrongDirectory = "wrong_directory", LOCAL, Invalid, 13, No;
    /// The directory belongs to another node or cluster.
    IdentityMismatch = "identity_mismatch", FAILED_PRECONDITION, Conflict, 7, No;
    /// The file was written by a newer version.
    NewerFormat = "newer_format", LOCAL, Invalid, 14, No;
    /// The server does not know this request.
    Unsupported = "unsupported", UNIMPLEMENTED, Invalid, 14, No;
    /// Another process uses the data directory.
    Locked = "locked", LOCAL, Conflict, 15, No;
    /// A defect in the server.
    Internal = "internal", INTERNAL, Internal, 1, No;
}

impl ErrorCode {
    /// Returns the code with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
        }
    }
}
