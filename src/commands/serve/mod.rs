//! `prkdb serve`: from flags to a running node.
//!
//! Translates and announces; the node itself, its ports, signals and data are the node's.

mod args;
mod files;
mod settings;
mod start;

pub use args::{Args, LogFormat};
pub use settings::Settings;
pub use start::{config_file, run};
