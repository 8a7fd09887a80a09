//! Segments that a checkpoint spares from being read: they must be there, and long enough, and end in the
//! entry that the checkpoint was taken at.

use std::{path::Path, sync::Arc};

use super::survey::{Found, Survey};
use crate::storage::{
    StorageError,
    log::{body::Check, header::Seed, resume::Resume, segment::any_file_name, segments::Segment},
};

impl Resume {
    /// Returns how many bytes a segment before the checkpoint's uses; `None` for any other segment.
    pub(super) fn spared_len(&self, number: u64) -> Option<u64> {
        let found = self.sealed.iter().find(|(sealed, _)| *sealed == number)?;
        Some(found.1)
    }
}

/// Returns such a segment.
pub(super) fn segment(found: &Found, log_id: u64, number: u64, len: u64) -> Segment {
    // The clone shares the file.
    let file = Arc::clone(&found.file);
    Segment::spared(number, found.path.clone(), file, Seed::new(log_id, number), len)
}

/// Compares the segments that are there with those that the checkpoint's manifest names; the chain begins
/// with the one it was taken in.
///
/// # Errors
/// [`StorageError::Corrupt`] with the first that is missing or too short.
pub(super) fn check(
    survey: &Survey,
    chain: &[u64],
    resume: &Resume,
    dir: &Path,
) -> Result<(), StorageError> {
    let named = resume.sealed.iter().copied();
    let named = named.chain([(resume.segment, resume.position)]);
    for (number, len) in named {
        let path = dir.join(any_file_name(resume.log_id, number));
        let corrupt = |position: u64, expected: String, found: String| {
            Err(StorageError::Corrupt { path: path.clone(), position, expected, found })
        };
        let Some(found) = survey.any(number) else {
            let expected = "a segment that the manifest names".to_owned();
            return corrupt(0, expected, "no such file".to_owned());
        };
        if found.header().is_none() {
            return corrupt(0, "a segment header".to_owned(), "other bytes".to_owned());
        }
        if number == resume.segment && chain.first() != Some(&number) {
            let expected = "a segment that the next one continues".to_owned();
            let stated = chain.first().map_or_else(|| "none".to_owned(), u64::to_string);
            return corrupt(0, expected, format!("segment {stated} in its place"));
        }
        if found.len < len {
            return corrupt(found.len, format!("{len} bytes"), format!("{} bytes", found.len));
        }
    }
    match survey.files.get(&resume.segment) {
        Some(found) => check_entry(found, resume),
        None => Ok(()),
    }
}

/// The entry that the checkpoint was taken at was synced before the manifest was written.
fn check_entry(found: &Found, resume: &Resume) -> Result<(), StorageError> {
    let segment = segment(found, resume.log_id, resume.segment, resume.position);
    let (header, _) = segment.read_entry(resume.start, Check::Full)?;
    let is_named = (header.term, header.index) == (resume.applied.term, resume.applied.index);
    let is_it = header.lsn == resume.lsn
        && (is_named || resume.is_installed())
        && resume.start + header.total_bytes() == resume.position;
    if is_it {
        return Ok(());
    }
    let expected = format!("entry {}, which the manifest names", resume.applied.index);
    Err(segment.corrupt(resume.start, &expected, &format!("entry {}", header.index)))
}
