//! What runs a shard's jobs, in a node and embedded.
//!
//! The storage engine hands out blocking work and owns no threads. Here are the threads that run it: one
//! writes and syncs groups, one prepares segments, one takes checkpoints.
//!
//! Does not know: Raft, metrics, who appends and why.

pub(crate) mod signal;

mod ballast;
mod checkpoints;
mod rate;
mod threads;

pub(crate) use self::{
    ballast::Ballast,
    checkpoints::Checkpointer,
    threads::{Driver, DriverParts, FlushMode, Flusher, Observer, Reserve},
};
