//! What the entries of one segment add up to, and whether their batches hold what they say.

use std::path::{Path, PathBuf};

use prkdb_types::DecompressLimit;

use super::report::{SegmentReport, SegmentState, Visited};
use crate::storage::{
    StorageError,
    disk::{Access, Disk},
    kv::state::DECOMPRESSED_BYTES_MAX,
    log::{
        entry::{Entry, Item, Payload},
        segment::parse_file_name,
    },
};

/// What an entry adds to the report of its segment.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) entries: u64,
    pub(super) records: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    first_time_ms: Option<i64>,
    last_time_ms: Option<i64>,
    /// Where the last one ends.
    pub(super) end: u64,
}

impl Tally {
    pub(super) fn add(&mut self, visited: &Visited<'_>) {
        self.entries += 1;
        self.records += records(visited.item);
        self.end = visited.end;
        let Item::Entry(entry) = visited.item else { return };
        let index = entry.id.index;
        self.first_index = Some(self.first_index.map_or(index, |first| first.min(index)));
        self.last_index = self.last_index.max(Some(index));
        if let Payload::Normal(write) = &entry.payload {
            self.first_time_ms = self.first_time_ms.or(Some(write.append_time_ms));
            self.last_time_ms = Some(write.append_time_ms);
        }
    }

    /// Writes it into the report of its segment.
    pub(super) fn fill(&self, report: &mut SegmentReport) {
        report.end = self.end;
        report.entries = self.entries;
        report.records = self.records;
        (report.first_index, report.last_index) = (self.first_index, self.last_index);
        (report.first_time_ms, report.last_time_ms) = (self.first_time_ms, self.last_time_ms);
    }
}

/// Returns the report of a file that was not read.
pub(super) fn blank_report(
    number: u64,
    path: PathBuf,
    state: SegmentState,
    len: u64,
) -> SegmentReport {
    SegmentReport {
        number,
        path,
        state,
        file_bytes: len,
        end: 0,
        entries: 0,
        records: 0,
        first_index: None,
        last_index: None,
        first_time_ms: None,
        last_time_ms: None,
        is_read: false,
    }
}

/// Returns how many records an item has for readers.
pub fn records(item: &Item) -> u64 {
    match item {
        Item::Entry(entry) if !entry.is_void => match &entry.payload {
            Payload::Normal(write) => {
                write.frames.iter().map(|frame| u64::from(frame.record_count)).sum()
            }
            Payload::Blank | Payload::Membership(_) => 0,
        },
        Item::Entry(_) | Item::Control(_) => 0,
    }
}

/// Reads every record of an entry; returns the frame that does not hold what it says, and why. In history a
/// frame may hold fewer records than it has offsets.
pub(super) fn wrong_records(entry: &Entry, is_history: bool) -> Option<(usize, String)> {
    let Payload::Normal(write) = &entry.payload else { return None };
    for (number, frame) in write.frames.iter().enumerate() {
        let header = frame.batch.header();
        let (says, has) = (frame.record_count, header.record_count());
        let offsets = i64::from(header.last_offset_delta) + 1;
        if (has != says && !is_history) || offsets != i64::from(says) {
            let found = format!("{has} records at {offsets} offsets where the frame says {says}");
            return Some((number, found));
        }
        // The base offset of a void entry was never given.
        if !entry.is_void && frame.batch.base_offset() != frame.base_offset {
            let (says, has) = (frame.base_offset, frame.batch.base_offset());
            return Some((number, format!("base offset {has} where the frame says {says}")));
        }
        let read = frame.batch.records(DecompressLimit::new(DECOMPRESSED_BYTES_MAX));
        let wrong = match &read {
            Ok(records) => records.iter().find_map(Result::err),
            Err(error) => return Some((number, error.to_string())),
        };
        if let Some(error) = wrong {
            return Some((number, error.to_string()));
        }
    }
    None
}

/// The files that were set aside: by their names alone.
pub(super) fn quarantined(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("list log", dir))?;
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let Some((original, _)) = name.split_once(".quarantine-") else { continue };
        let Some((_, number)) = parse_file_name(original) else { continue };
        let path = dir.join(name);
        let file =
            disk.open(&path, Access::Read).map_err(StorageError::io("open segment", &path))?;
        let len = file.len().map_err(StorageError::io("measure segment", &path))?;
        found.push(blank_report(number, path, SegmentState::Quarantined, len));
    }
    Ok(found)
}
