//! Commits of one collection, read back from the log; and the adapter that has nothing else.

use std::{ops::ControlFlow, path::Path};

use bytes::Bytes;
use prkdb_types::{
    CollectionSettings, DecompressLimit, KeyIndex, Placement,
    adapter::{
        AdapterError, AdapterInfo, Applied, BoxFuture, Change, Commit, LogLimit, Revision,
        Snapshot, StorageAdapter, Tiers, WriteBatch,
    },
    limits,
};

use super::adapted;
use crate::{
    db::{Builder, Collection, DbError, Event, PrkDb, trim::trim},
    storage::{
        StorageError,
        kv::state::DECOMPRESSED_BYTES_MAX,
        log::entry::{Frame, Payload},
    },
};

/// The collection that it appends to.
const COLLECTION: &str = "log";
/// Entries are read in pieces of this size.
const READ_BYTES: u64 = 1 << 20;

/// The log alone: batches in order, and no keys to look up.
#[derive(Debug)]
pub struct SegmentedLog {
    db: PrkDb,
    collection: Collection,
    /// Nothing else is in the database: cleaning waits for what is trimmed.
    is_alone: bool,
}

const INFO: AdapterInfo = AdapterInfo {
    name: "SegmentedLog",
    tiers: Tiers { log: true, kv: false, txn: false, trim: true },
    is_durable: true,
    has_native_log: true,
    key_bytes_max: limits::MAX_KEY_CEILING,
    value_bytes_max: limits::MAX_VALUE_CEILING,
};

impl SegmentedLog {
    /// Opens the log in a directory of its own.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DbError> {
        Self::open_with(PrkDb::builder().with_data_dir(path))
    }

    /// Opens the log with the settings of a builder, in a directory of its own.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn open_with(builder: Builder) -> Result<Self, DbError> {
        let mut log = Self::new(builder.keeping_log().build()?)?;
        log.is_alone = true;
        let first = log.first()?;
        log.db.shard().keep_from(first);
        Ok(log)
    }

    /// Keeps the log in a collection of a database, `log`. Commits that are not trimmed may go from it where
    /// a cleaning takes something out for other collections: [`AdapterError::Compacted`] says so.
    ///
    /// # Errors
    /// That the collection cannot be created.
    pub fn new(db: PrkDb) -> Result<Self, DbError> {
        let settings = CollectionSettings {
            key_index: KeyIndex::Off,
            placement: Placement::Colocated,
            ..CollectionSettings::with_partitions(1)
        };
        let collection = db.create_collection(COLLECTION, settings).wait()?;
        Ok(Self { db, collection, is_alone: false })
    }

    /// Returns the first revision that is not trimmed.
    fn first(&self) -> Result<Revision, DbError> {
        let partition = self.collection.place(0)?;
        let shard = self.db.shard();
        let log_start = shard.partition_state(partition).map_or(0, |state| state.log_start);
        let mut first = shard.revision() + 1;
        let from = shard.log_state().purged.map_or(0, |mark| mark.index) + 1;
        let read = entries(&self.db, partition, from, |revision, frames| {
            if frames.iter().any(|frame| frame.base_offset < log_start) {
                return Ok(ControlFlow::Continue(()));
            }
            first = revision;
            Ok(ControlFlow::Break(()))
        });
        match read {
            Ok(()) => Ok(first),
            Err(error) => {
                let reason = error.to_string();
                Err(StorageError::Discontinuous { index: from, reason }.into())
            }
        }
    }
}

