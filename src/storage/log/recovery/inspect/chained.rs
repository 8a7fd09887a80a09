//! The segments of a log in order, as far as they can be followed.

use std::path::Path;

use super::super::{
    chain,
    survey::{Found, Survey},
};
use crate::storage::{
    StorageError,
    log::{resume::Resume, segment::parse_file_name},
};

/// The segments that can be followed from the first on.
pub(super) struct Chained {
    /// Oldest first.
    pub(super) numbers: Vec<u64>,
    /// What is wrong with the one that would follow.
    pub(super) error: Option<StorageError>,
}

impl Chained {
    /// Follows the newest segment back to the first; where one is missing, what is older.
    pub(super) fn of(
        survey: &Survey,
        resume: Option<&Resume>,
        dir: &Path,
    ) -> Result<Self, StorageError> {
        let error = match chain::walk(survey, resume, dir) {
            Ok(numbers) => return Ok(Self { numbers, error: None }),
            Err(error @ StorageError::Corrupt { .. }) => error,
            Err(other) => return Err(other),
        };
        let mut below = number_of(&error).unwrap_or(0);
        // What stands before a checkpoint is named by its manifest.
        let first = resume.map_or(0, |resume| resume.segment);
        loop {
            match back_from(survey, first, below) {
                Ok(numbers) => return Ok(Self { numbers, error: Some(error) }),
                Err(broken) => below = broken,
            }
        }
    }
}

/// The segment that an error names.
fn number_of(error: &StorageError) -> Option<u64> {
    let StorageError::Corrupt { path, .. } = error else { return None };
    parse_file_name(path.file_name()?.to_str()?).map(|(_, number)| number)
}

/// Follows the newest segment below a number back to `first`; fails with the number that is missing, which
/// is smaller.
fn back_from(survey: &Survey, first: u64, below: u64) -> Result<Vec<u64>, u64> {
    let older = survey.files.range(first.min(below)..below);
    let newest = older.rev().find(|(_, found)| found.header().is_some());
    let mut numbers = Vec::new();
    let mut next = newest.map_or(0, |(number, _)| *number);
    while next != 0 && next >= first {
        let header = survey.files.get(&next).and_then(Found::header).ok_or(next)?;
        if header.predecessor >= next {
            return Err(next);
        }
        numbers.push(next);
        next = header.predecessor;
    }
    numbers.reverse();
    Ok(numbers)
}
