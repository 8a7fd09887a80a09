//! Ends a log behind an entry, in a copy or where it lies.
//!
//! Nothing is removed: what is cut off is kept under a name that is not the log's. Where the log lies,
//! the files go in an order that leaves it refused, and not shorter than asked for, if the work is
//! interrupted: first the shortened segment takes the place of the whole one, then the later segments
//! go, the newest first.

use std::{
    ffi::OsString,
    io::IoSlice,
    path::{Path, PathBuf},
};

use super::report::{LogReport, SegmentReport, SegmentState};
use crate::storage::{
    StorageError,
    checkpoint::MANIFEST,
    disk::{Access, Disk},
    log::is_history,
};

/// Files are copied in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// Where a log shall end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutPlan {
    /// The last segment that is kept, and its length then; `None` keeps nothing.
    keep: Option<(u64, u64)>,
    /// Segments that are not kept, by number.
    aside: Vec<u64>,
}

impl CutPlan {
    /// Ends a log behind the last entry that could be read in order.
    pub fn at_end(report: &LogReport) -> Self {
        Self::behind(report, report.end)
    }

    /// Ends a log at a byte of a segment.
    pub fn behind(report: &LogReport, keep: Option<(u64, u64)>) -> Self {
        let last = keep.map_or(0, |(segment, _)| segment);
        let is_written = |segment: &&SegmentReport| {
            !matches!(segment.state, SegmentState::Prepared | SegmentState::Quarantined)
        };
        let later = report.segments.iter().filter(is_written).map(|segment| segment.number);
        // Numbers of history are above all others, and its place is before the checkpoint.
        let goes = |number: &u64| *number > last && !is_history(*number);
        Self { keep, aside: later.filter(goes).collect() }
    }

    /// Returns whether a cut would lose what only the checkpoint of a cleaned log knows: it must not be made.
    pub fn loses_history(&self, report: &LogReport) -> bool {
        let is_behind = match (self.keep, report.resume) {
            (Some(keep), Some(resume)) => !is_history(keep.0) && keep >= resume,
            _ => false,
        };
        report.was_cleaned && !is_behind
    }

    /// Returns how long a segment is afterwards; `None` where it is not kept.
    fn kept_bytes(&self, segment: &SegmentReport) -> Option<u64> {
        match self.keep {
            _ if self.aside.contains(&segment.number) => None,
            Some((number, position)) if number == segment.number => {
                Some(position.min(segment.file_bytes))
            }
            _ => Some(segment.file_bytes),
        }
    }

    /// Returns the files that change or go, with what is kept of each.
    pub fn changes<'a>(
        &'a self,
        report: &'a LogReport,
    ) -> impl Iterator<Item = (&'a Path, Option<u64>)> {
        report
            .segments
            .iter()
            .filter(|segment| segment.state != SegmentState::Quarantined)
            .filter_map(|segment| {
                let kept = self.kept_bytes(segment);
                (kept != Some(segment.file_bytes)).then_some((segment.path.as_path(), kept))
            })
    }
}

/// Ends the log in `dir`, which nobody may use meanwhile; returns the files that were set aside.
///
/// # Errors
/// [`StorageError::Io`]; the same call goes on where it was interrupted.
pub fn cut_in_place(
    disk: &dyn Disk,
    dir: &Path,
    report: &LogReport,
    plan: &CutPlan,
    now_ms: i64,
) -> Result<Vec<PathBuf>, StorageError> {
    let mut aside = Vec::new();
    // It may say more than the log will have; without it the whole log is read, where that is whole.
    let manifest = dir.join(MANIFEST);
    if !report.was_cleaned
        && disk.exists(&manifest).map_err(StorageError::io("look for", &manifest))?
    {
        let name = quarantine_name(&manifest, now_ms);
        disk.rename(&manifest, &name).map_err(StorageError::io("set aside", &manifest))?;
        sync_dir(disk, dir)?;
        aside.push(name);
    }
    let kept = report.segments.iter().find(|segment| {
        plan.keep.is_some_and(|(number, _)| number == segment.number)
            && segment.state != SegmentState::Quarantined
    });
    if let Some(segment) = kept
        && let Some(len) = plan.kept_bytes(segment).filter(|len| *len < segment.file_bytes)
    {
        let short = copy_beside(disk, &segment.path, ".cut", len)?;
        let copy = copy_beside(disk, &segment.path, ".whole", segment.file_bytes)?;
        let whole = quarantine_name(&segment.path, now_ms);
        disk.rename(&copy, &whole).map_err(StorageError::io("set aside", &segment.path))?;
        sync_dir(disk, dir)?;
        disk.rename(&short, &segment.path).map_err(StorageError::io("replace", &segment.path))?;
        sync_dir(disk, dir)?;
        aside.push(whole);
    }
    for segment in report.segments.iter().rev() {
        if segment.state == SegmentState::Quarantined || !plan.aside.contains(&segment.number) {
            continue;
        }
        let name = quarantine_name(&segment.path, now_ms);
        disk.rename(&segment.path, &name).map_err(StorageError::io("set aside", &segment.path))?;
        sync_dir(disk, dir)?;
        aside.push(name);
    }
    Ok(aside)
}

