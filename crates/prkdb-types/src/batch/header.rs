//! A batch as it stands on the wire and in the log, and its fixed fields.
//!
//! | at | field | type | |
//! |---|---|---|---|
//! | 0 | base offset | i64 | set by the server |
//! | 8 | length | i32 | of what follows this field |
//! | 12 | leader epoch | i32 | set by the server |
//! | 16 | magic | i8 | 2 |
//! | 17 | CRC32C | u32 | of everything from 21 on |
//! | 21 | attributes | i16 | bits 0-2 compression, 3 append time, 4 transaction, 5 control |
//! | 23 | last offset delta | i32 | |
//! | 27 | base timestamp | i64 | milliseconds since 1970 |
//! | 35 | largest timestamp | i64 | |
//! | 43 | producer id | i64 | -1 = none |
//! | 51 | producer epoch | i16 | -1 = none |
//! | 53 | base sequence | i32 | -1 = none |
//! | 57 | record count | i32 | |
//! | 61 | records | | compressed as one block, or not at all |
//!
//! All numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BatchError, Compression, DecompressLimit, Records};
use crate::crc32c;

/// How many bytes of a batch lie outside of its checksum.
pub const HEAD_LEN: usize = 21;

/// How many bytes of a batch precede its records.
pub const HEADER_LEN: usize = 61;

/// How many bytes precede the end of the length field, which does not count them.
pub(super) const LENGTH_END: usize = 12;

/// The fixed fields behind the head.
const FIELDS_LEN: usize = HEADER_LEN - HEAD_LEN;

/// A record has at least its length, attributes, two deltas, two lengths and a count, a byte each.
const RECORD_LEN_MIN: usize = 7;

pub(super) const COMPRESSION_MASK: i16 = 0b111;

/// One whole batch.
///
/// The head holds what lies outside of the checksum, so that stamping a batch copies 21 bytes; the
/// tail is shared with the buffer the batch was parsed from. A clone counts a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    head: [u8; HEAD_LEN],
    tail: Bytes,
}

/// The fixed fields of a batch, with Kafka's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub length: i32,
    /// Term of the leader that placed the batch; -1 = not placed.
    pub leader_epoch: i32,
    /// Version of the format: 2.
    pub magic: i8,
    /// CRC32C of everything from the attributes on.
    pub crc: u32,
    /// Compression and flags.
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamps are relative to, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp of its records.
    pub max_timestamp: i64,
    /// The producer; -1 = none.
    pub producer_id: i64,
    /// The producer's epoch; -1 = none.
    pub producer_epoch: i16,
    /// The sequence of the first record; -1 = none.
    pub base_sequence: i32,
    /// How many records.
    pub count: i32,
}

