//! Between a pipeline and its checkpoint: what a later run needs, and how it goes on with that.

use super::{
    checkpoint::{Input, LaneState, Rejected, State},
    pipeline::Pipeline,
    read::Place,
    rejects::Rejects,
};
use crate::commands::failure::{Failure, Result, Stop};

/// Where lanes go on that are further than the first record that is read again. Each is where a record began or
/// ended, unless what stands before it is of another length by now: then what is behind it would be taken for
/// stored, or be stored twice.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// From the last to the next.
    offsets: Vec<u64>,
}

impl Marks {
    fn of(state: &State) -> Self {
        let lanes = state.producer.lanes.iter().map(|lane| lane.byte_offset);
        let mut offsets: Vec<u64> = lanes.filter(|offset| *offset > state.byte_offset).collect();
        offsets.sort_unstable_by(|one, other| other.cmp(one));
        offsets.dedup();
        Self { offsets }
    }

    /// Looks at a record from the input.
    ///
    /// # Errors
    /// 7.
    pub(crate) fn pass(&mut self, start: Place, end: Place) -> Result {
        while let Some(mark) = self.offsets.last().copied().filter(|mark| *mark <= end.offset) {
            if mark != start.offset && mark != end.offset {
                return Err(moved(mark));
            }
            self.offsets.pop();
        }
        Ok(())
    }

    /// Looks at the end of the input.
    ///
    /// # Errors
    /// 7.
    pub(crate) fn end(&self) -> Result {
        self.offsets.last().map_or(Ok(()), |mark| Err(moved(*mark)))
    }
}

fn moved(mark: u64) -> Stop {
    let message = format!(
        "checkpoint: records before byte {mark} of the input are stored already, and have moved; \
         one that is mended must keep its length"
    );
    Failure::checkpoint_mismatch(message).into()
}

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
    pipeline.marks = Marks::of(state);
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
    let mut next = State {
        fingerprint: input.fingerprint(first.offset)?,
        byte_offset: first.offset,
        record: first.record,
        line: first.line,
        put: pipeline.tally.written,
        bytes: pipeline.tally.bytes,
        ..state
    };
    // What ends a run is read again, and counted then: its checkpoint counts what was rejected before it.
    if !pipeline.options.stops_at_error {
        next.rejected = pipeline.tally.rejected;
        next.rejects = Rejected {
            byte_offset: read_to.offset.max(pipeline.rejected_to),
            bytes,
            reasons_bytes,
        };
    }
    next.producer.id = pipeline.producer_id();
    next.producer.sticky = sticky;
    next.producer.lanes = lanes;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(offsets: &[u64], records: &[(u64, u64)]) -> Result {
        let mut marks = Marks { offsets: offsets.to_vec() };
        let place = |offset| Place { offset, ..Place::default() };
        for (start, end) in records {
            marks.pass(place(*start), place(*end))?;
        }
        marks.end()
    }

    #[test]
    fn records_that_are_stored_must_be_where_they_were() {
        // A comment stands between the last two.
        let records = [(10, 20), (20, 30), (35, 40)];
        for good in [&[][..], &[20], &[35], &[40, 30, 20]] {
            assert!(passed(good, &records).is_ok(), "{good:?}");
        }
        for moved in [21, 29, 33, 41] {
            assert!(passed(&[moved], &records).is_err(), "{moved}");
        }
    }
}
