//! What can be wrong with a batch.

use std::io;

use super::Compression;
use crate::ErrorCode;

/// A batch that cannot be believed or built.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a batch has, or than its length field says.
    #[error("batch is cut short: {needed} bytes are needed, {found} are there")]
    Truncated {
        /// How many bytes it should have.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// Bytes behind the end of the batch.
    #[error("{0} bytes follow the end of the batch")]
    TrailingBytes(usize),
    /// The length field is smaller than the header, or negative.
    #[error("batch length {0} is smaller than its header")]
    Length(i32),
    /// Not version 2 of the format.
    #[error("batch has magic {0}, expected 2")]
    Magic(i8),
    /// The base offset is negative.
    #[error("batch has base offset {0}")]
    BaseOffset(i64),
    /// There is no record, or more than the bytes can hold.
    #[error("batch cannot have {0} records")]
    Count(i32),
    /// The last record's offset does not fit the count.
    #[error("batch of {count} records has last offset delta {last_offset_delta}")]
    LastOffsetDelta {
        /// How many records it has.
        count: i32,
        /// What the header says.
        last_offset_delta: i32,
    },
    /// Producer id, epoch and sequence are neither all there nor all absent.
    #[error("batch has producer id {id}, epoch {epoch}, base sequence {base_sequence}")]
    Producer {
        /// The producer's id.
        id: i64,
        /// Its epoch.
        epoch: i16,
        /// The sequence of the first record.
        base_sequence: i32,
    },
    /// The number of the compression is none that is defined.
    #[error("batch has compression {0}, which is not defined")]
    UnknownCompression(i16),
    /// The attributes say something that a producer may not.
    #[error("batch has attributes {0:#06x}, which a producer may not set")]
    Attributes(i16),
    /// The checksum does not match.
    #[error("batch checksum is {found:#010x}, expected {expected:#010x}")]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The records do not decompress.
    #[error("decompress {compression} records")]
    Decompress {
        /// The codec.
        compression: Compression,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The records do not compress.
    #[error("compress {compression} records")]
    Compress {
        /// The codec.
        compression: Compression,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The records are larger than allowed, after decompression or to be encoded.
    #[error("records of the batch are larger than {limit} bytes")]
    TooLarge {
        /// The limit that applied, in bytes.
        limit: usize,
    },
    /// One record is wrong.
    #[error("record {index} of the batch: {problem}")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes follow the last of {count} records")]
    AfterLastRecord {
        /// How many records there should be.
        count: u32,
        /// How many bytes are left.
        bytes: usize,
    },
    /// A batch to be built has no record.
    #[error("batch has no record")]
    Empty,
}

impl BatchError {
    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Crc { .. } => ErrorCode::BatchCorrupt,
            _ => ErrorCode::BatchInvalid,
        }
    }
}

/// What is wrong with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// It ends before its last field does.
    #[error("cut short")]
    Truncated,
    /// A variable-length number has too many bits.
    #[error("a number is longer than its type")]
    Varint,
    /// A length or count is negative where it may not be.
    #[error("length {0}")]
    Length(i32),
    /// Bytes follow its last field.
    #[error("{0} bytes follow its last header")]
    TrailingBytes(usize),
    /// Offsets do not rise, or go beyond the batch's last.
    #[error("offset delta {0}")]
    OffsetDelta(i32),
    /// A header's name is not UTF-8.
    #[error("a header's name is not UTF-8")]
    HeaderName,
}
