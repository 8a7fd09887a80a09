//! What became of each batch.

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::ClientError;

/// A batch that is durable and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// As given to [`crate::Slot::send`].
    pub token: u64,
    /// The number of the partition in its collection.
    pub partition: u32,
    /// The sequence of its first record.
    pub base_sequence: u32,
    /// How many records it has.
    pub records: u32,
    /// The offset of its first record.
    pub base_offset: u64,
    /// The entry of the shard's log that holds it.
    pub revision: u64,
    /// The shard's time when it was appended, in milliseconds since 1970.
    pub append_time_ms: i64,
    /// Whether an earlier attempt had been applied, whose answer this is.
    pub duplicate: bool,
}

/// A batch that failed; [`ClientError::outcome`] says what is known about it.
#[derive(Clone, Debug)]
pub struct BatchFailed {
    /// As given to [`crate::Slot::send`].
    pub token: u64,
    /// The number of the partition in its collection.
    pub partition: u32,
    /// The sequence of its first record.
    pub base_sequence: u32,
    /// How many records it has.
    pub records: u32,
    /// Why.
    pub error: ClientError,
}

/// A batch that was not applied because one before it in its partition failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchNotApplied {
    /// As given to [`crate::Slot::send`].
    pub token: u64,
    /// The number of the partition in its collection.
    pub partition: u32,
    /// How many records it has.
    pub records: u32,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum BatchAnswer {
    /// It is applied.
    Acked(Acked),
    /// It failed; its partition is halted. Behind one that failed it is the answer of those that may be applied
    /// all the same: a stream that broke was given them, and no answer ends the doubt.
    Failed(BatchFailed),
    /// One before it failed.
    NotApplied(BatchNotApplied),
}

/// The answers of a writer: one for each batch sent, in order per partition.
///
/// Dropping it stops the writer: what is under way then may be applied or not.
#[derive(Debug)]
pub struct BatchAnswers {
    answers: mpsc::Receiver<BatchAnswer>,
    _driver: AbortOnDropHandle<()>,
}

impl BatchAnswers {
    pub(super) fn new(answers: mpsc::Receiver<BatchAnswer>, driver: AbortOnDropHandle<()>) -> Self {
        Self { answers, _driver: driver }
    }

    /// Returns the next answer; `None` once the writer is finished and every batch is answered.
    ///
    /// Cancel safety: dropping the future loses no answer.
    pub async fn next_ack(&mut self) -> Option<BatchAnswer> {
        self.answers.recv().await
    }
}
