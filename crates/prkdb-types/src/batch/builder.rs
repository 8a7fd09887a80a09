//! Encoding batches.

use bytes::Bytes;

use super::{
    Batch, BatchError, BatchHeader, Compression, DecompressLimit, HEADER_LEN, header::LENGTH_END,
    record::NewRecord, varint::varint_len,
};

/// The longest batch: its length field, which does not count its own 12 bytes, is an i32.
const BATCH_LEN_MAX: usize = 0x7fff_ffff;

/// Who wrote a batch, and as its how-manieth record: what makes a repeat recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer's id: 63 random bits, or -1.
    pub id: i64,
    /// Its epoch, or -1.
    pub epoch: i16,
    /// The sequence of the batch's first record in its partition, or -1.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// No producer: a repeat of the batch is a second batch.
    pub const NONE: Self = Self { id: -1, epoch: -1, base_sequence: -1 };
}

/// Returns the sequence that follows `count` records from `sequence` on. Sequences wrap at 2^31.
pub fn sequence_after(sequence: i32, count: u32) -> i32 {
    let after = sequence.cast_unsigned().wrapping_add(count) & 0x7fff_ffff;
    after.cast_signed()
}

/// Encodes records into one batch.
///
/// ```
/// use prkdb_types::{BatchBuilder, Compression, DecompressLimit, ProducerStamp};
///
/// let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
/// builder.push(1_385_251_200_000, Some(b"key"), Some(b"value"), &[])?;
/// let batch = builder.finish()?;
/// batch.verify_crc()?;
/// let records = batch.records(DecompressLimit::new(1 << 20))?;
/// let record = records.get(0)?.unwrap();
/// assert_eq!(record.value, Some(&b"value"[..]));
/// # Ok::<(), prkdb_types::BatchError>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    stamp: ProducerStamp,
    compression: Compression,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    // Room for the fixed fields, then the records.
    whole: Vec<u8>,
}

impl BatchBuilder {
    /// Starts an empty batch.
    pub fn new(stamp: ProducerStamp, compression: Compression) -> Self {
        Self::with_capacity(stamp, compression, 0)
    }

    /// Starts an empty batch with room for `bytes` bytes of records.
    pub fn with_capacity(stamp: ProducerStamp, compression: Compression, bytes: usize) -> Self {
        let mut whole = Vec::with_capacity(HEADER_LEN + bytes);
        whole.resize(HEADER_LEN, 0);
        Self { stamp, compression, base_timestamp: 0, max_timestamp: 0, count: 0, whole }
    }

    /// Says who wrote the batch, where that is known only once the records are encoded.
    pub fn set_stamp(&mut self, stamp: ProducerStamp) {
        self.stamp = stamp;
    }

