//! What looking at a log finds.

use std::{fmt, path::PathBuf};

use crate::storage::{
    StorageError,
    log::{
        entry::{Item, LogId},
        header::EntryHeader,
    },
};

/// Whose log it must be.
#[derive(Clone, Copy, Debug)]
pub struct LogOwner {
    /// The shard.
    pub shard: u32,
    /// The cluster.
    pub cluster_id: [u8; 16],
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every checksum, the chain, the order.
    Checksums,
    /// Every record of every batch as well.
    Records,
}

/// An entry as it is read.
#[derive(Debug)]
pub struct Visited<'a> {
    /// The number of its segment.
    pub segment: u64,
    /// Where it starts there.
    pub position: u64,
    /// Where it ends.
    pub end: u64,
    /// Its header.
    pub header: &'a EntryHeader,
    /// What it carries.
    pub item: &'a Item,
}

/// What a file is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// The log goes on in a later one.
    Sealed,
    /// The newest of the log.
    Active,
    /// Prepared and not yet written.
    Prepared,
    /// It has bytes and no page that verifies.
    Unreadable,
    /// It has a page and no later segment leads to it.
    Apart,
    /// Recovery or a repair set it aside: it is not part of the log.
    Quarantined,
}

impl fmt::Display for SegmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => "sealed",
            Self::Active => "active",
            Self::Prepared => "prepared",
            Self::Unreadable => "unreadable",
            Self::Apart => "apart",
            Self::Quarantined => "quarantined",
        })
    }
}

/// One file of the log. What it counts are entries that were read in order.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// What it is to the log.
    pub state: SegmentState,
    /// The length of the file.
    pub file_bytes: u64,
    /// Where its last entry ends; 0 where none was looked for.
    pub end: u64,
    /// Entries of all kinds.
    pub entries: u64,
    /// Records in them; a void entry has none.
    pub records: u64,
    /// The smallest index of its replicated entries.
    pub first_index: Option<u64>,
    /// The largest.
    pub last_index: Option<u64>,
    /// When the first of its writes was decided, in milliseconds since 1970.
    pub first_time_ms: Option<i64>,
    /// When the last one was.
    pub last_time_ms: Option<i64>,
    /// Whether it was read to its end, as far as the log goes in it.
    pub is_read: bool,
}

/// What is wrong at a place, in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A checksum differs.
    Crc,
    /// Something else stands there.
    NoEntry,
    /// An entry does not follow the one before.
    Chain,
    /// An index, term, offset or number goes back or leaves a gap.
    Order,
    /// The file ends too early.
    Short,
    /// The file is not there.
    Missing,
    /// A batch does not hold the records that it says.
    Records,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crc => "bad crc",
            Self::NoEntry => "no entry",
            Self::Chain => "broken chain",
            Self::Order => "bad order",
            Self::Short => "cut short",
            Self::Missing => "missing",
            Self::Records => "bad records",
        })
    }
}

/// Something that was synced and is not what was written.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong.
    pub problem: Problem,
    /// The file.
    pub path: PathBuf,
    /// Where the damaged entry or page starts.
    pub position: u64,
    /// The index of the entry, as far as it can be told.
    pub index: Option<u64>,
    /// The error that opening the log ends with, or would.
    pub error: StorageError,
    /// What can still be read behind it.
    pub following: Following,
}

/// Entries that verify by themselves behind the end of what can be read in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Entries of all kinds.
    pub entries: u64,
    /// Records in them.
    pub records: u64,
    /// Those of the records that the log says are committed.
    pub committed_records: u64,
    /// The largest index of the replicated ones.
    pub last_index: Option<u64>,
}

/// Bytes behind the last entry that were never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where they start.
    pub position: u64,
    /// How many, up to the last that is not zero.
    pub bytes: u64,
    /// Entries among them, by their headers.
    pub entries: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct LogReport {
    /// `None` in a directory without segments.
    pub log_id: Option<u64>,
    /// Every file of the log, by number.
    pub segments: Vec<SegmentReport>,
    /// Entries of all kinds that were read in order.
    pub entries: u64,
    /// Records in them.
    pub records: u64,
    /// The last replicated entry, or the purge mark above it.
    pub last: Option<LogId>,
    /// The purge mark: nothing at or below it can be cut off.
    pub purged: Option<u64>,
    /// Whether parts of it were taken out: only its checkpoint says what those added up to.
    pub was_cleaned: bool,
    /// Of a log that was cleaned, where the checkpoint ends: segment, and byte in it. `None` where the
    /// checkpoint is of no use.
    pub resume: Option<(u64, u64)>,
    /// The highest index that the log says is committed.
    pub committed: Option<u64>,
    /// Where reading ended: segment, and byte in it. `None` where nothing was read.
    pub end: Option<(u64, u64)>,
    /// What is wrong.
    pub damage: Option<Damage>,
    /// What a crash left behind the end; only where nothing is wrong.
    pub torn: Vec<Torn>,
}
