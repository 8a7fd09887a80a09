//! Commits of one collection, read back from the log; and the adapter that has nothing else.

use std::path::Path;

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
    db::{Collection, DbError, Event, PrkDb},
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
}

const INFO: AdapterInfo = AdapterInfo {
    name: "SegmentedLog",
    tiers: Tiers { log: true, kv: false, txn: false, trim: false },
    is_durable: true,
    has_native_log: true,
    key_bytes_max: limits::MAX_KEY_CEILING,
    value_bytes_max: limits::MAX_VALUE_CEILING,
};

impl SegmentedLog {
    /// Opens the log in a directory of its own.
    ///
    /// # Errors
    /// As [`crate::db::Builder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DbError> {
        Self::new(PrkDb::builder().with_data_dir(path).build()?)
    }

    /// Keeps the log in a collection of a database, `log`.
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
        Ok(Self { db, collection })
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

    fn trim_log(&self, _before: Revision) -> Result<(), AdapterError> {
        Err(AdapterError::unsupported(&INFO, "trimming"))
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>> {
        let reply = self.db.sync();
        Box::pin(async move { reply.await.map_err(adapted) })
    }
}

/// Reads the entries that hold records of a collection with one partition: as long as the log is kept whole,
/// which ends where a cleaning has something to take out of it.
pub(super) fn commits(
    db: &PrkDb,
    collection: &Collection,
    from: Revision,
    limit: LogLimit,
) -> Result<Vec<Commit>, AdapterError> {
    let partition = collection.place(0).map_err(adapted)?;
    let end = db.shard().revision() + 1;
    let mut found: Vec<Commit> = Vec::new();
    let (mut next, mut bytes) = (from.max(1), 0);
    while next < end {
        let entries = db.shard().read(next..end, READ_BYTES);
        let entries = entries.map_err(|error| adapted(error.into()))?;
        // Asked after the reading: what lies below the mark is left out of it.
        let mark = db.shard().log_state().purged.map_or(0, |mark| mark.index);
        if next <= mark {
            return Err(AdapterError::Compacted { oldest: mark + 1 });
        }
        let Some(last) = entries.last() else { break };
        next = last.id.index + 1;
        for entry in &entries {
            let Payload::Normal(write) = &entry.payload else { continue };
            let frames = write.frames.iter().filter(|frame| frame.partition == partition);
            let mut changes = Vec::new();
            for frame in frames.filter(|_| !entry.is_void) {
                read_frame(frame, &mut changes)
                    .map_err(|error| adapted(damaged(entry.id.index, &error)))?;
            }
            if changes.is_empty() {
                continue;
            }
            let has_room = found.len() < limit.commits && bytes < limit.bytes;
            if !found.is_empty() && !has_room {
                return Ok(found);
            }
            let len =
                |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
            bytes += changes.iter().map(len).sum::<usize>();
            found.push(Commit { revision: entry.id.index, changes });
        }
    }
    Ok(found)
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