impl Batch {
    /// Takes bytes that are exactly one batch. The checksum is not verified.
    ///
    /// # Errors
    /// [`BatchError`], of the kind `Invalid`, if a fixed field is impossible or the length is not that
    /// of the bytes.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let total = whole_len(&bytes)?;
        if bytes.len() > total {
            return Err(BatchError::TrailingBytes(bytes.len() - total));
        }
        Self::parse_exact(bytes)
    }

    /// Takes the first batch of bytes that hold several, and returns how many bytes it has.
    ///
    /// # Errors
    /// As [`Batch::parse`], except that bytes may follow.
    pub fn split_first(bytes: &Bytes) -> Result<(Self, usize), BatchError> {
        let total = whole_len(bytes)?;
        Ok((Self::parse_exact(bytes.slice(..total))?, total))
    }

    /// Takes a batch whose head and tail came apart. The checksum is not verified.
    ///
    /// # Errors
    /// As [`Batch::parse`], of the two end to end.
    pub fn from_parts(head: [u8; HEAD_LEN], tail: Bytes) -> Result<Self, BatchError> {
        let found = HEAD_LEN + tail.len();
        let total = stated_len(&head)?;
        if found < total {
            return Err(BatchError::Truncated { needed: total, found });
        }
        if found > total {
            return Err(BatchError::TrailingBytes(found - total));
        }
        Self::checked(head, tail)
    }

    fn parse_exact(mut bytes: Bytes) -> Result<Self, BatchError> {
        let truncated = BatchError::Truncated { needed: HEADER_LEN, found: bytes.len() };
        let Some(head) = bytes.first_chunk::<HEAD_LEN>().copied() else { return Err(truncated) };
        bytes.advance(HEAD_LEN);
        Self::checked(head, bytes)
    }

    fn checked(head: [u8; HEAD_LEN], tail: Bytes) -> Result<Self, BatchError> {
        let found = HEAD_LEN + tail.len();
        let header = BatchHeader::decode(&head, &tail)
            .ok_or(BatchError::Truncated { needed: HEADER_LEN, found })?;
        header.check(tail.len() - FIELDS_LEN)?;
        Ok(Self { head, tail })
    }

    /// Writes fields and checksum into `whole`, whose first 61 bytes are room for them.
    pub(super) fn seal(header: &BatchHeader, whole: &mut [u8]) {
        let Some((head, tail)) = whole.split_first_chunk_mut::<HEAD_LEN>() else { return };
        if let Some(room) = tail.first_chunk_mut::<FIELDS_LEN>() {
            header.encode_fields(room);
        }
        let mut to = head.as_mut_slice();
        to.put_i64(header.base_offset);
        to.put_i32(header.length);
        to.put_i32(header.leader_epoch);
        to.put_i8(header.magic);
        to.put_u32(crc32c(tail));
    }

    /// Checks the checksum, which covers all but the head.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let (expected, found) = (self.crc(), crc32c(&self.tail));
        if expected == found { Ok(()) } else { Err(BatchError::Crc { expected, found }) }
    }

    /// Returns the fixed fields.
    ///
    /// # Panics
    /// Never: a batch holds its fixed fields from the moment it is parsed or built.
    pub fn header(&self) -> BatchHeader {
        BatchHeader::decode(&self.head, &self.tail).expect("a batch holds its fixed fields")
    }

    /// Returns the checksum the head states.
    pub fn crc(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Returns the offset behind the last one of the batch.
    pub fn next_offset(&self) -> u64 {
        // The check of the header keeps the last offset below 2^63.
        self.base_offset().saturating_add(u64::from(self.header().offset_count()))
    }

    /// Returns the offset of the first record.
    pub fn base_offset(&self) -> u64 {
        let [offset @ .., _, _, _, _, _, _, _, _, _, _, _, _, _] = self.head;
        u64::from_be_bytes(offset)
    }

    /// Sets the offset of the first record. The checksum stays right.
    ///
    /// # Panics
    /// If the offset is 2^63 or more, which counting records from 0 never reaches.
    pub fn set_base_offset(&mut self, offset: u64) {
        assert!(offset <= i64::MAX.cast_unsigned(), "offsets are below 2^63");
        self.head[..8].copy_from_slice(&offset.to_be_bytes());
    }

    /// Sets the leader's epoch. The checksum stays right.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        self.head[LENGTH_END..16].copy_from_slice(&epoch.to_be_bytes());
    }

    /// Returns how many bytes the batch has.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        HEAD_LEN + self.tail.len()
    }

    /// Returns what lies outside of the checksum.
    pub fn head(&self) -> &[u8; HEAD_LEN] {
        &self.head
    }

    /// Returns what the checksum covers.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// Returns the whole batch, copied into one buffer.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.put_slice(&self.head);
        bytes.put_slice(&self.tail);
        bytes.freeze()
    }

    /// Returns the records: decompressed, or sharing the batch's buffer where it is not compressed.
    ///
    /// # Errors
    /// [`BatchError::Decompress`] and [`BatchError::TooLarge`]; the records themselves are checked
    /// one by one, as they are read.
    pub fn records(&self, limit: DecompressLimit) -> Result<Records, BatchError> {
        let header = self.header();
        let payload = self.tail.slice(FIELDS_LEN..);
        let payload = header.compression()?.decompress(payload, limit)?;
        Ok(Records::new(&header, payload))
    }
}

/// Returns how many bytes the first batch has, once that many are there.
fn whole_len(bytes: &[u8]) -> Result<usize, BatchError> {
    let total = stated_len(bytes)?;
    let found = bytes.len();
    if found < total {
        return Err(BatchError::Truncated { needed: total, found });
    }
    Ok(total)
}

/// Returns how many bytes the length field says that the first batch has.
fn stated_len(bytes: &[u8]) -> Result<usize, BatchError> {
    let Some([_, _, _, _, _, _, _, _, length @ ..]) = bytes.first_chunk::<LENGTH_END>() else {
        return Err(BatchError::Truncated { needed: HEADER_LEN, found: bytes.len() });
    };
    let length = i32::from_be_bytes(*length);
    usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(LENGTH_END))
        .filter(|total| *total >= HEADER_LEN)
        .ok_or(BatchError::Length(length))
}

