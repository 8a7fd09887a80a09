//! The caller's side of a batch writer.

use std::collections::BTreeMap;

use bytes::Bytes;
use prkdb_proto::v1;

use crate::{batch::BatchAnswers, client::Client, error::ClientError};

/// How a writer begins.
#[derive(Clone, Debug, Default)]
pub struct WriterOptions {
    /// The producer to go on as; `None` draws a new one.
    pub producer_id: Option<u64>,
    /// The sequence of the next record of each partition; absent = 0.
    pub sequences: BTreeMap<u32, u32>,
}

/// Sends record batches over one stream. Clones share it.
#[derive(Clone, Debug)]
pub struct BatchWriter {}

impl BatchWriter {
    /// Opens a stream of batches to a collection.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open(
        client: &Client,
        collection: &str,
        options: WriterOptions,
    ) -> Result<(Self, BatchAnswers), ClientError> {
        let _ = (client, collection, options);
        todo!()
    }

    /// Returns the producer's id, for a checkpoint.
    pub fn producer_id(&self) -> u64 {
        todo!()
    }

    /// Returns the limits of the server.
    pub fn limits(&self) -> v1::Limits {
        todo!()
    }

    /// Waits for the turn and for room in a partition's window (16 batches).
    ///
    /// One slot per partition is out at a time; others wait for it to be sent or dropped.
    ///
    /// Cancel safety: dropping the future takes no slot.
    ///
    /// # Errors
    /// `Halted` after a batch of the partition failed; the error that ended the writer.
    pub async fn slot(&self, partition: u32) -> Result<Slot, ClientError> {
        let _ = partition;
        todo!()
    }

    /// Lets a halted partition go on, with the sequence of the batch that failed.
    ///
    /// # Errors
    /// The error that ended the writer.
    pub fn resume(&self, partition: u32) -> Result<(), ClientError> {
        let _ = partition;
        todo!()
    }

    /// Says that nothing more will be sent; [`BatchAnswers`] ends after the last answer.
    pub fn finish(&self) {
        todo!()
    }
}

/// The right to send one batch to a partition. Dropping it unused gives the right back.
#[derive(Debug)]
pub struct Slot {
    partition: u32,
}

impl Slot {
    /// Returns the producer's id for the batch's header.
    pub fn producer_id(&self) -> u64 {
        todo!()
    }

    /// Returns the producer's epoch for the batch's header.
    pub fn epoch(&self) -> u16 {
        todo!()
    }

    /// Returns the sequence of the batch's first record.
    pub fn base_sequence(&self) -> u32 {
        todo!()
    }

    /// Returns the number of the partition in its collection.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Sends a batch of `records` records encoded under this slot's producer and sequence. `token` comes
    /// back with its answer.
    ///
    /// # Errors
    /// `Halted` where the partition halted since; `Invalid` where the batch is too large or empty. It is
    /// not sent then.
    pub fn send(self, batch: Bytes, records: u32, token: u64) -> Result<(), ClientError> {
        let _ = (batch, records, token);
        todo!()
    }
}
