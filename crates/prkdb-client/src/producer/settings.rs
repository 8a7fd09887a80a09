//! What a producer goes by: its options within the limits of server and collection, and what it refuses.

use std::{sync::Arc, time::Duration};

use prkdb_proto::v1::{KeyIndex, Limits};
use prkdb_types::{Compression, ErrorCode, limits};

use crate::{
    error::ClientError,
    producer::{ProducerOptions, Record},
    routes::Partitions,
};

/// What a message has around its records, at most: the batch's fixed fields and those of the wire.
const ENVELOPE_BYTES: usize = 128;

/// The options of a producer, within the limits.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) partitions: Arc<Partitions>,
    pub(super) batch_bytes: usize,
    pub(super) batch_records: u32,
    pub(super) linger: Duration,
    pub(super) in_flight: usize,
    pub(super) compression: Compression,
    pub(super) buffer_bytes: usize,
    is_keyed: bool,
    record_bytes_max: usize,
    key_bytes_max: usize,
    value_bytes_max: usize,
}

impl Settings {
    pub(super) fn new(
        options: &ProducerOptions,
        partitions: Arc<Partitions>,
        told: &Limits,
    ) -> Self {
        let limit = |told: u64, default: usize| match usize::try_from(told).unwrap_or(usize::MAX) {
            0 => default,
            told => told,
        };
        let message_bytes = limit(told.max_message_bytes, limits::MAX_MESSAGE_DEFAULT);
        let record_bytes_max = message_bytes.saturating_sub(ENVELOPE_BYTES);
        let settings = partitions.collection().settings.unwrap_or_default();
        let is_keyed = settings.key_index() == KeyIndex::On;
        let records_max = match told.max_keyed_batch_records {
            _ if !is_keyed => u32::MAX,
            0 => limits::MAX_KEYED_BATCH_RECORDS,
            told => told,
        };
        Self {
            partitions,
            batch_bytes: options.batch_bytes.min(record_bytes_max),
            batch_records: options.batch_records.clamp(1, records_max),
            linger: options.linger,
            in_flight: options.in_flight.clamp(1, limits::PRODUCER_WINDOW_BATCHES),
            compression: options.compression,
            buffer_bytes: options.buffer_bytes,
            is_keyed,
            record_bytes_max,
            key_bytes_max: limit(told.max_key_bytes, limits::MAX_KEY_CEILING),
            value_bytes_max: limit(told.max_value_bytes, limits::MAX_VALUE_CEILING),
        }
    }

    /// Refuses a record for which the server would refuse the batch it is in, with everything else in it.
    /// Returns how many bytes it adds to a batch at most.
    pub(super) fn check(&self, record: &Record<'_>) -> Result<usize, ClientError> {
        if let Some(partition) = record.partition
            && partition >= self.partitions.count()
        {
            let count = self.partitions.count();
            let name = &self.partitions.collection().name;
            let message = format!("collection '{name}' has no partition {partition}, but {count}");
            return Err(refuse(ErrorCode::PartitionNotFound, message));
        }
        let bytes_max = record.bytes_max();
        below(ErrorCode::MessageTooLarge, "a record", bytes_max, self.record_bytes_max)?;
        // Batches for a collection without key index are never opened by the server.
        if self.is_keyed {
            self.check_keyed(record)?;
        }
        Ok(bytes_max)
    }

    fn check_keyed(&self, record: &Record<'_>) -> Result<(), ClientError> {
        if let Some(key) = record.key {
            if key.is_empty() {
                let message = ErrorCode::KeyEmpty.summary().to_owned();
                return Err(refuse(ErrorCode::KeyEmpty, message));
            }
            below(ErrorCode::KeyTooLarge, "a key", key.len(), self.key_bytes_max)?;
            self.check_partition(key, record.partition)?;
        }
        let value_len = record.value.map_or(0, <[u8]>::len);
        below(ErrorCode::ValueTooLarge, "a value", value_len, self.value_bytes_max)
    }

    fn check_partition(&self, key: &[u8], asked: Option<u32>) -> Result<(), ClientError> {
        let Some(asked) = asked else { return Ok(()) };
        let own = self.partitions.of(key);
        if own == asked {
            return Ok(());
        }
        let message = format!("the key belongs to partition {own}, not {asked}");
        Err(refuse(ErrorCode::WrongPartition, message))
    }
}

fn below(code: ErrorCode, what: &str, found: usize, limit: usize) -> Result<(), ClientError> {
    if found <= limit {
        return Ok(());
    }
    let message = format!("{what} of {found} bytes is above the server's limit of {limit}");
    Err(refuse(code, message))
}

fn refuse(code: ErrorCode, message: String) -> ClientError {
    ClientError::Request { code, message }
}