/// Copies the log of a report from `dir` into `to`, an empty directory; with a plan, ended as it says.
/// The checkpoint goes along where the log was cleaned, and is not needed elsewhere.
///
/// What is not copied keeps its number: an empty file stands for it under the name of one set aside, so
/// that no later segment gets a name that the original has too.
///
/// # Errors
/// [`StorageError::Io`].
pub fn copy_log(
    disk: &dyn Disk,
    (dir, to): (&Path, &Path),
    report: &LogReport,
    plan: Option<&CutPlan>,
    now_ms: i64,
) -> Result<(), StorageError> {
    for segment in &report.segments {
        let Some(name) = segment.path.file_name() else { continue };
        let target = to.join(name);
        match segment.state {
            SegmentState::Prepared => {}
            SegmentState::Quarantined => copy_file(disk, &segment.path, &target, 0)?,
            _ => match plan.map_or(Some(segment.file_bytes), |plan| plan.kept_bytes(segment)) {
                Some(len) => copy_file(disk, &segment.path, &target, len)?,
                None => {
                    copy_file(disk, &segment.path, &quarantine_name(&target, now_ms), 0)?;
                }
            },
        }
    }
    if report.was_cleaned {
        for name in disk.list(dir).map_err(StorageError::io("list log", dir))? {
            let is_checkpoint = name.to_str().is_some_and(|name| name.ends_with(".checkpoint"));
            if is_checkpoint || name == MANIFEST {
                copy_file(disk, &dir.join(&name), &to.join(&name), u64::MAX)?;
            }
        }
    }
    sync_dir(disk, to)
}

/// Copies the first bytes of a file beside it, under a name that is not the log's; what an interrupted
/// call left under that name is taken away first.
fn copy_beside(
    disk: &dyn Disk,
    path: &Path,
    ending: &str,
    len: u64,
) -> Result<PathBuf, StorageError> {
    let copy = with_ending(path, ending);
    if disk.exists(&copy).map_err(StorageError::io("look for", &copy))? {
        disk.remove(&copy).map_err(StorageError::io("remove", &copy))?;
    }
    copy_file(disk, path, &copy, len)?;
    Ok(copy)
}

/// Copies the first bytes of a file into a new one, and syncs it.
///
/// # Errors
/// [`StorageError::Io`], also where the new name is taken.
fn copy_file(disk: &dyn Disk, from: &Path, to: &Path, len: u64) -> Result<(), StorageError> {
    let source = disk.open(from, Access::Read).map_err(StorageError::io("open", from))?;
    let target = disk.create(to).map_err(StorageError::io("create", to))?;
    let mut position = 0;
    while position < len {
        let want = usize::try_from((len - position).min(PIECE_BYTES)).unwrap_or(usize::MAX);
        let mut piece = vec![0; want];
        let read = source.read_at(position, &mut piece).map_err(StorageError::io("read", from))?;
        let bytes = piece.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        target.write_at(position, &[IoSlice::new(bytes)]).map_err(StorageError::io("write", to))?;
        position += read as u64;
    }
    target.sync_all().map_err(StorageError::io("sync", to))
}

fn quarantine_name(path: &Path, now_ms: i64) -> PathBuf {
    with_ending(path, &format!(".quarantine-{now_ms}"))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(ending);
    name.into()
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    disk.sync_dir(dir).map_err(StorageError::io("sync log", dir))
}
