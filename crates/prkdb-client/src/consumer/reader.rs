//! The consumer itself: turns replies into batches and records.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use prkdb_proto::v1::{FetchReply, list_offsets_reply, list_offsets_request};
use prkdb_types::{Batch, BatchError, DecompressLimit, ErrorCode};
use tokio_stream::Stream;

use crate::{
    client::Client,
    consumer::{
        ConsumedRecord, ConsumerOptions, FetchedBatch, StartAt,
        feeds::Feeds,
        fetched::Unread,
        parts::Parts,
        places::{Admission, Place, Places},
    },
    error::ClientError,
    link::Link,
};

/// What a batch may become: as much as a message may have, which no batch of a server is larger than.
const DECOMPRESS_LIMIT: DecompressLimit = DecompressLimit::new(64 << 20);

/// Reads the records of a collection in the order of each partition, and follows what is appended.
///
/// By batch with [`Self::next_batch`], or record by record as a [`Stream`]; both may be used in turn. Every
/// batch's checksum is verified. After a break the streams are opened again behind what was handed out: no
/// record comes twice and none is left out.
///
/// An error that may pass ([`ClientError::is_retryable`]) does not end it: the next call tries again from
/// the same place, within a deadline of its own. Any other error is its last word.
///
/// It has a connection of its own to each server that leads some of the partitions. What it does not read
/// stays with the server, but for a window of 16 MiB for each. Partitions that are added to the collection
/// later are not read.
///
/// ```no_run
/// use prkdb_client::{Client, ClientOptions, Consumer, ConsumerOptions};
///
/// # async fn example() -> Result<(), prkdb_client::ClientError> {
/// let client = Client::connect(ClientOptions::default()).await?;
/// let mut consumer = Consumer::open(&client, "events", ConsumerOptions::default()).await?;
/// while let Some(batch) = consumer.next_batch().await? {
///     for record in batch.records() {
///         let record = record?;
///         println!("{}/{}: {:?}", batch.partition, record.offset, record.value);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    collection: Arc<str>,
    places: Places,
    feeds: Feeds,
    reply: Option<Reply>,
    unread: Option<Unread>,
    failed: Option<ClientError>,
}

/// A reply that is being read.
#[derive(Debug)]
struct Reply {
    link: Arc<Link>,
    partition: u32,
    high_watermark: u64,
    next_offset: u64,
    batches: Parts,
}

impl Consumer {
    /// Opens a consumer of a collection. Where `Latest` and times are is settled before it returns: what
    /// is appended afterwards is read.
    ///
    /// # Errors
    /// `NotFound` where the collection or a partition asked for does not exist; `Invalid` for an offset
    /// that the partition does not have, which may also be told later; else see [`ClientError`].
    pub async fn open(
        client: &Client,
        collection: &str,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let places = places(client, collection, &options).await?;
        let collection = Arc::from(collection);
        let feeds = Feeds::new(client, Arc::clone(&collection), places.numbers().collect());
        let mut consumer =
            Self { collection, places, feeds, reply: None, unread: None, failed: None };
        poll_fn(|context| consumer.feeds.poll_open(context, &mut consumer.places)).await?;
        Ok(consumer)
    }

    /// Returns the next batch of any partition; `None` once every partition has reached its `until`.
    ///
    /// Where the records of a batch were read one by one before, the rest of that batch.
    ///
    /// Cancel safety: dropping the future loses no batch.
    ///
    /// # Errors
    /// `Corrupt` for a batch that fails its checksum or does not decode, with collection, partition and
    /// offset; `Invalid` (`offset_out_of_range`) where the records were removed before they were read;
    /// else see [`ClientError`].
    pub async fn next_batch(&mut self) -> Result<Option<FetchedBatch>, ClientError> {
        poll_fn(|context| self.poll_next_batch(context)).await
    }

