//! The producer itself and its two tasks: one sends, one takes answers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    batch::{BatchAnswers, BatchWriter, Purpose, Slot, WriterOptions},
    client::Client,
    clock::Clock,
    error::ClientError,
    producer::{
        Delivery, ProducerOptions, Record,
        outbox::{Added, Outbox, Turn},
        queue::Filling,
        settings::Settings,
    },
};

/// Sends records in batches, in order per partition, each applied once. Clones share it.
///
/// A record is encoded into the batch of its partition when it is sent. The batch goes out when it is full,
/// when it has waited for [`ProducerOptions::linger`], or, without that, as soon as the window of its
/// partition has room: at most [`ProducerOptions::in_flight`] batches are under way, and a small one (64 KiB)
/// goes out only while fewer than two are.
///
/// A record with a key goes to the key's partition; one without goes to the partition whose batch is being
/// filled, until that is cut. The partitions are those that the collection had when the producer was opened.
///
/// After a batch failed, its partition is halted: what was sent behind it is not applied, records without a
/// key go to other partitions, and a record that belongs to it is refused until [`Self::resume`].
///
/// Call [`Self::close`] at the end: dropping the last clone gives up what is not acknowledged yet, and
/// deliveries say so.
///
/// ```no_run
/// use prkdb_client::{Client, ClientOptions, Producer, ProducerOptions, Record};
///
/// # async fn example() -> Result<(), prkdb_client::ClientError> {
/// let client = Client::connect(ClientOptions::default()).await?;
/// let producer = Producer::open(&client, "events", ProducerOptions::default()).await?;
/// let delivery = producer.send(Record::new(b"clicked").key(b"user:1")).await?;
/// producer.send(Record::new(b"closed").key(b"user:1")).await?;
/// println!("at offset {}", delivery.await?.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// What a producer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerCounts {
    /// Records that are acknowledged.
    pub records: u64,
    /// Batches that are acknowledged.
    pub batches: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
    /// Batches of these that were sent again after an answer was lost.
    pub duplicates: u64,
    /// Batches that failed or were not sent because one before them failed.
    pub failed_batches: u64,
}

/// Ends the producer with its last clone.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What the callers and the tasks share.
#[derive(Debug)]
struct Core {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    writer: BatchWriter,
    outbox: Mutex<Outbox>,
    /// Wakes the sender.
    work: Notify,
    /// Wakes those who wait for room.
    room: Notify,
}

impl Producer {
    /// Opens a producer of a collection.
    ///
    /// # Errors
    /// `NotFound` where the collection does not exist; `Invalid` for a producer id out of range; else see
    /// [`ClientError`].
    pub async fn open(
        client: &Client,
        collection: &str,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let shared = client.shared();
        // Partitions may have been added since they were last asked for.
        if let Some(known) = shared.routes.known(collection) {
            shared.routes.forget(&known);
        }
        let partitions = client.partitions(collection).await?;
        let writer_options = WriterOptions {
            purpose: Purpose::Events,
            producer_id: options.producer_id,
            ..WriterOptions::default()
        };
        let (writer, answers) = BatchWriter::open(client, collection, writer_options).await?;
        let sticky = first_partition(writer.producer_id(), partitions.count());
        let settings = Arc::new(Settings::new(&options, partitions, &writer.limits()));
        let outbox = Mutex::new(Outbox::new(Arc::clone(&settings), sticky));
        let core = Arc::new(Core {
            settings,
            clock: Arc::clone(&shared.options.clock),
            writer,
            outbox,
            work: Notify::new(),
            room: Notify::new(),
        });
        let sender = tokio::spawn(send_batches(Arc::clone(&core)));
        let settler = tokio::spawn(take_answers(Arc::clone(&core), answers));
        let tasks = [sender, settler].map(AbortOnDropHandle::new);
        Ok(Self { handle: Arc::new(Handle { core, _tasks: tasks }) })
    }

