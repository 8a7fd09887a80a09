//! What mutated bytes are given to: the file of a server.

use super::Args;

/// Reads a configuration file of a server.
pub fn config(text: &str) -> Option<Args> {
    Args::parse_file(text, "server.toml").ok()
}