    /// Returns the next record of any partition; `None` once every partition has reached its `until`, and
    /// after an error that does not pass. The same as the stream's.
    ///
    /// Cancel safety: dropping the future loses no record.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        poll_fn(|context| self.poll_next_record(context)).await
    }

    /// Returns the numbers of the partitions that are read.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.places.numbers()
    }

    /// Returns the offset behind what was handed out of a partition: where another consumer would go on.
    /// `None` for a partition that is not read.
    pub fn position(&self, partition: u32) -> Option<u64> {
        let next = self.places.get(partition)?.next();
        let unread = self.unread.as_ref().filter(|unread| unread.partition() == partition);
        Some(unread.map_or(next, Unread::position))
    }

    /// Returns the offset behind the last record of a partition that may be read, as last heard; `None`
    /// for a partition that is not read.
    pub fn high_watermark(&self, partition: u32) -> Option<u64> {
        self.places.get(partition).map(Place::high_watermark)
    }

    fn poll_next_batch(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<FetchedBatch>, ClientError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if let Some(rest) = self.unread.take().and_then(Unread::into_rest) {
            return Poll::Ready(Ok(Some(rest)));
        }
        let polled = ready!(self.poll_fetched(context));
        Poll::Ready(polled.inspect_err(|error| self.note(error)))
    }

    fn poll_next_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumedRecord, ClientError>>> {
        if self.failed.is_some() {
            return Poll::Ready(None);
        }
        loop {
            if let Some(record) = self.next_unread() {
                return Poll::Ready(Some(record));
            }
            self.unread = None;
            match ready!(self.poll_fetched(context)) {
                Ok(Some(batch)) => self.unread = Some(Unread::new(batch)),
                Ok(None) => return Poll::Ready(None),
                Err(error) => {
                    self.note(&error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Returns the next record of the batch that is being read, without waiting for another.
    pub(crate) fn next_unread(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        if self.failed.is_some() {
            return None;
        }
        let record = self.unread.as_mut()?.next_record()?;
        Some(record.inspect_err(|error| self.note(error)))
    }

    /// Remembers an error that does not pass.
    fn note(&mut self, error: &ClientError) {
        if !error.is_retryable() {
            self.failed = Some(error.clone());
        }
    }

    fn poll_fetched(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<FetchedBatch>, ClientError>> {
        loop {
            while let Some(reply) = &mut self.reply {
                if let Some(parsed) = reply.batches.next() {
                    if let Some(batch) = self.take_batch(parsed)? {
                        return Poll::Ready(Ok(Some(batch)));
                    }
                } else {
                    self.places.advance(reply.partition, reply.next_offset);
                    self.reply = None;
                }
            }
            if self.places.have_ended() {
                return Poll::Ready(Ok(None));
            }
            self.feeds.retain(&self.places);
            let (link, reply) = ready!(self.feeds.poll_reply(context, &mut self.places))?;
            self.take_reply(link, reply);
        }
    }

    fn take_reply(&mut self, link: Arc<Link>, reply: FetchReply) {
        let FetchReply { partition, high_watermark, batches, next_offset, .. } = reply;
        self.places.hear(partition, high_watermark);
        let batches = Parts::new(batches);
        self.reply = Some(Reply { link, partition, high_watermark, next_offset, batches });
    }

    /// Checks the next batch of the reply; `None` where none of it was asked for.
    fn take_batch(
        &mut self,
        parsed: Result<Batch, BatchError>,
    ) -> Result<Option<FetchedBatch>, ClientError> {
        let Some(reply) = &self.reply else { return Ok(None) };
        let partition = reply.partition;
        let corrupt = |offset, source| ClientError::Corrupt {
            collection: Arc::clone(&self.collection),
            partition,
            offset,
            source: Arc::new(source),
        };
        let position = self.places.get(partition).map_or(0, Place::next);
        let batch = parsed.map_err(|source| corrupt(position, source))?;
        let admission = self.places.admit(partition, &batch).map_err(|reason| {
            ClientError::Protocol { address: reply.link.address().to_owned(), reason }
        })?;
        let Admission::Range { from, until } = admission else {
            self.places.pass(partition, &batch);
            return Ok(None);
        };
        let offset = batch.base_offset();
        batch.verify_crc().map_err(|source| corrupt(offset, source))?;
        let records = batch.records(DECOMPRESS_LIMIT).map_err(|source| corrupt(offset, source))?;
        self.places.pass(partition, &batch);
        let name = (Arc::clone(&self.collection), partition);
        let range = (from, until);
        Ok(Some(FetchedBatch::new(name, reply.high_watermark, batch, records, range)))
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_record(context)
    }
}

/// Finds out what the options ask for.
async fn places(
    client: &Client,
    collection: &str,
    options: &ConsumerOptions,
) -> Result<Places, ClientError> {
    let known = client.list_offsets(collection, Vec::new()).await?;
    let known: BTreeMap<u32, list_offsets_reply::Item> =
        known.into_iter().map(|item| (item.partition, item)).collect();
    let wanted: BTreeMap<u32, StartAt> = if options.partitions.is_empty() {
        known.keys().map(|partition| (*partition, options.start)).collect()
    } else {
        options.partitions.clone()
    };
    let times = timed(client, collection, &wanted).await?;
    let mut places = Places::default();
    for (partition, start) in wanted {
        let item = known.get(&partition).ok_or_else(|| ClientError::Request {
            code: ErrorCode::PartitionNotFound,
            message: format!(
                "collection '{collection}' has no partition {partition}, but {}",
                known.len()
            ),
        })?;
        let start = match start {
            StartAt::Earliest => (start, item.log_start),
            StartAt::Offset(offset) => (start, offset),
            StartAt::Latest => (StartAt::Offset(item.log_end), item.log_end),
            StartAt::TimestampMs(_) => {
                let offset = times.get(&partition).copied().unwrap_or(item.log_end);
                (StartAt::Offset(offset), offset)
            }
        };
        let until = options.until.get(&partition).copied();
        places.insert(partition, start, until, item.log_end);
    }
    Ok(places)
}

/// Asks for the offsets that times stand for.
async fn timed(
    client: &Client,
    collection: &str,
    wanted: &BTreeMap<u32, StartAt>,
) -> Result<BTreeMap<u32, u64>, ClientError> {
    let timed = wanted.iter().filter(|(_, start)| matches!(start, StartAt::TimestampMs(_)));
    let items: Vec<list_offsets_request::Item> = timed
        .map(|(partition, start)| list_offsets_request::Item {
            partition: *partition,
            position: Some(start.position()),
        })
        .collect();
    if items.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = client.list_offsets(collection, items).await?;
    Ok(found.into_iter().map(|item| (item.partition, item.offset)).collect())
}