impl StorageAdapter for SegmentedLog {
    fn info(&self) -> AdapterInfo {
        INFO
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, AdapterError> {
        Err(AdapterError::unsupported(&INFO, "a snapshot"))
    }

    fn apply(&self, batch: WriteBatch) -> BoxFuture<'_, Result<Applied, AdapterError>> {
        if let Err(refused) = batch.check(&INFO) {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let event = |Change { key, value }| Event { value, ..Event::default() }.with_key(key);
        let events: Vec<Event> = batch.changes.into_iter().map(event).collect();
        let reply = self.db.stream_in(&self.collection).append(0, &events);
        Box::pin(async move {
            let written = reply.await.map_err(adapted)?;
            Ok(Applied { revision: written.revision })
        })
    }

    fn log(&self, from: Revision, limit: LogLimit) -> Result<Vec<Commit>, AdapterError> {
        commits(&self.db, &self.collection, from, limit)
    }

    fn trim_log(&self, before: Revision) -> Result<(), AdapterError> {
        let partition = self.collection.place(0).map_err(adapted)?;
        let shard = self.db.shard();
        // Asked before the reading: what is appended meanwhile stays.
        let stays = before.min(shard.revision() + 1);
        let end = shard.partition_state(partition).map_or(0, |state| state.next_offset);
        let mut log_start = end;
        let read = entries(&self.db, partition, before, |_, frames| {
            log_start = frames.first().map_or(log_start, |frame| frame.base_offset);
            Ok(ControlFlow::Break(()))
        });
        match read {
            Ok(()) => {}
            // It has gone already.
            Err(AdapterError::Compacted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let begun = shard.log_start(partition);
        let Some(point) = shard.trim_point(partition, log_start) else { return Ok(()) };
        let place = (partition, self.collection.id());
        trim(self.db.engine(), place, (begun, point), || false).map_err(adapted)?;
        if self.is_alone {
            shard.keep_from(stays.max(1));
        }
        Ok(())
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>> {
        let reply = self.db.sync();
        Box::pin(async move { reply.await.map_err(adapted) })
    }
}

/// Reads the commits of a collection with one partition: as long as the log is kept whole, which ends where it
/// is trimmed, and where a cleaning has something to take out of it.
pub(super) fn commits(
    db: &PrkDb,
    collection: &Collection,
    from: Revision,
    limit: LogLimit,
) -> Result<Vec<Commit>, AdapterError> {
    let partition = collection.place(0).map_err(adapted)?;
    let log_start = db.shard().partition_state(partition).map_or(0, |state| state.log_start);
    let end = db.shard().revision() + 1;
    let (mut found, mut bytes, mut is_trimmed) = (Vec::<Commit>::new(), 0, false);
    entries(db, partition, from, |revision, frames| {
        if frames.iter().any(|frame| frame.base_offset < log_start) {
            is_trimmed = true;
            return Ok(ControlFlow::Continue(()));
        }
        if is_trimmed {
            return Err(AdapterError::Compacted { oldest: revision });
        }
        let mut changes = Vec::new();
        for frame in frames {
            read_frame(frame, &mut changes).map_err(|error| adapted(damaged(revision, &error)))?;
        }
        if changes.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let has_room = found.len() < limit.commits && bytes < limit.bytes;
        if !found.is_empty() && !has_room {
            return Ok(ControlFlow::Break(()));
        }
        let len = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        bytes += changes.iter().map(len).sum::<usize>();
        found.push(Commit { revision, changes });
        Ok(ControlFlow::Continue(()))
    })?;
    // All that was there has gone.
    if is_trimmed { Err(AdapterError::Compacted { oldest: end }) } else { Ok(found) }
}

/// Shows the frames of a partition entry by entry, in order.
fn entries(
    db: &PrkDb,
    partition: u32,
    from: Revision,
    mut see: impl FnMut(Revision, &[&Frame]) -> Result<ControlFlow<()>, AdapterError>,
) -> Result<(), AdapterError> {
    let end = db.shard().revision() + 1;
    let mut next = from.max(1);
    while next < end {
        let read = db.shard().read(next..end, READ_BYTES);
        let read = read.map_err(|error| adapted(error.into()))?;
        // Asked after the reading: what lies below the mark is left out of it.
        let mark = db.shard().log_state().purged.map_or(0, |mark| mark.index);
        if next <= mark {
            return Err(AdapterError::Compacted { oldest: mark + 1 });
        }
        let Some(last) = read.last() else { break };
        next = last.id.index + 1;
        for entry in read.iter().filter(|entry| !entry.is_void) {
            let Payload::Normal(write) = &entry.payload else { continue };
            let frames = write.frames.iter().filter(|frame| frame.partition == partition);
            let frames: Vec<&Frame> = frames.collect();
            if !frames.is_empty() && see(entry.id.index, &frames)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_frame(frame: &Frame, changes: &mut Vec<Change>) -> Result<(), prkdb_types::BatchError> {
    let records = frame.batch.records(DecompressLimit::new(DECOMPRESSED_BYTES_MAX))?;
    for record in &records {
        let record = record?;
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        // A record without a key is an event, and no change of a key.
        if let Some(key) = record.key {
            changes.push(Change { key: copy(key), value: record.value.map(copy) });
        }
    }
    Ok(())
}

fn damaged(index: u64, error: &prkdb_types::BatchError) -> DbError {
    StorageError::Discontinuous { index, reason: error.to_string() }.into()
}
