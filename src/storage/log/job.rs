//! Work that the writer of a log hands out.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;

use super::{Log, header::Lsn, segments::Segment};
use crate::storage::StorageError;

/// A group of entries to be written and synced by a driver.
#[derive(Debug)]
pub struct FlushJob {
    pub(super) segment: Arc<Segment>,
    pub(super) position: u64,
    /// Where it ends.
    pub(super) end: u64,
    pub(super) parts: Vec<Bytes>,
    pub(super) bytes: u64,
    pub(super) entries: usize,
    pub(super) last_lsn: Lsn,
}

impl FlushJob {
    /// Writes the group and makes it durable.
    ///
    /// # Errors
    /// What the disk says. Hand it to [`Log::flushed`]; never run the job again.
    pub fn run(&self) -> io::Result<()> {
        self.write()?;
        self.sync()
    }

    /// Writes the group: it outlives this process, and not the machine.
    ///
    /// # Errors
    /// What the disk says. Hand it to [`Log::written`]; never run the job again.
    pub fn write(&self) -> io::Result<()> {
        let slices: Vec<_> = self.parts.iter().map(|part| io::IoSlice::new(part)).collect();
        self.segment.file.write_at(self.position, &slices)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the disk says. Hand it to [`Log::flushed`]; never run the job again.
    pub fn sync(&self) -> io::Result<()> {
        self.segment.file.sync_data()
    }

    /// Returns the size of the group.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many entries it has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Returns the file it goes to, for messages.
    pub fn path(&self) -> &Path {
        &self.segment.path
    }
}

/// The sync of groups that were written without one.
#[derive(Debug)]
pub struct SyncJob {
    pub(super) segment: Arc<Segment>,
    pub(super) last_lsn: Lsn,
}

impl SyncJob {
    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the disk says. Hand it to [`Log::synced`]; never run the job again.
    pub fn run(&self) -> io::Result<()> {
        self.segment.file.sync_data()
    }
}

impl Log {
    /// Hears that a group was written and is to be synced later; returns its last number.
    ///
    /// # Errors
    /// As [`Log::flushed`].
    pub fn written(&mut self, job: FlushJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.group_in_flight = false;
        if let Err(source) = result {
            self.has_failed = true;
            return Err(StorageError::io("write segment", &job.segment.path)(source));
        }
        self.grown_bytes += job.bytes;
        job.segment.advance(job.end);
        self.unsynced = Some((job.last_lsn, job.segment));
        Ok(job.last_lsn)
    }

    /// Returns the sync of what was written without one. `None`: there is nothing, a group is under way,
    /// or the log has failed.
    pub fn next_sync(&mut self) -> Option<SyncJob> {
        if self.has_failed || self.group_in_flight {
            return None;
        }
        let (last_lsn, segment) = self.unsynced.take()?;
        self.group_in_flight = true;
        Some(SyncJob { segment, last_lsn })
    }

    /// Returns whether something cannot be written before what was written is synced.
    pub fn waits_for_sync(&self) -> bool {
        self.unsynced.is_some() && !self.has_failed && !self.pending.is_empty()
    }

    /// Hears how a sync ended, and returns the highest number that is now synced.
    ///
    /// # Errors
    /// As [`Log::flushed`].
    #[expect(clippy::needless_pass_by_value, reason = "a job ends here: it must not run again")]
    pub fn synced(&mut self, job: SyncJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.group_in_flight = false;
        if let Err(source) = result {
            self.has_failed = true;
            return Err(StorageError::io("sync segment", &job.segment.path)(source));
        }
        self.note_synced(job.last_lsn);
        Ok(self.synced_lsn)
    }
}
