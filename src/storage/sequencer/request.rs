//! What is asked of the sequencer, and what it says.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_types::{
    Batch, BatchHeader, DecompressLimit, ErrorCode, ProducerStamp, ShardCommand,
    command::{ShardChange, Trim},
    headers::{self, Operation, Ttl},
};

use super::transaction::Transaction;
use crate::storage::stream::TrimPoint;

/// What a write demands of the key it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// That it has no value.
    IfAbsent,
    /// That its latest record has this offset.
    IfVersion(u64),
}

/// A write to be decided. Partitions are named by their number in frames.
#[derive(Clone, Debug)]
pub enum WriteRequest {
    /// A key's next value.
    Put {
        /// The partition.
        partition: u32,
        /// The collection it belongs to.
        collection: u32,
        /// The key, not empty.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The producer's time.
        timestamp_ms: i64,
        /// Makes a repeat recognisable.
        producer: Option<ProducerStamp>,
        /// What must hold.
        condition: Condition,
        /// How long it lasts from its append on.
        ttl: Option<Ttl>,
        /// Its other headers.
        headers: Vec<(String, Bytes)>,
    },
    /// A tombstone for a key that has a value.
    Delete {
        /// The partition.
        partition: u32,
        /// The collection it belongs to.
        collection: u32,
        /// The key, not empty.
        key: Bytes,
        /// The producer's time.
        timestamp_ms: i64,
        /// Makes a repeat recognisable.
        producer: Option<ProducerStamp>,
        /// What must hold.
        condition: Condition,
    },
    /// A batch as a client encoded it.
    Batch {
        /// The partition.
        partition: u32,
        /// The collection it belongs to.
        collection: u32,
        /// The batch.
        batch: CheckedBatch,
    },
    /// Tombstones for keys that have the version given; for those that are expired as far as they are.
    Sweep {
        /// The partition.
        partition: u32,
        /// The collection it belongs to.
        collection: u32,
        /// The keys with their versions.
        keys: Vec<(Bytes, u64)>,
        /// Why.
        reason: Operation,
    },
    /// Several keys, all or none. A clone counts a reference.
    Transaction(Arc<Transaction>),
    /// Metadata records.
    Control {
        /// In order, applied as one.
        commands: Vec<ShardCommand>,
        /// The proposer's time.
        timestamp_ms: i64,
    },
}

impl WriteRequest {
    /// Returns the producer whose sequences it has, if it has some.
    pub fn producer(&self) -> Option<i64> {
        match self {
            Self::Put { producer, .. } | Self::Delete { producer, .. } => {
                producer.as_ref().map(|stamp| stamp.id)
            }
            Self::Batch { batch, .. } => batch.producer(),
            Self::Transaction(transaction) => {
                transaction.producers.values().next().map(|stamp| stamp.id)
            }
            Self::Sweep { .. } | Self::Control { .. } => None,
        }
    }

    /// Lets a partition begin later.
    pub fn trim(partition: u32, point: TrimPoint, timestamp_ms: i64) -> Self {
        let TrimPoint { log_start, bytes } = point;
        let change = Some(ShardChange::Trim(Trim { partition, log_start, bytes }));
        let commands = vec![ShardCommand { id: partition.into(), version: 0, change }];
        Self::Control { commands, timestamp_ms }
    }
}

/// What the sequencer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will be frame `frame` of the sequencer's entry `sequence`, the one being gathered.
    Accepted {
        /// The entry.
        sequence: u64,
        /// The frame.
        frame: usize,
        /// Offset of its first record.
        base_offset: u64,
    },
    /// The entry being gathered has no room for it: take that first, then ask again.
    Full,
    /// It cannot be decided before entry `0` is applied: ask again then.
    WaitFor(u64),
    /// Nothing is appended. The answer is to be sent when entry `rests_on` is applied.
    Answered {
        /// `None`: it rests on what is applied already.
        rests_on: Option<u64>,
        /// The answer.
        answer: Answer,
    },
}

/// An answer that appends nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write had been accepted before.
    Duplicate {
        /// The partition.
        partition: u32,
        /// The offset it got then.
        base_offset: u64,
        /// The entry that holds it; `None`: the one the answer rests on.
        revision: Option<u64>,
        /// When it was accepted.
        append_time_ms: i64,
    },
    /// A delete of a key without a value.
    Absent {
        /// The partition.
        partition: u32,
    },
    /// The write is not and will not be applied.
    Refused(Refusal),
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The row of the error table.
    pub code: ErrorCode,
    /// What failed, on what, and why.
    pub message: String,
    /// For a version that does not match: the one the key has.
    pub current_version: Option<u64>,
    /// For a transaction that conflicts: with what.
    pub conflict: Option<Conflict>,
}

impl Refusal {
    /// Returns a refusal that names no version and no conflict.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), current_version: None, conflict: None }
    }
}

