//! What a consumer hands out: whole batches, or one record after the other.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_types::{
    Batch, BatchError, RecordCursor, RecordView, Records, SharedHeaders, SharedRecord,
    batch::{HeaderIter, RecordIter},
};

use crate::error::ClientError;

/// One batch of a partition, whose checksum was verified.
///
/// Its records are read in place, see [`Self::records`].
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    /// The number of the partition in its collection.
    pub partition: u32,
    /// The offset behind the last record of the partition that may be read, as last heard.
    pub high_watermark: u64,
    /// The batch as it stands in the log, with the records that were not asked for.
    pub batch: Batch,
    records: Records,
    collection: Arc<str>,
    from: u64,
    until: u64,
}

impl FetchedBatch {
    pub(super) fn new(
        (collection, partition): (Arc<str>, u32),
        high_watermark: u64,
        batch: Batch,
        records: Records,
        (from, until): (u64, u64),
    ) -> Self {
        Self { partition, high_watermark, batch, records, collection, from, until }
    }

    /// Returns the offset of the first record that is read from it, or where that record was.
    pub fn base_offset(&self) -> u64 {
        self.batch.base_offset().max(self.from)
    }

    /// Returns the offset to go on from once its records are read.
    pub fn next_offset(&self) -> u64 {
        self.batch.next_offset().min(self.until)
    }

    /// Returns how many records the batch says it has, with those that were not asked for.
    pub fn record_count(&self) -> u32 {
        self.records.count()
    }

    /// Returns the records that were asked for, in order: none below the start and none at the end or
    /// behind. They were decompressed once, before; reading one allocates nothing. There may be none, where
    /// cleaning removed them. After an error there are no more.
    ///
    /// # Errors
    /// `Corrupt` for a record that its producer encoded wrongly.
    pub fn records(&self) -> FetchedRecords<'_> {
        FetchedRecords { batch: self, records: self.records.iter() }
    }

    fn asks_for(&self, offset: u64) -> bool {
        (self.from..self.until).contains(&offset)
    }

    fn corrupt(&self, source: BatchError) -> ClientError {
        ClientError::Corrupt {
            // A clone counts a reference; errors are rare besides.
            collection: Arc::clone(&self.collection),
            partition: self.partition,
            offset: self.batch.base_offset(),
            source: Arc::new(source),
        }
    }
}

/// The records of a [`FetchedBatch`].
#[derive(Clone, Debug)]
pub struct FetchedRecords<'a> {
    batch: &'a FetchedBatch,
    records: RecordIter<'a>,
}

impl<'a> Iterator for FetchedRecords<'a> {
    type Item = Result<RecordView<'a>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.next()? {
                Ok(record) if self.batch.asks_for(record.offset) => return Some(Ok(record)),
                Ok(_) => {}
                Err(source) => return Some(Err(self.batch.corrupt(source))),
            }
        }
    }
}

impl std::iter::FusedIterator for FetchedRecords<'_> {}

/// One record, which shares the buffer of its batch and keeps it alive.
#[derive(Clone, Debug)]
pub struct ConsumedRecord {
    /// The number of the partition in its collection.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: u64,
    /// The producer's time in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key; `None` for a pure event.
    pub key: Option<Bytes>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
    headers: SharedHeaders,
}

impl ConsumedRecord {
    fn new(partition: u32, record: SharedRecord) -> Self {
        let SharedRecord { offset, timestamp_ms, key, value, headers } = record;
        Self { partition, offset, timestamp_ms, key, value, headers }
    }

    /// Returns the headers in order: name and value, `None` for a header without one.
    pub fn headers(&self) -> HeaderIter<'_> {
        self.headers.iter()
    }
}

/// A batch that is read record by record.
#[derive(Debug)]
pub(super) struct Unread {
    batch: FetchedBatch,
    cursor: RecordCursor,
}

impl Unread {
    pub(super) fn new(batch: FetchedBatch) -> Self {
        // The clone shares the buffer.
        let cursor = batch.records.clone().into_iter();
        Self { batch, cursor }
    }

    /// Reads the next record that was asked for.
    pub(super) fn next_record(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        loop {
            match self.cursor.next_view()? {
                Ok(view) if self.batch.asks_for(view.offset) => {
                    let record = ConsumedRecord::new(self.batch.partition, view.into());
                    self.batch.from = record.offset.saturating_add(1);
                    return Some(Ok(record));
                }
                Ok(_) => {}
                Err(source) => return Some(Err(self.batch.corrupt(source))),
            }
        }
    }

    pub(super) fn partition(&self) -> u32 {
        self.batch.partition
    }

    /// Returns the offset of the next record.
    pub(super) fn position(&self) -> u64 {
        self.batch.base_offset().min(self.batch.next_offset())
    }

    /// Gives the batch back without the records that were read.
    pub(super) fn into_rest(self) -> Option<FetchedBatch> {
        (self.batch.from < self.batch.next_offset()).then_some(self.batch)
    }
}
