//! The caller's side of a batch writer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use prkdb_proto::v1;
use prkdb_types::{ErrorCode, ProducerStamp};
use tokio::sync::Notify;

use crate::{
    batch::{
        BatchAnswers,
        driver::{self, Driver},
        window::{Turn, Windows},
    },
    client::Client,
    error::ClientError,
    lanes::draw_producer_id,
};

/// What a writer's batches are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Puts: the collection has a key index, and every record a key.
    #[default]
    Puts,
    /// Events: a record may have no key, and the collection no index.
    Events,
}

impl Purpose {
    /// Returns the name of the operation in errors.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Puts => "batch-put",
            Self::Events => "produce",
        }
    }
}

/// How a writer begins.
#[derive(Clone, Debug, Default)]
pub struct WriterOptions {
    /// What its batches are for. Default: puts.
    pub purpose: Purpose,
    /// The producer to go on as, of 63 bits; `None` draws a new one.
    pub producer_id: Option<u64>,
    /// The sequence of the next record of each partition, of 31 bits; absent = 0.
    pub sequences: BTreeMap<u32, u32>,
}

/// Sends record batches over one stream. Clones share it.
///
/// A batch waits in memory until it is answered: at most 16 per partition, and together no more than the
/// server's credit and one batch per partition. Read [`BatchAnswers`] at the same time, or a writer that
/// waits for room waits for ever.
///
/// Dropping the last clone and slot is [`Self::finish`].
#[derive(Clone, Debug)]
pub struct BatchWriter {
    handle: Arc<Handle>,
}

/// What the caller's side and the driver share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) purpose: Purpose,
    pub(super) collection: String,
    pub(super) producer_id: i64,
    windows: Mutex<Windows>,
    /// Wakes those who wait for a turn.
    pub(super) room: Notify,
    /// Wakes the driver.
    pub(super) work: Notify,
}

impl Core {
    /// Works on the windows. Never held across an await.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Windows) -> T) -> T {
        work(&mut self.windows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Finishes the writer when its last clone and slot are dropped.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    limits: v1::Limits,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.with(Windows::finish);
        self.core.work.notify_one();
    }
}

impl BatchWriter {
    /// Opens a stream of batches to a collection.
    ///
    /// # Errors
    /// `Invalid` for a producer id or sequence out of range; `NotFound` where the collection does not
    /// exist; else see [`ClientError`].
    pub async fn open(
        client: &Client,
        collection: &str,
        options: WriterOptions,
    ) -> Result<(Self, BatchAnswers), ClientError> {
        let producer_id = match options.producer_id {
            Some(id) => id,
            None => draw_producer_id()?,
        };
        let invalid = |message| ClientError::Request { code: ErrorCode::InvalidArgument, message };
        let producer_id = i64::try_from(producer_id)
            .map_err(|_| invalid(format!("producer id {producer_id} has more than 63 bits")))?;
        for (partition, sequence) in &options.sequences {
            i32::try_from(*sequence).map_err(|_| {
                invalid(format!("sequence {sequence} of partition {partition} is above 2^31 - 1"))
            })?;
        }
        let core = Arc::new(Core {
            purpose: options.purpose,
            collection: collection.to_owned(),
            producer_id,
            windows: Mutex::new(Windows::new(options.sequences)),
            room: Notify::new(),
            work: Notify::new(),
        });
        let (driver, limits) = Driver::open(client, Arc::clone(&core)).await?;
        let answers = driver::spawn(driver);
        Ok((Self { handle: Arc::new(Handle { core, limits }) }, answers))
    }

    /// Returns the producer's id, for a checkpoint.
    pub fn producer_id(&self) -> u64 {
        self.handle.core.producer_id.unsigned_abs()
    }

    /// Returns the limits that the server named when the writer was opened.
    pub fn limits(&self) -> v1::Limits {
        self.handle.limits
    }

    /// Waits for the turn and for room in a partition's window.
    ///
    /// One slot per partition is out at a time; others wait until it is sent or dropped.
    ///
    /// Cancel safety: dropping the future takes no slot.
    ///
    /// # Errors
    /// `Halted` after a batch of the partition failed; else the error that ended the writer.
    pub async fn slot(&self, partition: u32) -> Result<Slot, ClientError> {
        let core = &self.handle.core;
        loop {
            let mut room = std::pin::pin!(core.room.notified());
            // Listening begins before looking, so that no change falls between.
            room.as_mut().enable();
            if let Some(turn) = core.with(|windows| windows.try_turn(partition))? {
                return Ok(Slot { handle: Arc::clone(&self.handle), turn: Some(turn) });
            }
            room.await;
        }
    }

    /// Lets a halted partition go on with the sequence of the batch that failed.
    ///
    /// Call it after the answers of everything sent to the partition have come, and send again what is to
    /// be sent again first: what goes out next takes the place of the batch that failed.
    ///
    /// # Errors
    /// The error that ended the writer.
    pub fn resume(&self, partition: u32) -> Result<(), ClientError> {
        self.handle.core.with(|windows| windows.resume(partition))?;
        self.handle.core.room.notify_waiters();
        Ok(())
    }

    /// Says that nothing more will be sent; [`BatchAnswers`] ends after the last answer.
    pub fn finish(&self) {
        self.handle.core.with(Windows::finish);
        self.handle.core.work.notify_one();
        self.handle.core.room.notify_waiters();
    }
}

/// The right to send one batch to a partition. Dropping it unused gives the right back.
#[derive(Debug)]
pub struct Slot {
    handle: Arc<Handle>,
    turn: Option<Turn>,
}

impl Slot {
    /// Returns the producer, epoch and base sequence to encode the batch with.
    pub fn stamp(&self) -> ProducerStamp {
        ProducerStamp {
            id: self.handle.core.producer_id,
            epoch: 0,
            // Sequences have 31 bits.
            base_sequence: i32::try_from(self.base_sequence()).unwrap_or(0),
        }
    }

    /// Returns the sequence of the batch's first record.
    pub fn base_sequence(&self) -> u32 {
        self.turn.map_or(0, |turn| turn.base_sequence)
    }

    /// Returns the number of the partition in its collection.
    pub fn partition(&self) -> u32 {
        self.turn.map_or(0, |turn| turn.partition)
    }

    /// Sends a batch of `records` records encoded under this slot's stamp. `token` comes back with its
    /// answer.
    ///
    /// # Errors
    /// `Halted` where the partition halted since; `Invalid` where the batch is too large or empty; else
    /// the error that ended the writer. The batch is not sent then and has no answer.
    pub fn send(mut self, batch: Bytes, records: u32, token: u64) -> Result<(), ClientError> {
        let Some(turn) = self.turn else { return Err(ClientError::Closed) };
        self.handle.core.with(|windows| windows.push(turn, batch, records, token))?;
        self.turn = None;
        self.handle.core.room.notify_waiters();
        self.handle.core.work.notify_one();
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.handle.core.with(|windows| windows.give_back(turn));
            self.handle.core.room.notify_waiters();
            self.handle.core.work.notify_one();
        }
    }
}
