//! The index of streams of another replica, whose segments go under other numbers here.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{sidecar::SegmentTracks, track::Track},
    StreamIndex,
};
use crate::storage::checkpoint::{Renumber, codec::Malformed};

impl StreamIndex {
    /// Gives the segments their new numbers. Those without one must have nothing of a partition.
    pub(in crate::storage) fn renumber(&mut self, renumber: &Renumber) -> Result<(), Malformed> {
        let new = |number: u64| renumber.get(number).ok_or(Malformed);
        for partition in self.partitions.values_mut() {
            for (number, _) in &mut partition.segments {
                *number = new(*number)?;
            }
        }
        let usage = std::mem::take(&mut self.usage).into_iter();
        let usage = usage.filter_map(|(number, usage)| Some((renumber.get(number)?, usage)));
        self.usage = usage.collect();
        self.current = match new(self.current) {
            Ok(number) => number,
            Err(_) if self.tracks.is_empty() => 0,
            Err(malformed) => return Err(malformed),
        };
        // All of them are made again.
        self.waiting.clear();
        Ok(())
    }

    /// Makes this the index of a log.
    pub(in crate::storage) fn moved_to(self, log_id: u64) -> Self {
        Self { log_id, ..self }
    }

    /// Adds the tracks of a segment that is read; those of the one that apply was in are known.
    pub(in crate::storage) fn restored(&mut self, number: u64, tracks: BTreeMap<u32, Track>) {
        if number == self.current || tracks.is_empty() {
            return;
        }
        self.finished.insert(number, Arc::new(SegmentTracks::Memory(tracks)));
        self.waiting.push_back(number);
    }
}
