//! The records of a batch, read in place.
//!
//! | field | type |
//! |---|---|
//! | length of what follows | varint |
//! | attributes | u8, unused |
//! | timestamp delta | varlong |
//! | offset delta | varint |
//! | key: length (-1 = none), bytes | varint, bytes |
//! | value: length (-1 = none), bytes | varint, bytes |
//! | header count; for each: name length, name, value length (-1 = none), value | varint, ... |

use bytes::Bytes;

use super::{
    BatchError, BatchHeader,
    error::RecordProblem,
    varint::{Cursor, put_varint, put_varlong, varint_len},
};

/// The records of one batch, decompressed.
///
/// Reading one allocates nothing; [`RecordView::value_bytes`] hands out a slice that keeps this
/// buffer alive instead of a copy.
#[derive(Clone, Debug)]
pub struct Records {
    payload: Bytes,
    base: Base,
    count: u32,
}

/// What the fields of a record count from.
#[derive(Clone, Copy, Debug)]
struct Base {
    offset: u64,
    timestamp: i64,
    last_offset_delta: i32,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// The producer's time in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key; `None` for a pure event.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
    /// Where it lies; `None` where that is not known to be kept alive by counting a reference.
    payload: Option<&'a Bytes>,
}

impl Base {
    fn of(header: &BatchHeader) -> Self {
        Self {
            offset: u64::try_from(header.base_offset).unwrap_or_default(),
            timestamp: header.base_timestamp,
            last_offset_delta: header.last_offset_delta,
        }
    }
}

impl Records {
    pub(super) fn new(header: &BatchHeader, payload: Bytes) -> Self {
        Self { payload, base: Base::of(header), count: header.record_count() }
    }

    /// Returns the records of a batch that is not compressed, of which only a part is at hand: what `bytes`
    /// begins with is read by [`Records::get_at`] 0.
    pub fn part_of(header: &BatchHeader, bytes: Bytes) -> Self {
        Self::new(header, bytes)
    }

    /// Returns how many bytes the record has that `bytes` begins with; `None` where its length is cut off.
    pub fn first_len(bytes: &[u8]) -> Option<usize> {
        let mut rest = Cursor(bytes);
        let length = rest.length().ok()?;
        (bytes.len() - rest.0.len()).checked_add(length)
    }

    /// Returns the bytes between two places that [`RecordIter::position`] gave.
    pub(super) fn bytes(&self, from: u32, to: u32) -> &[u8] {
        let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
        self.payload.get(at(from)..at(to)).unwrap_or_default()
    }

    /// Returns how many bytes the buffer has that a record's slice keeps alive.
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Returns how many records the batch says it has. Reading them all checks that it is so.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the records in order. After an error there are no more.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, walk: Walk::default() }
    }

    /// Returns the record at this place, from 0; `None` at or behind the end.
    ///
    /// Walks over the records before it by their lengths and does not check them.
    ///
    /// # Errors
    /// [`BatchError::Record`] for the record asked for or one that could not be walked over.
    pub fn get(&self, ordinal: u32) -> Result<Option<RecordView<'_>>, BatchError> {
        if ordinal >= self.count {
            return Ok(None);
        }
        let mut rest = Cursor(&self.payload);
        for index in 0..ordinal {
            rest.length()
                .and_then(|length| rest.take(length))
                .map_err(|problem| BatchError::Record { index, problem })?;
        }
        decode(self.base, Some(&self.payload), &mut rest)
            .map(|(record, _)| Some(record))
            .map_err(|problem| BatchError::Record { index: ordinal, problem })
    }

    /// Returns the record that begins at a place that [`RecordIter::position`] gave.
    ///
    /// # Errors
    /// [`BatchError::Record`] if there is none.
    pub fn get_at(&self, start: u32) -> Result<RecordView<'_>, BatchError> {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let mut rest = Cursor(self.payload.get(start..).unwrap_or_default());
        decode(self.base, Some(&self.payload), &mut rest)
            .map(|(record, _)| record)
            .map_err(|problem| BatchError::Record { index: 0, problem })
    }
}

