//! Letting a partition begin later.

use prkdb_types::headers::Operation;
use tracing::debug;

use super::{DbError, engine::Engine};
use crate::storage::{TrimPoint, sequencer::WriteRequest};

/// Keys, and bytes of keys, that get their tombstones in one batch.
pub(super) const KEYS_AT_ONCE: usize = 1000;
pub(super) const BYTES_AT_ONCE: usize = 256 << 10;
/// Keys that are looked at in one go.
const LOOKS_AT_ONCE: usize = 20_000;

/// Lets a partition of a collection begin later, that began at an offset when the point was found. The keys go
/// first whose latest record goes. Asked between two batches, `is_stopped` ends it: it is done again whole, or
/// never.
pub(super) fn trim(
    engine: &Engine,
    place: (u32, u32),
    (begun, point): (Option<u64>, TrimPoint),
    is_stopped: impl Fn() -> bool,
) -> Result<(), DbError> {
    let log_start = point.log_start;
    let (partition, collection) = place;
    let mut behind: Option<Vec<u8>> = None;
    loop {
        let at_once = (LOOKS_AT_ONCE, KEYS_AT_ONCE, BYTES_AT_ONCE);
        let (found, last) = engine.shard.keys_before(place, log_start, behind.as_deref(), at_once);
        if !found.keys.is_empty() {
            let (keys, reason) = (found.keys, Operation::Trimmed);
            engine.write(WriteRequest::Sweep { partition, collection, keys, reason })?;
        }
        let Some(last) = last else { break };
        if is_stopped() {
            return Ok(());
        }
        behind = Some(last);
    }
    if let Some(point) = engine.shard.still_to_trim(partition, begun, point) {
        engine.write(WriteRequest::trim(partition, point, engine.clock.wall_ms()))?;
    }
    debug!(partition, log_start, "trimmed");
    Ok(())
}
