//! What runs a shard's jobs, in a node and embedded.
//!
//! The storage engine hands out blocking work and owns no threads. Here are the threads that run it: one
//! writes and syncs groups, one prepares segments, one takes checkpoints, one cleans.
//!
//! Does not know: Raft, metrics, who appends and why.

pub(crate) mod signal;

mod ballast;
mod checkpoints;
mod cleaner;
mod rate;
mod sidecars;
mod threads;
mod waiters;

pub(crate) use self::{
    ballast::Ballast,
    checkpoints::{Checkpointer, NoCheckpoint},
    cleaner::{Cleaner, CleanerParts, Purge},
    threads::{Driver, DriverParts, FlushMode, Flusher, Observer, Reserve},
};
