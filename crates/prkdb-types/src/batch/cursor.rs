//! Records that outlive the reader's borrow of their batch.
//!
//! A [`RecordCursor`] owns the records it walks over, and what it hands out shares their buffer: a record
//! costs a reference count for each of key, value and headers that it has, and neither an allocation nor a
//! copy.

use bytes::Bytes;

use super::{
    BatchError,
    record::{HeaderIter, RecordView, Records, Walk},
};

/// One record that shares the buffer of its batch and keeps it alive.
#[derive(Clone, Debug)]
pub struct SharedRecord {
    /// Its offset in the partition.
    pub offset: u64,
    /// The producer's time in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key; `None` for a pure event.
    pub key: Option<Bytes>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: SharedHeaders,
}

/// The headers of one record, in the buffer of its batch.
#[derive(Clone, Debug, Default)]
pub struct SharedHeaders {
    bytes: Bytes,
    count: usize,
}

impl SharedHeaders {
    /// Returns the headers in order: name and value, `None` for a header without one.
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter::new(&self.bytes, self.count)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for &'a SharedHeaders {
    type Item = <HeaderIter<'a> as Iterator>::Item;
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

impl From<RecordView<'_>> for SharedRecord {
    fn from(view: RecordView<'_>) -> Self {
        Self {
            offset: view.offset,
            timestamp_ms: view.timestamp_ms,
            key: view.key_bytes(),
            value: view.value_bytes(),
            headers: SharedHeaders { bytes: view.header_bytes(), count: view.header_count() },
        }
    }
}

/// Reads the records of one batch, which it owns, and checks that their number and offsets are as stated.
///
/// ```
/// use prkdb_types::{BatchBuilder, Compression, DecompressLimit, ProducerStamp};
///
/// let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
/// builder.push(0, None, Some(b"first"), &[])?;
/// builder.push(0, None, Some(b"second"), &[])?;
/// let mut records = builder.finish()?.records(DecompressLimit::new(1 << 20))?.into_iter();
/// let first = records.next().transpose()?.and_then(|record| record.value);
/// assert_eq!(first.as_deref(), Some(&b"first"[..]));
/// # Ok::<(), prkdb_types::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RecordCursor {
    records: Records,
    walk: Walk,
}

impl RecordCursor {
    /// Reads the next record without taking a share of the buffer.
    ///
    /// # Errors
    /// As [`Records::iter`]. After an error there are no more.
    pub fn next_view(&mut self) -> Option<Result<RecordView<'_>, BatchError>> {
        self.walk.next(&self.records)
    }

    /// Returns the records it walks over, all of them.
    pub fn records(&self) -> &Records {
        &self.records
    }
}

impl Iterator for RecordCursor {
    type Item = Result<SharedRecord, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_view()?.map(SharedRecord::from))
    }
}

impl std::iter::FusedIterator for RecordCursor {}

impl IntoIterator for Records {
    type Item = Result<SharedRecord, BatchError>;
    type IntoIter = RecordCursor;

    fn into_iter(self) -> RecordCursor {
        RecordCursor { records: self, walk: Walk::default() }
    }
}
