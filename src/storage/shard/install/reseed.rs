//! A segment of another replica's log, written as a history segment of this one.
//!
//! Checksums begin with the log's id and the segment's number, so each entry gets new ones; its batches keep
//! theirs, and every byte keeps its place, which the key index names. What is of nobody's use is replaced by
//! something as long that says nothing: control entries of the other replica, and entries that it truncated.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use crate::storage::{
    StorageError,
    bug::bug,
    checkpoint::Manifest,
    disk::DiskFile,
    log::{
        Entries, HistoryWriter, Home, Place, Segment, Stretch,
        entry::{Control, Entry, Item, LogId, Payload, Write},
        header::Seed,
        is_history,
        segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
        walk,
    },
    stream::{StreamIndex, Track},
};

/// A segment of a copy.
#[derive(Debug)]
pub(super) struct Source {
    segment: Segment,
    pub(super) number: u64,
    /// Its number as a history segment.
    pub(super) new: u64,
    /// How many bytes of it count.
    pub(super) len: u64,
    /// Where the entries lie that count; all do in a history segment.
    live: Option<Vec<Stretch>>,
    /// What an entry in front of the first is called.
    first: LogId,
    /// What must stand at its end.
    last: Option<LogId>,
}

impl Source {
    /// Looks at a segment that a manifest names; `None` for one that holds nothing that counts.
    pub(super) fn open(
        (file, path): (Arc<dyn DiskFile>, &Path),
        (number, len): (u64, u64),
        manifest: &Manifest,
        new: impl FnOnce() -> u64,
    ) -> Result<Option<Self>, StorageError> {
        let resume = &manifest.resume;
        let seed = Seed::new(resume.log_id, number);
        let segment = Segment::new(number, path.to_path_buf(), file, seed);
        let failed = |source| StorageError::io("read segment", path)(source);
        let mut page = Box::new([0; SEGMENT_HEADER_BYTES]);
        segment.file.read_at(0, page.as_mut_slice()).map_err(failed)?;
        let header = SegmentHeader::decode(&page, resume.log_id, number).ok();
        let owner = (manifest.shard, manifest.cluster_id);
        let header = header.filter(|header| (header.shard, header.cluster_id) == owner);
        let Some(header) = header else {
            let expected = format!("the header of segment {number} of shard {}", owner.0);
            return Err(segment.corrupt(0, &expected, "another"));
        };
        let found = segment.file.len().map_err(failed)?;
        if found < len {
            let expected = format!("{len} bytes");
            return Err(segment.corrupt(found, &expected, "the end of the file"));
        }
        segment.seal(len);
        let mut live = None;
        if !is_history(number) {
            let past = &resume.past;
            let own = past.older.iter().chain(&past.stretches);
            let own = own.filter(|stretch| u64::from(stretch.segment) == number);
            let stretches: Vec<Stretch> = own.copied().collect();
            if stretches.is_empty() {
                return Ok(None);
            }
            live = Some(stretches);
        }
        let is_last = number == resume.segment && !resume.is_installed();
        let last = is_last.then_some(resume.applied);
        let first = LogId { term: 0, index: header.first_index };
        Ok(Some(Self { segment, number, new: new(), len, live, first, last }))
    }

    /// Writes it, synced, and returns it with where its frames are.
    pub(super) fn write(
        self,
        home: &Home,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(Arc<Segment>, BTreeMap<u32, Track>), StorageError> {
        let Ok(new) = u32::try_from(self.new) else {
            let reason = "the log has no number left for a segment".to_owned();
            return Err(StorageError::Discontinuous { index: self.new, reason });
        };
        let mut live = Vec::new();
        for stretch in self.live.iter().flatten() {
            live.extend(walk(&self.segment, *stretch)?);
        }
        live.sort_unstable();
        let mut writer = HistoryWriter::create(home, self.new)?;
        let mut tracks = BTreeMap::new();
        let mut entries = Entries::of_history(&self.segment);
        let mut last = self.first;
        while let Some((at, header, item)) = entries.next()? {
            if pace(header.total_bytes()).is_break() {
                let reason = "it was given up".to_owned();
                return Err(StorageError::Snapshot { index: last.index, reason });
            }
            let position = u32::try_from(at).unwrap_or(u32::MAX);
            let is_live = self.live.is_none() || live.binary_search(&position).is_ok();
            let entry = match item {
                Item::Entry(entry) if is_live || bug!(InstallRevives) => entry,
                item => nothing(item, last),
            };
            last = entry.id;
            StreamIndex::track(&mut tracks, &entry, Place { segment: new, position });
            let written = writer.push(&header, entry)?;
            if written != at {
                let found = format!("another length in front of {written}");
                return Err(self.segment.corrupt(at, "an entry of its length", &found));
            }
        }
        if self.last.is_some_and(|expected| expected != last) {
            let expected = format!("entry {:?}", self.last);
            return Err(self.segment.corrupt(self.len, &expected, &format!("entry {last:?}")));
        }
        Ok((writer.finish(home)?, tracks))
    }
}

/// Returns an entry as long as an item that says nothing. It stands behind one of that name.
fn nothing(item: Item, id: LogId) -> Entry {
    match item {
        Item::Entry(entry) => {
            let is_void = matches!(entry.payload, Payload::Normal(_));
            Entry { is_void, ..entry }
        }
        Item::Control(Control::Sync) => Entry { id, is_void: false, payload: Payload::Blank },
        Item::Control(_) => {
            let write =
                Write { sequencer_term: 0, sequence: 0, append_time_ms: 0, frames: Vec::new() };
            Entry { id, is_void: true, payload: Payload::Normal(Arc::new(write)) }
        }
    }
}
