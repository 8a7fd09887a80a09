//! A track that grows, in a checkpoint.

use super::{POINT_BYTES, RUN_FRAMES, Summary, Track};
use crate::storage::{
    checkpoint::codec::{Malformed, Put as _, Take},
    log::header::NUMBERS_END,
};

impl Track {
    pub(in crate::storage::stream) fn save(&self, to: &mut Vec<u8>) {
        to.put_number(self.summary.frames.into());
        to.put_number(self.summary.first_offset);
        to.put_number(self.summary.next_offset);
        to.put_signed(self.summary.max_timestamp_ms);
        to.put_bytes(&self.points);
        to.put_bytes(&self.steps);
        to.put_number(self.run as u64);
        to.put_number(self.end.into());
    }

    pub(in crate::storage::stream) fn load(from: &mut Take<'_>) -> Result<Self, Malformed> {
        let summary = Summary {
            frames: from.narrow()?,
            first_offset: from.number()?,
            next_offset: from.number()?,
            max_timestamp_ms: from.signed()?,
        };
        let track = Self {
            summary,
            points: from.bytes()?.to_vec(),
            steps: from.bytes()?.to_vec(),
            run: from.narrow()?,
            end: from.narrow()?,
        };
        let is_whole = track.points.len().is_multiple_of(POINT_BYTES);
        // A frame takes three bytes of steps at least: there are no more of them than that.
        let is_counted = usize::try_from(track.summary.frames).is_ok_and(|frames| {
            frames <= track.steps.len() / 3 && track.run <= frames.min(RUN_FRAMES)
        });
        if is_whole && is_counted && track.summary.next_offset < NUMBERS_END {
            Ok(track)
        } else {
            Err(Malformed)
        }
    }
}
