//! Which segments make up the log: from the newest with a valid page back by what each names, to the first
//! or to the one that a checkpoint was taken in. Which ones lie before that, its manifest says.

use std::path::Path;

use super::survey::{Page, Survey};
use crate::storage::{
    StorageError,
    log::{resume::Resume, segment::file_name},
};

/// Returns the numbers of the log's segments, oldest first; from that of the checkpoint on, if there is one.
///
/// # Errors
/// [`StorageError::Corrupt`] if a segment that a later one names is missing or has no valid page: it
/// was synced before the later one was begun.
pub(super) fn walk(
    survey: &Survey,
    resume: Option<&Resume>,
    dir: &Path,
) -> Result<Vec<u64>, StorageError> {
    let first = resume.map_or(0, |resume| resume.segment);
    let newest = survey.files.iter().rev().find(|(_, found)| found.header().is_some());
    let mut chain = Vec::new();
    let mut next = newest.map_or(0, |(number, _)| *number);
    while next != 0 && next >= first {
        let Some(found) = survey.files.get(&next) else {
            return Err(StorageError::Corrupt {
                path: dir.join(file_name(survey.log_id.unwrap_or_default(), next)),
                position: 0,
                expected: "the segment that a later one continues".to_owned(),
                found: "no such file".to_owned(),
            });
        };
        let header = match &found.page {
            Page::Valid(header) => header,
            Page::Zero => return Err(damaged(&found.path, "a segment header", "zeros")),
            Page::Damaged { expected, found: sum } => {
                return Err(damaged(
                    &found.path,
                    &format!("segment header checksum {expected:08x}"),
                    &format!("{sum:08x}"),
                ));
            }
        };
        chain.push(next);
        // Numbers rise along the chain, so it ends.
        if header.predecessor >= next {
            return Err(damaged(
                &found.path,
                "a predecessor with a smaller number",
                &header.predecessor.to_string(),
            ));
        }
        next = header.predecessor;
    }
    chain.reverse();
    Ok(chain)
}

fn damaged(path: &Path, expected: &str, found: &str) -> StorageError {
    StorageError::Corrupt {
        path: path.to_path_buf(),
        position: 0,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}
