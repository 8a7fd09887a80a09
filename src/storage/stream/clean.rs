//! What trimming, dropping and cleaning change of the index of streams.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    index::StreamIndex,
    marks::{Marks, TrimPoint},
    sidecar::SegmentTracks,
    track::Track,
    usage::Usage,
};
use crate::storage::kv::state::{Effects, PartitionStats};

/// What a cleaning made of neighbouring segments.
#[derive(Debug)]
pub(in crate::storage) struct Replacement {
    /// The segments it replaces.
    pub(in crate::storage) run: Vec<u64>,
    /// The number of the history segment; `None`: nothing is left.
    pub(in crate::storage) number: Option<u64>,
    /// Where its frames are.
    pub(in crate::storage) tracks: BTreeMap<u32, Track>,
    pub(in crate::storage) usage: Usage,
}

impl StreamIndex {
    /// Hears what became of records.
    pub(in crate::storage) fn take_effects(
        &mut self,
        effects: Effects,
        log_time_ms: i64,
        stats: impl Fn(u32) -> Option<PartitionStats>,
    ) {
        for (partition, is_marked) in effects.marked {
            self.mark(partition, is_marked, log_time_ms, stats(partition).unwrap_or_default());
        }
        for (segment, records) in effects.replaced {
            // A segment that was replaced meanwhile has none: who replaced it counted.
            if let Some(usage) = self.usage.get_mut(&segment.into()) {
                usage.kill(records);
            }
        }
        for (segment, records) in effects.tombstones {
            if let Some(usage) = self.usage.get_mut(&segment.into()) {
                usage.tombstones += records;
            }
        }
        for (partition, log_start) in effects.trimmed {
            self.trim(partition, log_start);
        }
        for partition in effects.removed {
            self.trim(partition, u64::MAX);
            self.partitions.remove(&partition);
        }
    }

    /// Begins or ends to remember when what of a partition was appended.
    fn mark(&mut self, number: u32, is_marked: bool, log_time_ms: i64, stats: PartitionStats) {
        let partition = self.partitions.entry(number).or_default();
        if !is_marked {
            partition.marks = None;
        } else if partition.marks.is_none() {
            let mut marks = Marks::default();
            if stats.next_offset > stats.log_start {
                // What is there was appended by now.
                marks.push(log_time_ms, stats.log_start, stats.size_bytes);
            }
            partition.marks = Some(marks);
        }
    }

    /// A partition begins at `log_start`.
    fn trim(&mut self, number: u32, log_start: u64) {
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        let old_start = partition.bounds.log_start;
        let end = partition.bounds.high_watermark;
        let firsts: Vec<(u64, u64)> = partition.segments.clone();
        let nexts = firsts.iter().skip(1).map(|(_, first)| *first).chain([end]);
        for ((segment, first), next) in firsts.iter().zip(nexts) {
            let gone = next.min(log_start).saturating_sub((*first).max(old_start));
            if let Some(usage) = self.usage.get_mut(segment) {
                usage.kill(gone);
            }
        }
        let gone = partition.segments.iter().skip(1).take_while(|(_, first)| *first <= log_start);
        let gone = gone.count();
        partition.segments.drain(..gone);
        if log_start >= end {
            partition.segments.clear();
        }
        partition.bounds.log_start = log_start.min(end);
        if let Some(marks) = &mut partition.marks {
            marks.trimmed(log_start);
        }
    }

    /// Returns where a partition could be cut; see [`Marks::overdue`].
    pub(in crate::storage) fn overdue(
        &self,
        partition: u32,
        cutoff_ms: Option<i64>,
        bytes_max: Option<u64>,
    ) -> Option<TrimPoint> {
        self.partitions.get(&partition)?.marks.as_ref()?.overdue(cutoff_ms, bytes_max)
    }

    /// Returns whether offsets of a partition may be missing from `offset` on, and up to where.
    pub(in crate::storage) fn cleaned_end(&self, partition: u32) -> u64 {
        self.partitions.get(&partition).map_or(0, |partition| partition.cleaned_end)
    }

    /// Returns how much of a segment is needed; `None` for one that has no sidecar yet, or that apply is
    /// in.
    pub(in crate::storage) fn usage_of(&self, segment: u64) -> Option<Usage> {
        let is_finished = segment != self.current && !self.waiting.contains(&segment);
        is_finished.then(|| self.usage.get(&segment).copied().unwrap_or_default())
    }

    /// Counts what becomes of the records of a segment that will take the place of others.
    pub(in crate::storage) fn expect(&mut self, number: u64, usage: Usage) {
        self.usage.insert(number, usage);
    }

    /// Puts a history segment, or nothing, into the place of the segments it was made of.
    pub(in crate::storage) fn replace(&mut self, replacement: Replacement) {
        let Replacement { run, number, tracks, mut usage } = replacement;
        for (partition_number, partition) in &mut self.partitions {
            let is_gone = |(segment, _): &(u64, u64)| run.contains(segment);
            let Some(at) = partition.segments.iter().position(is_gone) else { continue };
            partition.segments.retain(|it| !is_gone(it));
            let next = partition.segments.get(at).map(|(_, first)| *first);
            let end = next.unwrap_or(partition.bounds.high_watermark);
            partition.cleaned_end = partition.cleaned_end.max(end);
            let track = tracks.get(partition_number).map(Track::first_offset);
            if let (Some(number), Some(first)) = (number, track) {
                partition.segments.insert(at, (number, first));
            }
        }
        for segment in &run {
            self.finished.remove(segment);
            self.usage.remove(segment);
        }
        if let Some(number) = number {
            self.finished.insert(number, Arc::new(SegmentTracks::Memory(tracks)));
            self.waiting.push_back(number);
            // Those that were replaced since the keys point there.
            if let Some(counted) = self.usage.get(&number) {
                usage.kill(counted.dead);
            }
            self.usage.insert(number, usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::disk::sim::SimDisk;

    #[test]
    fn what_is_replaced_while_keys_are_pointed_elsewhere_is_counted() {
        let mut index = StreamIndex::new(Arc::new(SimDisk::new()), Path::new("/"), 1);
        let number = 1 << 31;
        let usage = Usage { records: 10, ..Usage::default() };
        index.expect(number, usage);
        let replaced = BTreeMap::from([(1 << 31, 3), (7, 1)]);
        let effects = Effects { replaced, ..Effects::default() };
        index.take_effects(effects, 0, |_| None);
        let usage = Usage { dead: 2, ..usage };
        let number = Some(number);
        index.replace(Replacement { run: vec![1], number, tracks: BTreeMap::new(), usage });
        assert_eq!(index.usage[&(1 << 31)].dead, 5);
        assert!(!index.usage.contains_key(&7));
    }
}