impl BatchHeader {
    /// Reads the header that `bytes` begin with and checks nothing of it; `None` where they are too few.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<HEAD_LEN>()?;
        Self::decode(head, tail)
    }

    fn decode(head: &[u8; HEAD_LEN], tail: &[u8]) -> Option<Self> {
        let mut head = head.as_slice();
        let mut tail = tail.get(..FIELDS_LEN)?;
        Some(Self {
            base_offset: i64::from_be_bytes(take(&mut head)?),
            length: i32::from_be_bytes(take(&mut head)?),
            leader_epoch: i32::from_be_bytes(take(&mut head)?),
            magic: i8::from_be_bytes(take(&mut head)?),
            crc: u32::from_be_bytes(take(&mut head)?),
            attributes: i16::from_be_bytes(take(&mut tail)?),
            last_offset_delta: i32::from_be_bytes(take(&mut tail)?),
            base_timestamp: i64::from_be_bytes(take(&mut tail)?),
            max_timestamp: i64::from_be_bytes(take(&mut tail)?),
            producer_id: i64::from_be_bytes(take(&mut tail)?),
            producer_epoch: i16::from_be_bytes(take(&mut tail)?),
            base_sequence: i32::from_be_bytes(take(&mut tail)?),
            count: i32::from_be_bytes(take(&mut tail)?),
        })
    }

    fn encode_fields(&self, to: &mut [u8; FIELDS_LEN]) {
        let mut to = to.as_mut_slice();
        to.put_i16(self.attributes);
        to.put_i32(self.last_offset_delta);
        to.put_i64(self.base_timestamp);
        to.put_i64(self.max_timestamp);
        to.put_i64(self.producer_id);
        to.put_i16(self.producer_epoch);
        to.put_i32(self.base_sequence);
        to.put_i32(self.count);
    }

    /// Checks what holds for every batch, wherever it is read. `payload` is how many bytes follow.
    fn check(&self, payload: usize) -> Result<(), BatchError> {
        if self.magic != 2 {
            return Err(BatchError::Magic(self.magic));
        }
        if self.base_offset < 0 || self.last_offset().is_none() {
            return Err(BatchError::BaseOffset(self.base_offset));
        }
        let compression = self.compression()?;
        let fits = compression != Compression::None
            || usize::try_from(self.count).is_ok_and(|count| count <= payload / RECORD_LEN_MIN);
        if self.count <= 0 || !fits {
            return Err(BatchError::Count(self.count));
        }
        if self.last_offset_delta < self.count - 1 {
            let (count, last_offset_delta) = (self.count, self.last_offset_delta);
            return Err(BatchError::LastOffsetDelta { count, last_offset_delta });
        }
        let (id, epoch, base_sequence) =
            (self.producer_id, self.producer_epoch, self.base_sequence);
        let is_none = (id, epoch, base_sequence) == (-1, -1, -1);
        if !is_none && (id < 0 || epoch < 0 || base_sequence < 0) {
            return Err(BatchError::Producer { id, epoch, base_sequence });
        }
        Ok(())
    }

    /// Checks what holds for a batch as a producer sends it: offsets without gaps, and no attribute
    /// but the compression.
    ///
    /// # Errors
    /// [`BatchError::LastOffsetDelta`] and [`BatchError::Attributes`].
    pub fn check_produced(&self) -> Result<(), BatchError> {
        if !self.is_dense() {
            let (count, last_offset_delta) = (self.count, self.last_offset_delta);
            return Err(BatchError::LastOffsetDelta { count, last_offset_delta });
        }
        if self.attributes & !COMPRESSION_MASK != 0 {
            return Err(BatchError::Attributes(self.attributes));
        }
        Ok(())
    }

    /// Returns whether every offset from the first to the last has a record. Cleaning leaves gaps.
    pub fn is_dense(&self) -> bool {
        self.last_offset_delta.checked_add(1) == Some(self.count)
    }

    /// Returns the codec of the records.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`]; never for the header of a [`Batch`].
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let number = self.attributes & COMPRESSION_MASK;
        Compression::from_number(number).ok_or(BatchError::UnknownCompression(number))
    }

    /// Returns whether a producer is named, with its epoch and sequence.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Returns how many records there are.
    pub fn record_count(&self) -> u32 {
        u32::try_from(self.count).unwrap_or_default()
    }

    /// Returns how many offsets the batch takes up.
    pub fn offset_count(&self) -> u32 {
        u32::try_from(self.last_offset_delta).unwrap_or_default().saturating_add(1)
    }

    fn last_offset(&self) -> Option<i64> {
        self.base_offset.checked_add(i64::from(self.last_offset_delta))
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}
