//! One running server: shards behind Raft, and the services in front of them.
//!
//! Two runtimes keep their lives apart: *consensus* (one thread: Raft and the proposers, no file and
//! no map) and *data* (RPCs and reads). What blocks is a job, run by the threads of `driver`.
//!
//! Does not know: commands, terminals. Only `raft` names the library for it.

mod boot;
mod check;
pub mod config;
pub mod core;
#[cfg(test)]
mod denied_tests;
mod error;
mod fatal;
#[doc(hidden)]
pub mod fuzz;
pub mod growth;
pub mod http;
mod janitor;
pub mod limits;
mod machine;
pub mod metrics;
pub mod outcome;
mod proposer;
mod raft;
pub mod read;
pub mod router;
mod run;
pub mod security;
pub mod server;
pub mod service;
#[cfg(test)]
mod tests;

pub use check::{Checked, check};
pub use config::Config;
pub use core::Node;
pub use error::NodeError;
pub(crate) use janitor::trim;
#[cfg(feature = "cli")]
pub(crate) use machine::raise_files;
pub use raft::{LOG_FILTER, Members};
pub use run::{Process, Ready, Stopped, run};
