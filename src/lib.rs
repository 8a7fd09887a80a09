//! PrkDB.

#[cfg(feature = "cli")]
pub mod commands;
pub mod storage;

#[cfg(feature = "cli")]
pub use commands::cli;
