//! One running server: shards behind Raft, and the services in front of them.
//!
//! Two runtimes keep their lives apart: *consensus* (one thread: Raft and the proposers, no file and
//! no map) and *data* (RPCs and reads). What blocks is a job, run by the threads of `driver`.
//!
//! Does not know: commands, terminals. Only `raft` says openraft.

pub mod config;
mod error;
pub mod outcome;

pub use config::Config;
pub use error::NodeError;