/// Reads the next record, and gives its offset delta as well.
fn decode<'a>(
    base: Base,
    payload: Option<&'a Bytes>,
    rest: &mut Cursor<'a>,
) -> Result<(RecordView<'a>, i32), RecordProblem> {
    let length = rest.length()?;
    let mut fields = Cursor(rest.take(length)?);
    let _attributes = fields.byte()?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let wrong_offset = RecordProblem::OffsetDelta(offset_delta);
    if offset_delta > base.last_offset_delta {
        return Err(wrong_offset);
    }
    let delta = u64::try_from(offset_delta).map_err(|_| wrong_offset)?;
    let key = fields.nullable()?;
    let value = fields.nullable()?;
    let header_count = fields.length()?;
    let headers = fields.0;
    for _ in 0..header_count {
        decode_header(&mut fields)?;
    }
    if !fields.0.is_empty() {
        return Err(RecordProblem::TrailingBytes(fields.0.len()));
    }
    let record = RecordView {
        // The header's check keeps the last offset below 2^63.
        offset: base.offset.saturating_add(delta),
        // Times are added as they were subtracted: modulo 2^64, so that any pair round-trips.
        timestamp_ms: base.timestamp.wrapping_add(timestamp_delta),
        key,
        value,
        header_count,
        headers,
        payload,
    };
    Ok((record, offset_delta))
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Reads records one after the other and checks that their number and offsets are as stated.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    records: &'a Records,
    walk: Walk,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.records)
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

impl RecordIter<'_> {
    /// Returns where the next record begins in the buffer, for [`Records::get_at`].
    pub fn position(&self) -> u32 {
        // A batch, decompressed or not, has less than 2^32 bytes.
        u32::try_from(self.walk.position).unwrap_or(u32::MAX)
    }
}

/// A place between two records, and what must hold of those that follow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    position: usize,
    index: u32,
    offset_delta_min: i32,
    is_done: bool,
}

impl Walk {
    /// Reads the next record. After an error there are no more.
    pub(super) fn next<'a>(
        &mut self,
        records: &'a Records,
    ) -> Option<Result<RecordView<'a>, BatchError>> {
        if self.is_done {
            return None;
        }
        let step = self.step(records).transpose();
        self.is_done = !matches!(step, Some(Ok(_)));
        step
    }

    fn step<'a>(&mut self, records: &'a Records) -> Result<Option<RecordView<'a>>, BatchError> {
        let index = self.index;
        let mut rest = Cursor(records.payload.get(self.position..).unwrap_or_default());
        if index >= records.count {
            let bytes = rest.0.len();
            if bytes > 0 {
                return Err(BatchError::AfterLastRecord { count: index, bytes });
            }
            return Ok(None);
        }
        let (record, offset_delta) = decode(records.base, Some(&records.payload), &mut rest)
            .map_err(|problem| BatchError::Record { index, problem })?;
        if offset_delta < self.offset_delta_min {
            let problem = RecordProblem::OffsetDelta(offset_delta);
            return Err(BatchError::Record { index, problem });
        }
        self.offset_delta_min = offset_delta.saturating_add(1);
        self.position = records.payload.len() - rest.0.len();
        self.index += 1;
        Ok(Some(record))
    }
}

impl<'a> RecordView<'a> {
    /// Reads the record that `bytes` begin with, of a batch that is not compressed and that this is the
    /// header of. What is asked of it as [`Bytes`] is a copy.
    ///
    /// # Errors
    /// [`BatchError::Record`] if there is none.
    pub fn first_of(header: &BatchHeader, bytes: &'a [u8]) -> Result<Self, BatchError> {
        decode(Base::of(header), None, &mut Cursor(bytes))
            .map(|(record, _)| record)
            .map_err(|problem| BatchError::Record { index: 0, problem })
    }

