//! `prkdb serve`: from flags to a running node.
//!
//! Translates and announces; the node itself, its ports, signals and data are the node's.

mod announce;
mod args;
mod config;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod start;
mod supervisor;

pub use args::{Args, LogFormat};
pub(super) use start::{check_file, named_config_file};
pub use start::{config_file, run};