    /// Puts a record into the batch of its partition, and waits for room where too many bytes wait for
    /// their answer. The delivery says what became of it.
    ///
    /// Cancel safety: a record whose call was dropped before it returned is not sent.
    ///
    /// # Errors
    /// `Invalid` or `NotFound` for a record that the server would refuse; [`ClientError::Halted`] where its
    /// partition stopped after a failure; else the error that ended the producer. The record is not sent
    /// then.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, ClientError> {
        loop {
            if let Some(delivery) = self.try_send(&record)? {
                return Ok(delivery);
            }
            let core = &self.handle.core;
            let mut room = std::pin::pin!(core.room.notified());
            // Listening begins before looking, so that no change falls between.
            room.as_mut().enable();
            if let Some(delivery) = self.try_send(&record)? {
                return Ok(delivery);
            }
            room.await;
        }
    }

    /// Does what [`Self::send`] does, if there is room; else returns `None`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn try_send(&self, record: &Record<'_>) -> Result<Option<Delivery>, ClientError> {
        let core = &self.handle.core;
        let bytes_max = core.settings.check(record)?;
        let own = match (record.partition, record.key) {
            (Some(partition), _) => Some(partition),
            (None, Some(key)) => Some(core.settings.partitions.of(key)),
            (None, None) => None,
        };
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| core.clock.now_ms());
        match core.with(|outbox| outbox.add(record, bytes_max, own, timestamp_ms))? {
            Added::Full => {
                core.work.notify_one();
                Ok(None)
            }
            Added::Into { delivery, is_news } => {
                if is_news {
                    core.work.notify_one();
                }
                Ok(Some(delivery))
            }
        }
    }

    /// Sends what waits, and returns once everything that was sent before is answered.
    ///
    /// Cancel safety: dropping the future changes nothing for the records.
    ///
    /// # Errors
    /// The first failure of a batch that was waited for; the others are waited for too.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let waiting = self.handle.core.with(Outbox::flush);
        self.handle.core.work.notify_one();
        let mut first = Ok(());
        for delivery in waiting {
            if let Err(error) = delivery.await
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }

    /// Takes no more records, from this clone or another, sends what waits, and returns once everything is
    /// answered.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn close(&self) -> Result<(), ClientError> {
        self.handle.core.with(Outbox::close);
        let flushed = self.flush().await;
        self.handle.core.writer.finish();
        flushed
    }

    /// Returns why a partition is halted: the error of the batch that failed.
    ///
    /// [`ClientError::outcome`] says what is known about that batch.
    pub fn failure(&self, partition: u32) -> Option<ClientError> {
        self.handle.core.with(|outbox| outbox.failure(partition).cloned())
    }

    /// Lets a halted partition take records again, once everything sent to it is answered.
    ///
    /// Nothing is sent again by itself: what failed and is to be sent goes first. The next batch takes the
    /// sequence of the one that failed; if that one was applied after all (its outcome was unknown), the
    /// server refuses the next as `sequence_reused` and the partition halts again: then open another
    /// producer. Open another one too where the server says `unknown_producer`: it has forgotten this one,
    /// which was silent for more than 7 days, or for longest of more than it remembers.
    ///
    /// Cancel safety: dropping the future leaves the partition halted.
    ///
    /// # Errors
    /// The error that ended the producer.
    pub async fn resume(&self, partition: u32) -> Result<(), ClientError> {
        let core = &self.handle.core;
        loop {
            let mut room = std::pin::pin!(core.room.notified());
            // Listening begins before looking, so that no change falls between.
            room.as_mut().enable();
            if core.with(|outbox| outbox.is_idle(partition)) {
                break;
            }
            room.await;
        }
        core.writer.resume(partition)?;
        core.with(|outbox| outbox.resume(partition));
        Ok(())
    }

    /// Returns what was done so far.
    pub fn counts(&self) -> ProducerCounts {
        self.handle.core.with(|outbox| outbox.counts())
    }

    /// Returns the producer's id.
    pub fn producer_id(&self) -> u64 {
        self.handle.core.writer.producer_id()
    }
}

impl Core {
    /// Works on the outbox. Never held across an await.
    fn with<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        work(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, error: &ClientError) {
        self.with(|outbox| outbox.end(Purpose::Events.operation(), error));
        self.work.notify_one();
        self.room.notify_waiters();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.end(&ClientError::Closed);
    }
}

/// Sends batches until the producer ends.
async fn send_batches(core: Arc<Core>) {
    loop {
        match core.with(|outbox| outbox.turn(Instant::now())) {
            Turn::End => return,
            Turn::Wait(None) => core.work.notified().await,
            Turn::Wait(Some(due)) => {
                // Whichever comes first, the outbox is looked at again.
                let _news = timeout_at(due, core.work.notified()).await;
            }
            Turn::Send(partition) => match core.writer.slot(partition).await {
                Ok(slot) => {
                    if let Some((batch, token)) = core.with(|outbox| outbox.take(partition)) {
                        send(&core, slot, batch, token);
                    }
                }
                // Its failure is on the way to the outbox.
                Err(ClientError::Halted { .. }) => {}
                Err(error) => return core.end(&error),
            },
        }
    }
}

/// Encodes a batch under its slot's sequence and sends it.
fn send(core: &Core, slot: Slot, batch: Filling, token: u64) {
    let partition = slot.partition();
    let mut builder = batch.builder;
    builder.set_stamp(slot.stamp());
    let records = builder.count();
    let sent = match builder.finish_bytes() {
        Ok(bytes) => slot.send(bytes, records, token),
        Err(source) => {
            Err(ClientError::Request { code: source.code(), message: source.to_string() })
        }
    };
    let Err(error) = sent else { return };
    core.with(|outbox| {
        outbox.refuse(token, error.clone());
        // The error that halted the writer's partition is on its way.
        if !matches!(error, ClientError::Halted { .. }) {
            outbox.fail(partition, error);
        }
    });
    core.room.notify_waiters();
}

/// Takes answers until there are no more.
async fn take_answers(core: Arc<Core>, mut answers: BatchAnswers) {
    while let Some(answer) = answers.next_ack().await {
        core.with(|outbox| outbox.answer(answer));
        core.work.notify_one();
        core.room.notify_waiters();
    }
    let error = match core.writer.slot(0).await {
        Ok(_) => ClientError::Closed,
        Err(error) => error,
    };
    core.end(&error);
}

/// Spreads producers over the partitions: their ids are random.
fn first_partition(producer_id: u64, partitions: u32) -> u32 {
    u32::try_from(producer_id % u64::from(partitions.max(1))).unwrap_or(0)
}
