//! What mutated bytes are given to: the checkpoint of a run.

use std::path::Path;

use super::checkpoint::State;

/// Reads the content of a checkpoint, and returns what would be written for it.
pub fn checkpoint(bytes: &[u8]) -> Option<Vec<u8>> {
    let state = State::parse(Path::new("run.checkpoint"), bytes).ok()?;
    let _place = state.place();
    serde_json::to_vec(&state).ok()
}
