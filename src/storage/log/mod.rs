//! The log of one shard on one replica: the store itself.
//!
//! Entries are appended in memory ([`Log::append`]), written and synced in groups by a driver
//! ([`Log::next_flush`]), into segments prepared beside ([`Log::next_prepare`]). Nothing written is
//! overwritten, moved or written again. Vote, truncation and purge mark are control entries in the
//! same queue, so their order is that of the log. After a crash [`Log::open`] believes nothing that
//! was not synced: it refuses a log that lost something synced, cuts what lies above, and copies
//! what was perhaps never on disk into a new segment before anybody reads it.
//!
//! The bytes are described in `docs/internals/log-format.md`.
//!
//! Does not know: Raft's rules, partitions beyond their next offsets, threads, time.

mod batches;
pub mod body;
pub mod entry;
mod fold;
pub mod header;
mod history;
mod index;
mod install;
mod job;
mod mmap;
pub mod options;
mod prepare;
mod reader;
mod recovery;
mod resume;
mod retired;
pub mod segment;
mod segments;
mod tail;
mod walk;
mod writer;

pub(super) use fold::Chain;
pub(super) use history::{Entries, HISTORY_FIRST, HistoryWriter, Home, is_history};
pub use index::Place;
pub(super) use index::{Past, Stretch};
pub use job::{FlushJob, SyncJob};
pub(super) use mmap::map_sealed;
pub use prepare::{Done as PrepareDone, PrepareJob, PrepareMode, Prepared};
pub use reader::{ReadPlan, read_placed};
pub(super) use recovery::Evidence;
pub use recovery::{JudgedLog, Recovery, inspect};
pub(super) use resume::{Resume, ResumePlan};
pub(super) use segments::PinnedSegments;
pub use segments::{Segment, Segments};
pub(super) use walk::{positions, walk};
pub use writer::{Log, LogState};

#[cfg(test)]
mod tests;
