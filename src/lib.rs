//! PrkDB.

#[cfg(feature = "cli")]
pub mod commands;

#[cfg(feature = "cli")]
pub use commands::cli;
