//! Opening a log after whatever happened to it.
//!
//! 1. *Survey*: the files of the directory and their first pages.
//! 2. *Chain*: from the newest segment with a valid page back to the first. A segment that another
//!    one names and that cannot be read was synced once: corruption.
//! 3. *Scan*: every entry in order, from the first or from behind a checkpoint, to the first place b
//!    where chain or checksum fails.
//! 4. *Behind b*: all that looks like a header there. W is the highest watermark seen anywhere.
//! 5. *Judge*: if W lies above the last entry before b, something that was synced is missing: the
//!    log is refused and nothing is changed. Otherwise what stands at b is a torn tail.
//! 6. *Settle*: entries above W were perhaps never on disk. They are copied into a new segment,
//!    synced, and only then is its page written, which cuts the old ones after W. When that is synced
//!    too, a SYNC entry behind them says so: whoever reads it need not doubt the page.

mod behind;
mod chain;
pub mod inspect;
mod scan;
mod settle;
mod spared;
mod step;
mod survey;

use std::{path::Path, sync::Arc};

use super::{
    options::LogOptions, prepare::Preparation, resume::Resume, tail::TailCache, writer::Log,
};
use crate::storage::{StorageError, clock::Rng, disk::Disk, log::header::Lsn};

/// What opening a log found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries of all kinds that the log has.
    pub entries: u64,
    /// Bytes of the files that were read, up to their ends.
    pub bytes: u64,
    /// Bytes of the entries that were read.
    pub read_bytes: u64,
    /// Bytes of the torn tail that was cut.
    pub cut_bytes: u64,
    /// Entries, by their headers, in the torn tail.
    pub cut_entries: u64,
    /// Entries that were copied because they were perhaps never on disk.
    pub copied_entries: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Files set aside because they could not be read.
    pub quarantined: usize,
    /// The last entry that a checkpoint covered, which was not read.
    pub checkpoint: Option<u64>,
    /// Bytes of that checkpoint.
    pub checkpoint_bytes: u64,
}

/// What is known of a log beside its files.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::storage) struct Evidence<'a> {
    /// This was synced, whatever the files say.
    pub(in crate::storage) synced_lsn: Lsn,
    /// Reading may begin behind a checkpoint.
    pub(in crate::storage) resume: Option<&'a Resume>,
}

/// A log that was read and found sound, and not yet changed: whoever has several can judge them all
/// before the first is settled.
#[derive(Debug)]
pub struct JudgedLog {
    log: Log,
    survey: survey::Survey,
    found: settle::Found,
    recovery: Recovery,
}

impl JudgedLog {
    /// Returns whether the log has none of the entries up to its purge mark.
    pub(in crate::storage) fn begins_behind_its_mark(&self) -> bool {
        let mark = self.log.state().purged.map(|mark| mark.index);
        mark.is_some_and(|mark| self.log.first_index().is_none_or(|first| first > mark))
    }

    /// Makes durable what the log will go on from, and cuts what was torn.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn settle(self) -> Result<(Log, Recovery), StorageError> {
        let Self { mut log, survey, found, mut recovery } = self;
        log.settle(&survey, found, &mut recovery)?;
        recovery.segments = log.segments.count();
        Ok((log, recovery))
    }
}

impl Log {
    /// Opens the log in `dir`, or begins one if the directory has none.
    ///
    /// # Errors
    /// As [`Log::judge`] and [`JudgedLog::settle`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        rng: &mut dyn Rng,
        now_ms: i64,
    ) -> Result<(Self, Recovery), StorageError> {
        Self::judge(disk, dir, options, Evidence::default(), rng, now_ms)?.settle()
    }

    /// Reads the log in `dir` and changes nothing.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if something that was synced is missing;
    /// [`StorageError::NewerFormat`], [`StorageError::Foreign`], [`StorageError::Io`].
    pub(in crate::storage) fn judge(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        evidence: Evidence<'_>,
        rng: &mut dyn Rng,
        now_ms: i64,
    ) -> Result<JudgedLog, StorageError> {
        let survey = survey::survey(disk.as_ref(), dir, &options)?;
        let log_id = survey.log_id.unwrap_or_else(|| rng.next_u64());
        let chain = chain::walk(&survey, evidence.resume, dir)?;
        let scanned = scan::scan(&survey, &chain, evidence, dir)?;
        let spared = evidence.resume.map_or(&[][..], |resume| resume.sealed.as_slice());
        let numbers = spared.iter().map(|(number, _)| *number).chain(chain.iter().copied());
        let used_bytes = survey.used_bytes(numbers);
        let log = Self {
            disk,
            dir: dir.to_path_buf(),
            log_id,
            segments: scanned.segments,
            placed_state: scanned.fold.hard_state,
            marked_committed: scanned.fold.hard_state.committed,
            fold: scanned.fold,
            covered: evidence.resume.and_then(Resume::covered),
            tail: TailCache::new(options.tail_cache_bytes),
            pending: std::collections::VecDeque::new(),
            pending_bytes: 0,
            active: None,
            joint: scanned.joint,
            preparation: Preparation::new(survey.largest_number + 1, used_bytes),
            next_lsn: scanned.largest_lsn + 1,
            synced_lsn: scanned.watermark,
            grown_bytes: scanned.recovery.read_bytes,
            group_in_flight: false,
            unsynced: None,
            has_failed: false,
            marked_lsn: scanned.largest_lsn,
            stale_tail: None,
            now_ms,
            options,
        };
        let recovery = scanned.recovery;
        let found = settle::Found {
            above: scanned.above_watermark,
            live: scanned.live,
            page_only: scanned.page_only,
            settled_state: scanned.settled_state,
            replaced: evidence.resume.map_or_else(Vec::new, |resume| survey.replaced(resume)),
        };
        Ok(JudgedLog { log, survey, found, recovery })
    }
}
