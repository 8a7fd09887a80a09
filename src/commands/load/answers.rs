//! What the pipeline does with the answers of the node.

use prkdb_client::{BatchAnswer, BatchFailed, ErrorCode, Outcome};
use prkdb_types::sequence_after;

use super::{
    link::Link,
    pipeline::{Pipeline, SAVE_BATCHES},
};
use crate::commands::{
    failure::{Failure, Result, Stop},
    session,
};

impl Pipeline<'_> {
    /// Takes one answer; none means that the stream of batches ended.
    ///
    /// # Errors
    /// An error that no later record can mend.
    pub(super) fn take(&mut self, answer: Option<BatchAnswer>) -> Result {
        match answer {
            None => Err(self.ended().into()),
            Some(BatchAnswer::Acked(acked)) => {
                let partition = usize::try_from(acked.partition).unwrap_or(usize::MAX);
                let lane = self.lane(partition);
                let Some(batch) = lane.in_flight.pop_front() else { return Ok(()) };
                let after = sequence_after(acked.base_sequence.cast_signed(), acked.records);
                lane.sequence = after.cast_unsigned();
                lane.unsaved += 1;
                lane.applied(acked.base_offset, acked.records);
                let is_due = lane.unsaved >= SAVE_BATCHES;
                self.tally.written += u64::try_from(batch.entries.len()).unwrap_or(0);
                self.tally.bytes += batch.payload();
                let printed = self.offsets.as_mut().map(|offsets| offsets.batch(&acked, &batch));
                match printed.unwrap_or(Ok(())) {
                    Ok(()) => {}
                    // Whoever read the offsets went away; the records are sent all the same.
                    Err(Stop::Quiet(_)) => self.offsets = None,
                    Err(stop) => return Err(stop),
                }
                self.start_put(partition);
                if is_due && self.save.is_some() { self.checkpoint() } else { Ok(()) }
            }
            Some(BatchAnswer::Failed(failed)) => self.failed(&failed),
            Some(BatchAnswer::NotApplied(batch)) => {
                let partition = usize::try_from(batch.partition).unwrap_or(usize::MAX);
                let lane = self.lane(partition);
                if let Some(batch) = lane.in_flight.pop_front() {
                    lane.returned.push_back(batch);
                }
                self.go_on(partition)
            }
        }
    }

    /// Why the stream of batches ended before its answers.
    fn ended(&self) -> Failure {
        match &self.link {
            Link::Batches { writer, .. } => match writer.resume(0) {
                Err(error) => session::failure(&error),
                Ok(()) => Failure::of(ErrorCode::Unreachable, "the stream of batches ended"),
            },
            Link::Puts(_) | Link::Dry => Failure::of(ErrorCode::Internal, "no stream of batches"),
        }
    }

    /// A batch that no server will ever take is rejected; every other failure ends the run.
    fn failed(&mut self, failed: &BatchFailed) -> Result {
        let partition = usize::try_from(failed.partition).unwrap_or(usize::MAX);
        let is_rejected = matches!(
            failed.error.code(),
            ErrorCode::KeyEmpty
                | ErrorCode::KeyTooLarge
                | ErrorCode::ValueTooLarge
                | ErrorCode::MessageTooLarge
                | ErrorCode::BatchInvalid
                | ErrorCode::VersionMismatch
        );
        let batch = self.lane(partition).in_flight.pop_front();
        if !is_rejected {
            if failed.error.outcome() != Some(Outcome::NotApplied) {
                self.in_doubt += batch.as_ref().map_or(0, |batch| batch.entries.len());
            }
            self.lane(partition).returned.extend(batch);
            return Err(session::failure(&failed.error).into());
        }
        let Some(batch) = batch else { return Ok(()) };
        let reason = failed.error.to_string();
        for entry in &batch.entries {
            self.count_rejected(entry.start, &entry.raw, &reason)?;
        }
        if self.options.stops_at_error {
            // It stays the first of its lane that is not stored: a later run begins with it.
            if let Some((place, _)) = batch.start() {
                self.stop(place.offset);
            }
            self.lane(partition).returned.push_back(batch);
        }
        self.go_on(partition)
    }

    /// Once every answer of a halted partition is there, what came back is sent again, unless sending stops: it
    /// stands behind what that is for.
    fn go_on(&mut self, partition: usize) -> Result {
        if self.stop_at.is_some() || !self.lane(partition).in_flight.is_empty() {
            return Ok(());
        }
        self.lane(partition).requeue();
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        match &self.link {
            Link::Batches { writer, .. } => {
                writer.resume(number).map_err(|error| session::failure(&error).into())
            }
            Link::Puts(_) => {
                self.start_put(partition);
                Ok(())
            }
            Link::Dry => Ok(()),
        }
    }
}
