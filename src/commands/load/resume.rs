//! Between a pipeline and its checkpoint: what a later run needs, and how it goes on with that.

use super::{
    checkpoint::{Input, LaneState, Rejected, State},
    pipeline::Pipeline,
    rejects::Rejects,
};
use crate::commands::failure::Result;

/// Puts a pipeline where an earlier run stopped.
pub(crate) fn restore(pipeline: &mut Pipeline<'_>, state: &State) {
    for lane in &state.producer.lanes {
        let index = usize::try_from(lane.partition).unwrap_or(usize::MAX);
        if let Some(mine) = pipeline.lanes.get_mut(index) {
            mine.sequence = lane.sequence;
            mine.done_to = lane.byte_offset;
            mine.offsets = lane.offsets;
        }
    }
    pipeline.read_to = state.place();
    pipeline.sticky = state.producer.sticky;
    pipeline.rejected_to = state.rejects.byte_offset;
    pipeline.tally.written = state.put;
    pipeline.tally.rejected = state.rejected;
    pipeline.tally.bytes = state.bytes;
}

/// Returns what a later run needs to go on from here.
///
/// # Errors
/// 13.
pub(crate) fn snapshot(
    pipeline: &Pipeline<'_>,
    rejects: &mut Option<Rejects>,
    input: &Input,
    state: State,
) -> Result<State> {
    let read_to = pipeline.read_to;
    let (mut first, mut sticky) = (read_to, pipeline.sticky);
    let mut lanes = Vec::with_capacity(pipeline.lanes.len());
    for (partition, lane) in pipeline.lanes.iter().enumerate() {
        let unanswered = lane.first_unanswered();
        if let Some((place, before)) = unanswered.filter(|(place, _)| place.offset < first.offset) {
            (first, sticky) = (place, before);
        }
        let place = unanswered.map(|(place, _)| place);
        lanes.push(LaneState {
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            // A resumed lane that has seen nothing yet stands where the earlier run left it.
            byte_offset: place.map_or(read_to.offset.max(lane.done_to), |place| place.offset),
            sequence: lane.sequence,
            offsets: lane.offsets,
        });
    }
    let (bytes, reasons_bytes) = match rejects {
        Some(rejects) => rejects.sync()?,
        None => (0, 0),
    };
    let stops = pipeline.options.stops_at_error;
    let mut next = State {
        fingerprint: input.fingerprint(first.offset)?,
        byte_offset: first.offset,
        record: first.record,
        line: first.line,
        put: pipeline.tally.written,
        // The record that ends a run is read again, and counted then.
        rejected: if stops { 0 } else { pipeline.tally.rejected },
        bytes: pipeline.tally.bytes,
        rejects: Rejected {
            byte_offset: read_to.offset.max(pipeline.rejected_to),
            bytes: if stops { 0 } else { bytes },
            reasons_bytes: if stops { 0 } else { reasons_bytes },
        },
        ..state
    };
    next.producer.id = pipeline.producer_id();
    next.producer.sticky = sticky;
    next.producer.lanes = lanes;
    Ok(next)
}
