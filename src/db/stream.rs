//! The records of one collection by their offsets.

use bytes::{Buf as _, Bytes, BytesMut};
use prkdb_types::{
    Batch, BatchBuilder, Compression, DecompressLimit, ErrorCode, ProducerStamp, limits,
};

use super::{
    Collection, DbError, PrkDb, Reply, Written,
    engine::refused,
    kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX, invalid},
    trim::trim,
};
use crate::storage::{
    Bounds,
    kv::state::DECOMPRESSED_BYTES_MAX,
    sequencer::{CheckedBatch, KeyRules, Keyless, WriteRequest},
};

/// The records of one collection. A clone is another handle.
#[derive(Clone, Debug)]
pub struct Stream {
    db: PrkDb,
    collection: Collection,
}

/// A record to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its key; `None` for a pure event.
    pub key: Option<Bytes>,
    /// Its value; `None` takes the key's value away.
    pub value: Option<Bytes>,
    /// Its time in milliseconds since 1970; `None` = now.
    pub timestamp_ms: Option<i64>,
    /// Names and values beside it.
    pub headers: Vec<(String, Bytes)>,
}

impl Event {
    /// Returns an event without a key.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// Gives it a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// Records that were read, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Offset and record, in order.
    pub events: Vec<(u64, Event)>,
    /// The offset to go on from.
    pub next_offset: u64,
    /// The offset behind the last record there is.
    pub end: u64,
}

impl Stream {
    pub(super) fn new(db: PrkDb, collection: Collection) -> Self {
        Self { db, collection }
    }

    /// Returns the number in frames of a partition that is there.
    fn place(&self, number: u32) -> Result<u32, DbError> {
        let place = self.collection.place(number)?;
        match self.db.shard().partition_state(place) {
            Some(_) => Ok(place),
            None => {
                let message = format!("collection '{}' was dropped", self.collection.name());
                Err(refused(ErrorCode::PartitionNotFound, message))
            }
        }
    }

    /// Appends records to a partition, in one batch: all of them or none. With a key index every key must
    /// belong to the partition.
    ///
    /// # Errors
    /// `BatchInvalid` for none or too many, `WrongPartition`, and those of [`super::Kv::put`].
    pub fn append(&self, partition: u32, events: &[Event]) -> Reply<Written> {
        let request = self.request(partition, events);
        match request {
            Ok(request) => self.db.write(request, move |done| Written {
                partition,
                offset: done.frame.map_or(0, |frame| frame.base_offset),
                revision: done.revision,
                append_time_ms: done.append_time_ms,
                existed: false,
            }),
            Err(error) => Reply::ready(Err(error)),
        }
    }

    fn request(&self, number: u32, events: &[Event]) -> Result<WriteRequest, DbError> {
        let partition = self.collection.place(number)?;
        let now_ms = self.db.engine().clock.wall_ms();
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        for event in events {
            let headers: Vec<(&str, &[u8])> =
                event.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
            builder
                .push(
                    event.timestamp_ms.unwrap_or(now_ms),
                    event.key.as_deref(),
                    event.value.as_deref(),
                    &headers,
                )
                .map_err(|error| refused(error.code(), error.to_string()))?;
        }
        let batch = builder.finish().map_err(|error| refused(error.code(), error.to_string()))?;
        let rules = KeyRules {
            bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            records_max: limits::MAX_KEYED_BATCH_RECORDS,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            number,
            partition_of: &|key| self.collection.partition_of(key),
            keyless: Keyless::Allowed,
        };
        let rules = self.collection.is_keyed().then_some(&rules);
        let batch = CheckedBatch::check(batch.to_bytes(), rules).map_err(invalid)?;
        Ok(WriteRequest::Batch { partition, collection: self.collection.id(), batch })
    }

    /// Reads records of a partition from an offset on: about `bytes_max` bytes, but at least one if there
    /// is one. Waits for the disk, and not for records to come.
    ///
    /// # Errors
    /// `OffsetOutOfRange` where the partition does not reach from before the offset to it;
    /// `PartitionNotFound`, also where the collection was dropped.
    pub fn read(&self, partition: u32, from: u64, bytes_max: usize) -> Result<Events, DbError> {
        let place = self.place(partition)?;
        let Bounds { log_start, high_watermark } = self.db.shard().stream_bounds(place);
        if !(log_start..=high_watermark).contains(&from) {
            let message = format!(
                "partition {partition} has offsets from {log_start} to {high_watermark}, not {from}"
            );
            return Err(refused(ErrorCode::OffsetOutOfRange, message));
        }
        let fetched = self.db.shard().fetch(place, from, bytes_max)?;
        let mut bytes = BytesMut::with_capacity(fetched.bytes);
        fetched.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let mut events =
            Events { events: Vec::new(), next_offset: fetched.next_offset, end: high_watermark };
        let damaged =
            |error: prkdb_types::BatchError| refused(ErrorCode::Corrupt, error.to_string());
        let mut rest = bytes.freeze();
        while !rest.is_empty() {
            let (batch, len) = Batch::split_first(&rest).map_err(damaged)?;
            rest.advance(len);
            batch.verify_crc().map_err(damaged)?;
            let records = batch.records(DecompressLimit::new(DECOMPRESSED_BYTES_MAX));
            for record in &records.map_err(damaged)? {
                let record = record.map_err(damaged)?;
                // A batch may begin before the offset asked for.
                if record.offset >= from {
                    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
                    let mut headers = Vec::new();
                    for (name, value) in record.headers() {
                        headers.push((name.to_owned(), copy(value.unwrap_or_default())));
                    }
                    let event = Event {
                        key: record.key.map(copy),
                        value: record.value.map(copy),
                        timestamp_ms: Some(record.timestamp_ms),
                        headers,
                    };
                    events.events.push((record.offset, event));
                }
            }
        }
        Ok(events)
    }

    /// Returns the first offset whose record has this time or a later one, in milliseconds since 1970;
    /// `None` if no record is so late.
    ///
    /// # Errors
    /// `PartitionNotFound`, and those of reading the log.
    pub fn offset_at_time(&self, partition: u32, time_ms: i64) -> Result<Option<u64>, DbError> {
        let place = self.place(partition)?;
        Ok(self.db.shard().offset_at_time(place, time_ms)?.map(|(offset, _)| offset))
    }

    /// Lets a partition begin at an offset, or at its end if that is earlier, and answers with the offset
    /// it begins at. The keys go whose latest record goes; the room comes back when the log is cleaned.
    ///
    /// # Errors
    /// `PartitionNotFound`, and those of writing.
    pub fn truncate(&self, partition: u32, before: u64) -> Reply<u64> {
        let place = match self.place(partition) {
            Ok(place) => place,
            Err(error) => return Reply::ready(Err(error)),
        };
        let collection = self.collection.id();
        self.db.beside(move |db| {
            let begun = db.shard().log_start(place);
            if let Some(point) = db.shard().trim_point(place, before) {
                trim(db.engine(), (place, collection), (begun, point), || false)?;
            }
            Ok(db.shard().stream_bounds(place).log_start)
        })
    }

    /// Returns the first offset of a partition, and the one behind its last record.
    ///
    /// # Errors
    /// `PartitionNotFound`.
    pub fn bounds(&self, partition: u32) -> Result<(u64, u64), DbError> {
        let bounds = self.db.shard().stream_bounds(self.place(partition)?);
        Ok((bounds.log_start, bounds.high_watermark))
    }
}
