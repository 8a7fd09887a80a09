//! The storage engine: one log per shard, and what it adds up to.
//!
//! Synchronous and pure of threads, clocks and runtimes: blocking work is handed out as jobs that a
//! driver runs. It can be used, tested and measured alone, and is the same code in a node and
//! embedded.
//!
//! Does not know: Raft, gRPC, terminals.

#[doc(hidden)]
pub mod bug;
mod checkpoint;
pub mod clock;
pub mod dir;
pub mod disk;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod kv;
pub mod log;
pub mod sequencer;
mod shard;
mod stream;
mod values;

#[cfg(test)]
mod model_tests;

pub use checkpoint::{
    CheckpointDone, CheckpointFinished, CheckpointJob, CheckpointResult, SnapshotFile,
    SnapshotReport, SnapshotVersion, inspect_snapshot,
};
pub use error::StorageError;
pub use kv::{range::KeyRange, snapshot::ShardSnapshot};
pub use shard::{
    CHECKPOINT_BYTES, CleanDone, CleanJob, CleanStep, CopyPart, Fetched, Found, Install, Installed,
    JudgedShard, NotCleaned, Overdue, PreparedSnapshot, Shard, ShardCopy, ShardOptions, ShardStats,
    Snapshot, TOMBSTONE_GRACE_MS, adopt,
};
pub use stream::{Bounds, SidecarDone, SidecarJob, TrimPoint};
pub use values::ValueReader;