/// The key on which a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its collection.
    pub collection: u32,
    /// The key.
    pub key: Bytes,
    /// What the transaction has to do with it.
    pub kind: ConflictKind,
}

/// What a transaction has to do with a key that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// It writes the key.
    Written,
    /// It read the key.
    Read,
    /// It read a range that the key lies in.
    Range,
}

/// What the records of a partition with a key index must keep to.
pub struct KeyRules<'a> {
    /// Longest key in bytes.
    pub bytes_max: usize,
    /// Longest value in bytes.
    pub value_bytes_max: usize,
    /// Most records of a batch.
    pub records_max: u32,
    /// Most bytes of a batch when decompressed.
    pub decompressed_bytes_max: usize,
    /// The partition's number in its collection.
    pub number: u32,
    /// The number of the partition that a key belongs to.
    pub partition_of: &'a dyn Fn(&[u8]) -> u32,
    /// What becomes of a record without a key.
    pub keyless: Keyless,
}

/// What becomes of a record without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyless {
    /// It is refused.
    Refused,
    /// It is an event that no index knows.
    Allowed,
}

/// A batch whose checksum and records were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    pub(super) batch: Batch,
    pub(super) header: BatchHeader,
}

impl CheckedBatch {
    /// Checks a batch as it came from a client. Without rules for keys its records are not looked at.
    ///
    /// # Errors
    /// A [`Refusal`] that names the record where there is one to blame.
    pub fn check(bytes: Bytes, keys: Option<&KeyRules<'_>>) -> Result<Self, Refusal> {
        let refuse =
            |error: &prkdb_types::BatchError| Refusal::new(error.code(), error.to_string());
        let batch = Batch::parse(bytes).map_err(|error| refuse(&error))?;
        let header = batch.header();
        batch.verify_crc().map_err(|error| refuse(&error))?;
        header.check_produced().map_err(|error| refuse(&error))?;
        if let Some(rules) = keys {
            rules.check(&batch, &header)?;
        }
        Ok(Self { batch, header })
    }

    /// Returns its producer, if it has one: a repeat of it is known then.
    pub fn producer(&self) -> Option<i64> {
        self.header.has_producer().then_some(self.header.producer_id)
    }

    /// Returns the size of the batch.
    pub fn len_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Returns how many records it has.
    pub fn record_count(&self) -> u32 {
        self.header.record_count()
    }
}

impl KeyRules<'_> {
    fn check(&self, batch: &Batch, header: &BatchHeader) -> Result<(), Refusal> {
        let refuse =
            |error: &prkdb_types::BatchError| Refusal::new(error.code(), error.to_string());
        if header.record_count() > self.records_max {
            let message = format!(
                "batch has {} records, limit {} with a key index",
                header.record_count(),
                self.records_max
            );
            return Err(Refusal::new(ErrorCode::BatchInvalid, message));
        }
        let limit = DecompressLimit::new(self.decompressed_bytes_max);
        let records = batch.records(limit).map_err(|error| refuse(&error))?;
        for (number, record) in records.iter().enumerate() {
            let record = record.map_err(|error| refuse(&error))?;
            let checked = self.check_record(record.key, record.value);
            if let Err(Refusal { code, message, .. }) = checked {
                return Err(Refusal::new(code, format!("record {number}: {message}")));
            }
            if let Err(error) = headers::ttl(&record) {
                let message = format!("record {number}: {error}");
                return Err(Refusal::new(ErrorCode::BatchInvalid, message));
            }
        }
        Ok(())
    }

    fn check_record(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Refusal> {
        check_value(value.unwrap_or_default(), self.value_bytes_max)?;
        if key.is_none() && self.keyless == Keyless::Allowed {
            return Ok(());
        }
        let key = key.unwrap_or_default();
        check_key(key, self.bytes_max)?;
        let partition = (self.partition_of)(key);
        if partition != self.number {
            let message = format!("its key belongs to partition {partition}, not {}", self.number);
            return Err(Refusal::new(ErrorCode::WrongPartition, message));
        }
        Ok(())
    }
}

/// Checks the length of a key.
///
/// # Errors
/// A [`Refusal`] with length and limit.
pub fn check_key(key: &[u8], bytes_max: usize) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(ErrorCode::KeyEmpty, "a key must have at least one byte"));
    }
    if key.len() > bytes_max {
        let message = format!("key is {} bytes, limit {bytes_max} bytes", key.len());
        return Err(Refusal::new(ErrorCode::KeyTooLarge, message));
    }
    Ok(())
}

/// Checks the length of a value.
///
/// # Errors
/// A [`Refusal`] with length and limit.
pub fn check_value(value: &[u8], bytes_max: usize) -> Result<(), Refusal> {
    if value.len() > bytes_max {
        let message = format!("value is {} bytes, limit {bytes_max} bytes", value.len());
        return Err(Refusal::new(ErrorCode::ValueTooLarge, message));
    }
    Ok(())
}
