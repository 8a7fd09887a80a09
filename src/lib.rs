//! PrkDB stores keys and streams of events on a replicated log: one binary, one engine.

pub mod admin;
#[cfg(feature = "cli")]
pub mod commands;
pub mod node;
pub mod storage;

#[cfg(feature = "cli")]
pub use commands::cli;
