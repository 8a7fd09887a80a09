//! openraft's view of a shard's log.
//!
//! Vote, truncation and purge return when their control entry is synced; entries are reported when
//! their group is, by the driver, in order. The purge mark is taken as it comes: what it must not
//! pass is asserted where a purge is triggered.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};

use super::types::{TypeConfig, from_entry, from_log_id, from_vote, to_entry, to_log_id, to_vote};
use crate::{
    driver::Flusher,
    storage::{Shard, StorageError, log::header::Lsn},
};

/// A reader hands out about this much at once.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The log of one shard. A clone is another handle.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    shard: Arc<Shard>,
    flusher: Flusher,
}

fn storage(error: StorageError) -> io::Error {
    io::Error::other(error)
}

impl LogStore {
    /// Returns a view of the shard that `flusher` flushes.
    pub(super) fn new(shard: Arc<Shard>, flusher: Flusher) -> Self {
        Self { shard, flusher }
    }

    /// Waits until everything up to `lsn` is synced.
    async fn synced(&self, lsn: Lsn) -> io::Result<()> {
        self.flusher.synced(lsn).await.map_err(|_| io::Error::other("the log failed"))
    }

    fn range(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.shard.log_state().last.map_or(0, |last| last.index + 1),
        };
        start..end
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        let mut range = self.range(&range);
        let mut entries = Vec::new();
        while !range.is_empty() {
            let read = self.shard.read(range.clone(), READ_BYTES_MAX).map_err(storage)?;
            let Some(last) = read.last() else { break };
            range.start = last.id.index + 1;
            for entry in &read {
                entries.push(to_entry(entry)?);
            }
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        Ok(self.shard.vote().map(to_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        let read = self.shard.read(start..end, READ_BYTES_MAX).map_err(storage)?;
        read.iter().map(to_entry).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.shard.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_log_id),
            last_log_id: state.last.map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        let lsn = self.shard.save_vote(from_vote(vote)).map_err(storage)?;
        self.synced(lsn).await
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        self.shard.set_committed(committed.as_ref().map(from_log_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        Ok(self.shard.committed().map(to_log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(from_entry).collect();
        let lsn = self.shard.append(entries).map_err(storage)?;
        self.flusher.when_synced(lsn, Box::new(move || callback.io_completed(Ok(()))));
        Ok(())
    }

    async fn truncate_after(
        &mut self,
        last_log_id: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        let kept = last_log_id.as_ref().map(from_log_id);
        let lsn = self.shard.truncate_after(kept).map_err(storage)?;
        self.synced(lsn).await
    }

    async fn purge(&mut self, log_id: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let lsn = self.shard.purge(from_log_id(&log_id)).map_err(storage)?;
        self.synced(lsn).await
    }
}
