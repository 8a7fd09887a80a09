//! The files of a log's directory and what their first pages say.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::storage::{
    StorageError,
    disk::{Access, Disk, DiskFile},
    log::{
        header::FORMAT,
        history::is_history,
        options::LogOptions,
        resume::Resume,
        segment::{
            PageFault, SEGMENT_HEADER_BYTES, SegmentHeader, parse_any_file_name, parse_file_name,
        },
    },
};

/// One file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    pub(super) page: Page,
}

/// What a file's first page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// A header that verifies.
    Valid(SegmentHeader),
    /// Zeros: prepared, or its first write was lost.
    Zero,
    /// Neither.
    Damaged { expected: u32, found: u32 },
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// `None` in a directory without segments.
    pub(super) log_id: Option<u64>,
    pub(super) files: BTreeMap<u64, Found>,
    /// History segments.
    pub(super) history: BTreeMap<u64, Found>,
    /// The largest number of any segment, set aside or not; 0 = none.
    pub(super) largest_number: u64,
}

/// Looks at every file of the directory.
pub(super) fn survey(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
) -> Result<Survey, StorageError> {
    let mut survey = Survey::default();
    let names = disk.list(dir).map_err(StorageError::io("list log", dir))?;
    for name in names {
        // Names of ours are ASCII; whatever else lies here is not touched.
        let Some(name) = name.to_str() else { continue };
        let path = dir.join(name);
        if let Some((_, number)) = quarantined_name(name) {
            survey.largest_number = survey.largest_number.max(number);
            continue;
        }
        let Some((log_id, number)) = parse_any_file_name(name) else { continue };
        if survey.log_id.is_some_and(|known| known != log_id) {
            return Err(StorageError::Foreign {
                path,
                expected: format!("log {:016x}", survey.log_id.unwrap_or_default()),
                found: format!("log {log_id:016x}"),
            });
        }
        survey.log_id = Some(log_id);
        let found = look(disk, path, log_id, number, options)?;
        if is_history(number) {
            survey.history.insert(number, found);
            continue;
        }
        survey.largest_number = survey.largest_number.max(number);
        survey.files.insert(number, found);
    }
    Ok(survey)
}

/// Reads the name of a file that was set aside.
fn quarantined_name(name: &str) -> Option<(u64, u64)> {
    let (original, _) = name.split_once(".quarantine-")?;
    parse_file_name(original)
}

fn look(
    disk: &dyn Disk,
    path: PathBuf,
    log_id: u64,
    number: u64,
    options: &LogOptions,
) -> Result<Found, StorageError> {
    let file =
        disk.open(&path, Access::ReadWrite).map_err(StorageError::io("open segment", &path))?;
    let len = file.len().map_err(StorageError::io("measure segment", &path))?;
    let mut page = Box::new([0; SEGMENT_HEADER_BYTES]);
    file.read_at(0, page.as_mut_slice()).map_err(StorageError::io("read segment", &path))?;
    let page = match SegmentHeader::decode(&page, log_id, number) {
        Ok(header) => {
            check_owner(&header, &path, options)?;
            Page::Valid(header)
        }
        Err(PageFault::Zero) => Page::Zero,
        Err(PageFault::Damaged { expected, found }) => Page::Damaged { expected, found },
        Err(PageFault::Misnamed { log_id: of, number: stated }) => {
            return Err(StorageError::Corrupt {
                path,
                position: 0,
                expected: format!("segment {number} of log {log_id:016x}"),
                found: format!("segment {stated} of log {of:016x}"),
            });
        }
        Err(PageFault::Format(found)) => {
            return Err(StorageError::NewerFormat { path, found, known: FORMAT });
        }
    };
    Ok(Found { path, file, len, page })
}

fn check_owner(
    header: &SegmentHeader,
    path: &Path,
    options: &LogOptions,
) -> Result<(), StorageError> {
    let name = |shard: u32, cluster: [u8; 16]| {
        format!("shard {shard} of cluster {:032x}", u128::from_be_bytes(cluster))
    };
    if header.shard == options.shard && header.cluster_id == options.cluster_id {
        return Ok(());
    }
    Err(StorageError::Foreign {
        path: path.to_path_buf(),
        expected: name(options.shard, options.cluster_id),
        found: name(header.shard, header.cluster_id),
    })
}

impl Survey {
    /// Returns the files of segments that a cleaning has replaced, or was about to make.
    pub(super) fn replaced(&self, resume: &Resume) -> Vec<PathBuf> {
        let named = |number: &u64| resume.spared_len(*number).is_some();
        let old = self
            .files
            .iter()
            .filter(|(number, found)| **number < resume.segment && found.page != Page::Zero);
        let all = old.chain(&self.history).filter(|(number, _)| !named(number));
        all.map(|(_, found)| found.path.clone()).collect()
    }

    /// Returns a segment of either kind.
    pub(super) fn any(&self, number: u64) -> Option<&Found> {
        self.files.get(&number).or_else(|| self.history.get(&number))
    }

    /// Returns the bytes of segments.
    pub(super) fn used_bytes(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        numbers.filter_map(|number| self.any(number)).map(|found| found.len).sum()
    }
}

impl Found {
    /// Returns the header.
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        match &self.page {
            Page::Valid(header) => Some(header),
            Page::Zero | Page::Damaged { .. } => None,
        }
    }
}
