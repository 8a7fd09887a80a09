//! The index of streams in a checkpoint: bounds, which segments a partition is in, and the tracks of the
//! segment that apply is in. Those of the segments before lie in their sidecars; one that is not there
//! is made again from its segment.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    super::{
        marks::Marks,
        sidecar::{self, SegmentTracks},
        track::Track,
        usage::Usage,
    },
    Bounds, Partition, StreamIndex,
};
use crate::storage::{
    checkpoint::codec::{Malformed, Put as _, Take},
    disk::Disk,
    log::{Place, entry::Entry, header::NUMBERS_END},
};

impl StreamIndex {
    /// Returns the index as a section.
    pub(in crate::storage) fn save(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.put_number(self.partitions.len() as u64);
        for (number, partition) in &self.partitions {
            to.put_number((*number).into());
            to.put_number(partition.bounds.log_start);
            to.put_number(partition.bounds.high_watermark);
            to.put_number(partition.segments.len() as u64);
            for (segment, first) in &partition.segments {
                to.put_number(*segment);
                to.put_number(*first);
            }
            to.put_number(partition.cleaned_end);
            to.push(partition.marks.is_some().into());
            if let Some(marks) = &partition.marks {
                marks.save(&mut to);
            }
        }
        to.put_number(self.usage.len() as u64);
        for (segment, usage) in &self.usage {
            to.put_number(*segment);
            usage.save(&mut to);
        }
        // Their sidecars may be of another history: they were not compared yet.
        to.put_number(self.waiting.len() as u64);
        for segment in &self.waiting {
            to.put_number(*segment);
        }
        to.put_number(self.current);
        to.put_number(self.tracks.len() as u64);
        for (partition, track) in &self.tracks {
            to.put_number((*partition).into());
            track.save(&mut to);
        }
        to
    }

    /// Returns the index that a section makes, with the sidecars that are there; and the segments whose
    /// tracks are missing.
    pub(in crate::storage) fn load(
        mut from: Take<'_>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        log_id: u64,
    ) -> Result<Self, Malformed> {
        let mut index = Self::new(disk, dir, log_id);
        for _ in 0..from.count()? {
            let number = from.narrow()?;
            let bounds = Bounds { log_start: from.number()?, high_watermark: from.number()? };
            if bounds.high_watermark >= NUMBERS_END {
                return Err(Malformed);
            }
            let mut segments = Vec::new();
            for _ in 0..from.count()? {
                segments.push((from.number()?, from.number()?));
            }
            let cleaned_end = from.number()?;
            let marks = if from.flag()? { Some(Marks::load(&mut from)?) } else { None };
            let partition = Partition { bounds, segments, cleaned_end, marks };
            index.partitions.insert(number, partition);
        }
        for _ in 0..from.count()? {
            index.usage.insert(from.number()?, Usage::load(&mut from)?);
        }
        for _ in 0..from.count()? {
            index.waiting.push_back(from.number()?);
        }
        index.current = from.number()?;
        for _ in 0..from.count()? {
            let partition = from.narrow()?;
            index.tracks.insert(partition, Track::load(&mut from)?);
        }
        from.end()?;
        Ok(index)
    }

    /// Maps the sidecars of the segments before the one that apply is in; returns the segments that have
    /// none, or a damaged one.
    pub(in crate::storage) fn map_sidecars(&mut self) -> Vec<u64> {
        let known = self.partitions.values().flat_map(|partition| &partition.segments);
        let mut finished: Vec<u64> = known.map(|(segment, _)| *segment).collect();
        finished.sort_unstable();
        finished.dedup();
        finished.retain(|segment| *segment != self.current);
        let waiting = std::mem::take(&mut self.waiting);
        finished.retain(|segment| {
            if waiting.contains(segment) {
                return true;
            }
            let path = self.dir.join(sidecar::file_name(self.log_id, *segment));
            match sidecar::read(self.disk.as_ref(), &path, self.log_id, *segment) {
                Some(file) => {
                    self.finished.insert(*segment, Arc::new(SegmentTracks::Mapped(file)));
                    false
                }
                None => true,
            }
        });
        finished
    }

    /// Makes the tracks of a finished segment again, from its entries and where they lie.
    pub(in crate::storage) fn restore<'a>(
        &mut self,
        segment: u64,
        entries: impl Iterator<Item = (&'a Entry, Place)>,
    ) {
        let mut tracks = BTreeMap::new();
        for (entry, place) in entries {
            Self::track(&mut tracks, entry, place);
        }
        self.finished.insert(segment, Arc::new(SegmentTracks::Memory(tracks)));
        self.waiting.push_back(segment);
    }
}
