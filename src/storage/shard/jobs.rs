//! What a shard's log is told and asked, each call under the log's lock.

use std::{io, ops::Range};

use super::Shard;
use crate::storage::{
    StorageError,
    log::{
        FlushJob, LogState, PrepareDone, PrepareJob, Prepared, SyncJob,
        entry::{Entry, LogId, Vote},
        header::Lsn,
    },
};

impl Shard {
    /// As [`Log::append`](crate::storage::log::Log::append).
    ///
    /// # Errors
    /// As there.
    pub fn append(&self, entries: Vec<Entry>) -> Result<Lsn, StorageError> {
        self.log().append(entries)
    }

    /// As [`Log::save_vote`](crate::storage::log::Log::save_vote).
    ///
    /// # Errors
    /// As there.
    pub fn save_vote(&self, vote: Vote) -> Result<Lsn, StorageError> {
        self.log().save_vote(vote)
    }

    /// As [`Log::truncate_after`](crate::storage::log::Log::truncate_after).
    ///
    /// # Errors
    /// As there.
    pub fn truncate_after(&self, kept: Option<LogId>) -> Result<Lsn, StorageError> {
        self.log().truncate_after(kept)
    }

    /// As [`Log::purge`](crate::storage::log::Log::purge).
    ///
    /// # Errors
    /// As there.
    pub fn purge(&self, up_to: LogId) -> Result<Lsn, StorageError> {
        self.log().purge(up_to)
    }

    /// As [`Log::set_committed`](crate::storage::log::Log::set_committed).
    pub fn set_committed(&self, committed: Option<LogId>) {
        self.log().set_committed(committed);
    }

    /// As [`Log::committed`](crate::storage::log::Log::committed).
    pub fn committed(&self) -> Option<LogId> {
        self.log().committed()
    }

    /// As [`Log::vote`](crate::storage::log::Log::vote).
    pub fn vote(&self) -> Option<Vote> {
        self.log().vote()
    }

    /// As [`Log::state`](crate::storage::log::Log::state).
    pub fn log_state(&self) -> LogState {
        self.log().state()
    }

    /// As [`Log::last_sequence`](crate::storage::log::Log::last_sequence).
    pub fn last_sequence(&self, term: u64) -> u64 {
        self.log().last_sequence(term)
    }

    /// As [`Log::log_id_at`](crate::storage::log::Log::log_id_at).
    pub fn log_id_at(&self, index: u64) -> Option<LogId> {
        self.log().log_id_at(index)
    }

    /// Reads entries of a range, from its start up to about `bytes_max` bytes, but at least one if
    /// there is one. Nothing at or below the purge mark.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn read(&self, range: Range<u64>, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        let plan = self.log().plan_read(range, bytes_max);
        plan.run()
    }

    /// As [`Log::next_flush`](crate::storage::log::Log::next_flush).
    pub fn next_flush(&self) -> Option<FlushJob> {
        self.log().next_flush()
    }

    /// As [`Log::flushed`](crate::storage::log::Log::flushed).
    ///
    /// # Errors
    /// As there.
    pub fn flushed(&self, job: FlushJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.log().flushed(job, result)
    }

    /// As [`Log::written`](crate::storage::log::Log::written).
    ///
    /// # Errors
    /// As there.
    pub fn written(&self, job: FlushJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.log().written(job, result)
    }

    /// As [`Log::next_sync`](crate::storage::log::Log::next_sync).
    pub fn next_sync(&self) -> Option<SyncJob> {
        self.log().next_sync()
    }

    /// As [`Log::waits_for_sync`](crate::storage::log::Log::waits_for_sync).
    pub fn waits_for_sync(&self) -> bool {
        self.log().waits_for_sync()
    }

    /// As [`Log::synced`](crate::storage::log::Log::synced).
    ///
    /// # Errors
    /// As there.
    pub fn synced(&self, job: SyncJob, result: io::Result<()>) -> Result<Lsn, StorageError> {
        self.log().synced(job, result)
    }

    /// As [`Log::next_prepare`](crate::storage::log::Log::next_prepare).
    pub fn next_prepare(&self) -> Option<PrepareJob> {
        self.log().next_prepare()
    }

    /// As [`Log::prepared`](crate::storage::log::Log::prepared).
    ///
    /// # Errors
    /// As there.
    pub fn prepared(
        &self,
        job: PrepareJob,
        result: io::Result<PrepareDone>,
    ) -> Result<Prepared, StorageError> {
        self.log().prepared(job, result)
    }

    /// As [`Log::mark_synced`](crate::storage::log::Log::mark_synced).
    pub fn mark_synced(&self) -> Option<Lsn> {
        self.log().mark_synced()
    }

    /// As [`Log::synced_lsn`](crate::storage::log::Log::synced_lsn).
    pub fn synced_lsn(&self) -> Lsn {
        self.log().synced_lsn()
    }

    /// As [`Log::has_unflushed`](crate::storage::log::Log::has_unflushed).
    pub fn has_unflushed(&self) -> bool {
        self.log().has_unflushed()
    }

    /// As [`Log::on_reserve`](crate::storage::log::Log::on_reserve).
    pub fn on_reserve(&self, is_on_reserve: bool) {
        self.log().on_reserve(is_on_reserve);
    }

    /// As [`Log::disk_is_full`](crate::storage::log::Log::disk_is_full).
    pub fn disk_is_full(&self) -> bool {
        self.log().disk_is_full()
    }

    /// As [`Log::set_now`](crate::storage::log::Log::set_now).
    pub fn set_now(&self, now_ms: i64) {
        self.log().set_now(now_ms);
    }
}