    /// Adds a record. A key of `None` makes it a pure event, a value of `None` a tombstone.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if the batch would be longer than 2 GiB; it is as it was before then.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<(), BatchError> {
        let is_first = self.count == 0;
        let base_timestamp = if is_first { timestamp_ms } else { self.base_timestamp };
        let record = NewRecord {
            timestamp_delta: timestamp_ms.wrapping_sub(base_timestamp),
            offset_delta: self.count,
            key,
            value,
            headers,
        };
        let (body_len, record_len) = record_len(&record)?;
        if self.len_bytes().saturating_add(record_len) > BATCH_LEN_MAX {
            return Err(BatchError::TooLarge { limit: BATCH_LEN_MAX });
        }
        self.whole.reserve(record_len);
        record.encode(body_len, &mut self.whole);
        self.base_timestamp = base_timestamp;
        self.max_timestamp =
            if is_first { timestamp_ms } else { self.max_timestamp.max(timestamp_ms) };
        // Each record takes 7 bytes and more, so the count fits where the length does.
        self.count += 1;
        Ok(())
    }

    /// Returns how many bytes the batch will have at most: compression that does not help is left out.
    pub fn len_bytes(&self) -> usize {
        self.whole.len()
    }

    /// Returns how many records there are.
    pub fn count(&self) -> u32 {
        self.count.unsigned_abs()
    }

    /// Returns whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Encodes the batch, with base offset 0.
    ///
    /// It is left uncompressed where compression would not make it smaller, or so much smaller that a
    /// reader would take it for a bomb.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without a record; [`BatchError::Producer`] for a stamp that no batch may have;
    /// [`BatchError::Compress`] if the codec fails.
    pub fn finish(self) -> Result<Batch, BatchError> {
        Batch::parse(self.finish_bytes()?)
    }

    /// Encodes the batch as [`BatchBuilder::finish`] does, into one buffer: the one its records were
    /// encoded into, where it is not compressed.
    ///
    /// # Errors
    /// As [`BatchBuilder::finish`], but the stamp is not checked.
    pub fn finish_bytes(self) -> Result<Bytes, BatchError> {
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        let packed = self.packed()?;
        let (compression, whole) = match packed {
            Some(packed) => (self.compression, packed),
            None => (Compression::None, self.whole),
        };
        let timestamps = (self.base_timestamp, self.max_timestamp);
        sealed(self.stamp, compression, timestamps, self.count, whole)
    }

    fn packed(&self) -> Result<Option<Vec<u8>>, BatchError> {
        if self.compression == Compression::None {
            return Ok(None);
        }
        let mut packed = Vec::with_capacity(HEADER_LEN + self.whole.len() / 4);
        packed.resize(HEADER_LEN, 0);
        let plain = self.whole.get(HEADER_LEN..).unwrap_or_default();
        self.compression.compress(plain, &mut packed)?;
        let readable = DecompressLimit::new(usize::MAX).for_input(packed.len() - HEADER_LEN);
        let helps = packed.len() < self.whole.len() && plain.len() <= readable;
        Ok(helps.then_some(packed))
    }
}

impl Batch {
    /// Encodes a batch of one record, uncompressed, with one allocation.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if it would be longer than 2 GiB; [`BatchError::Producer`] for a stamp that
    /// no batch may have.
    pub fn single(
        stamp: ProducerStamp,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<Self, BatchError> {
        let record = NewRecord { timestamp_delta: 0, offset_delta: 0, key, value, headers };
        let (body_len, record_len) = record_len(&record)?;
        let mut whole = Vec::with_capacity(HEADER_LEN + record_len);
        whole.resize(HEADER_LEN, 0);
        record.encode(body_len, &mut whole);
        debug_assert_eq!(whole.len(), HEADER_LEN + record_len, "the length was computed exactly");
        let timestamps = (timestamp_ms, timestamp_ms);
        Self::parse(sealed(stamp, Compression::None, timestamps, 1, whole)?)
    }
}

/// Returns the length of a record's body and that of the whole record.
fn record_len(record: &NewRecord<'_>) -> Result<(i32, usize), BatchError> {
    let too_large = BatchError::TooLarge { limit: BATCH_LEN_MAX };
    let Some(body_len) = record.body_len() else { return Err(too_large) };
    let Ok(body) = usize::try_from(body_len) else { return Err(too_large) };
    Ok((body_len, varint_len(body_len.into()) + body))
}

/// Fills the room in front of the records.
fn sealed(
    stamp: ProducerStamp,
    compression: Compression,
    (base_timestamp, max_timestamp): (i64, i64),
    count: i32,
    mut whole: Vec<u8>,
) -> Result<Bytes, BatchError> {
    let length = i32::try_from(whole.len() - LENGTH_END)
        .map_err(|_| BatchError::TooLarge { limit: BATCH_LEN_MAX })?;
    let header = BatchHeader {
        base_offset: 0,
        length,
        leader_epoch: -1,
        magic: 2,
        // Computed when the batch is sealed.
        crc: 0,
        attributes: compression.number(),
        last_offset_delta: count - 1,
        base_timestamp,
        max_timestamp,
        producer_id: stamp.id,
        producer_epoch: stamp.epoch,
        base_sequence: stamp.base_sequence,
        count,
    };
    Batch::seal(&header, &mut whole);
    Ok(Bytes::from(whole))
}