    /// Returns the headers in order: name and value, `None` for a header without one.
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter::new(self.headers, self.header_count)
    }

    /// Returns how many headers there are.
    pub fn header_count(&self) -> usize {
        self.header_count
    }

    /// Returns the headers as they stand in the buffer, which they keep alive.
    pub(super) fn header_bytes(&self) -> Bytes {
        if self.header_count == 0 { Bytes::new() } else { self.own(self.headers) }
    }

    /// Returns the key as a slice of the batch's buffer, which it keeps alive.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key.map(|key| self.own(key))
    }

    /// Returns the value as a slice of the batch's buffer, which it keeps alive.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value.map(|value| self.own(value))
    }

    /// Returns the value as a slice of the batch's buffer if it is at least half of that, and a copy
    /// otherwise: a small value must not keep a large buffer.
    pub fn value_bytes_alone(&self) -> Option<Bytes> {
        let value = self.value?;
        let own = self.payload.filter(|payload| value.len() * 2 >= payload.len());
        Some(own.map_or_else(|| Bytes::copy_from_slice(value), |payload| payload.slice_ref(value)))
    }

    fn own(&self, part: &'a [u8]) -> Bytes {
        self.payload.map_or_else(|| Bytes::copy_from_slice(part), |payload| payload.slice_ref(part))
    }
}

/// The headers of one record.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    rest: Cursor<'a>,
    count: usize,
}

impl<'a> HeaderIter<'a> {
    /// Takes what the decoding of a record has checked.
    pub(super) fn new(headers: &'a [u8], count: usize) -> Self {
        Self { rest: Cursor(headers), count }
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        // Decoding the record has checked its headers: there is no error here to be lost.
        decode_header(&mut self.rest).ok()
    }
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn decode_header<'a>(fields: &mut Cursor<'a>) -> Result<Header<'a>, RecordProblem> {
    let length = fields.length()?;
    let name = fields.take(length)?;
    let name = str::from_utf8(name).map_err(|_| RecordProblem::HeaderName)?;
    Ok((name, fields.nullable()?))
}

/// What is encoded as one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a str, &'a [u8])],
}

impl NewRecord<'_> {
    /// Returns how many bytes follow the length field; `None` if that is more than the field can say.
    pub(super) fn body_len(&self) -> Option<i32> {
        let mut length = 1
            + varint_len(self.timestamp_delta)
            + varint_len(self.offset_delta.into())
            + nullable_len(self.key)?
            + nullable_len(self.value)?
            + varint_len(i64::try_from(self.headers.len()).ok()?);
        for (name, value) in self.headers {
            length = length.checked_add(nullable_len(Some(name.as_bytes()))?)?;
            length = length.checked_add(nullable_len(Some(value))?)?;
        }
        i32::try_from(length).ok()
    }

    /// Appends the record. `body_len` is what [`NewRecord::body_len`] returned.
    pub(super) fn encode(&self, body_len: i32, to: &mut Vec<u8>) {
        put_varint(to, body_len);
        to.push(0);
        put_varlong(to, self.timestamp_delta);
        put_varint(to, self.offset_delta);
        put_nullable(to, self.key);
        put_nullable(to, self.value);
        // Counts and lengths fit: the length of the whole does.
        put_varint(to, i32::try_from(self.headers.len()).unwrap_or(i32::MAX));
        for (name, value) in self.headers {
            put_nullable(to, Some(name.as_bytes()));
            put_nullable(to, Some(value));
        }
    }
}

/// Returns how many bytes a field takes, or `None` if it is too long for any record.
fn nullable_len(bytes: Option<&[u8]>) -> Option<usize> {
    let Some(bytes) = bytes else { return Some(1) };
    let length = i32::try_from(bytes.len()).ok()?;
    Some(varint_len(length.into()) + bytes.len())
}

fn put_nullable(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(to, -1),
        Some(bytes) => {
            put_varint(to, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            to.extend_from_slice(bytes);
        }
    }
}
