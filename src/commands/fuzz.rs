//! What mutated bytes are given to: readers of the command line that are not part of its interface.

use crate::commands::{config::Config, metrics};

pub use crate::commands::{
    backup::fuzz::{archive, write_archive},
    consume::fuzz::{place, template},
    load::fuzz::checkpoint,
    serve::fuzz::config as serve_config,
};

/// Reads a configuration file of the client.
pub fn client_config(text: &str) -> Option<Config> {
    Config::parse(text, "config.toml").ok()
}

/// Reads the metrics of a node, in every form.
pub fn metrics(exposition: &str) -> usize {
    metrics::described(exposition).len() + metrics::samples(exposition, None).len()
}
