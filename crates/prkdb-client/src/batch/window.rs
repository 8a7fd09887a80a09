//! What a batch writer has sent and not heard of, per partition.
//!
//! Pure state: gives out slots, keeps batches until they are answered, says what to send next and turns
//! the server's replies into answers. Knows no stream and waits for nothing.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prkdb_proto::v1::{
    produce_reply::{Ack, Failed},
    produce_request::Batch,
};
use prkdb_types::{ErrorCode, limits::PRODUCER_WINDOW_BATCHES};

use crate::{
    attempts::{is_judgement, outcome_of},
    batch::{Acked, BatchAnswer, BatchFailed, BatchNotApplied},
    error::{ClientError, Outcome},
    lanes::sequence_after,
};

/// The windows of all partitions of one writer.
#[derive(Debug, Default)]
pub(super) struct Windows {
    partitions: BTreeMap<u32, Window>,
    next_id: u64,
    /// What the current stream was not given yet, in order.
    unsent: VecDeque<(u32, u64)>,
    /// Bytes of all batches without an answer.
    waiting_bytes: u64,
    /// Bytes of those that the current stream was given.
    sent_bytes: u64,
    /// How many bytes the server lets wait.
    credit_bytes: u64,
    /// The largest batch the server takes.
    batch_bytes_max: u64,
    finished: bool,
    ended: Option<ClientError>,
}

#[derive(Debug, Default)]
struct Window {
    next_sequence: u32,
    batches: VecDeque<Waiting>,
    /// A slot is out.
    taken: bool,
    halted: bool,
    /// Counts halts: a slot from before one is worth nothing.
    generation: u64,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    token: u64,
    base_sequence: u32,
    records: u32,
    batch: Bytes,
    /// Given to the current stream, which has not said that it refused it.
    is_sent: bool,
    /// Given to a stream that broke, so that it may be applied.
    in_doubt: bool,
    /// Came before the answers of batches before it.
    answer: Option<BatchAnswer>,
}

impl Waiting {
    fn failed(&self, partition: u32, error: ClientError) -> BatchAnswer {
        BatchAnswer::Failed(BatchFailed {
            token: self.token,
            partition,
            base_sequence: self.base_sequence,
            records: self.records,
            error,
        })
    }
}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) partition: u32,
    pub(super) base_sequence: u32,
    generation: u64,
}

impl Windows {
    pub(super) fn new(sequences: BTreeMap<u32, u32>) -> Self {
        let window = |next_sequence| Window { next_sequence, ..Window::default() };
        let partitions =
            sequences.into_iter().map(|(number, sequence)| (number, window(sequence))).collect();
        Self { partitions, ..Self::default() }
    }

    /// Gives out the turn of a partition, if it is free and the windows have room.
    pub(super) fn try_turn(&mut self, partition: u32) -> Result<Option<Turn>, ClientError> {
        self.check_open()?;
        let is_full = self.waiting_bytes > 0 && self.waiting_bytes >= self.credit_bytes;
        let window = self.partitions.entry(partition).or_default();
        if window.halted {
            return Err(ClientError::Halted { partition });
        }
        if is_full || window.taken || window.batches.len() >= PRODUCER_WINDOW_BATCHES {
            return Ok(None);
        }
        window.taken = true;
        let (base_sequence, generation) = (window.next_sequence, window.generation);
        Ok(Some(Turn { partition, base_sequence, generation }))
    }

    /// Takes a turn back.
    pub(super) fn give_back(&mut self, turn: Turn) {
        if let Some(window) = self.partitions.get_mut(&turn.partition)
            && window.generation == turn.generation
        {
            window.taken = false;
        }
    }

    /// Puts a batch behind the others of its partition.
    pub(super) fn push(
        &mut self,
        turn: Turn,
        batch: Bytes,
        records: u32,
        token: u64,
    ) -> Result<(), ClientError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let bytes = size(&batch);
        let refuse = |code, message| Err(ClientError::Request { code, message });
        if batch.is_empty() || records == 0 {
            let message = "a batch without records cannot be sent".to_owned();
            return refuse(ErrorCode::BatchInvalid, message);
        }
        if bytes > self.batch_bytes_max {
            let limit = self.batch_bytes_max;
            let message =
                format!("a batch of {bytes} bytes is above the server's limit of {limit}");
            return refuse(ErrorCode::MessageTooLarge, message);
        }
        let window = self.partitions.entry(turn.partition).or_default();
        if window.generation != turn.generation || window.halted {
            return Err(ClientError::Halted { partition: turn.partition });
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        self.unsent.push_back((turn.partition, id));
        window.taken = false;
        window.next_sequence = sequence_after(turn.base_sequence, records);
        window.batches.push_back(Waiting {
            id,
            token,
            base_sequence: turn.base_sequence,
            records,
            batch,
            is_sent: false,
            in_doubt: false,
            answer: None,
        });
        Ok(())
    }

    /// Lets a halted partition go on.
    pub(super) fn resume(&mut self, partition: u32) -> Result<(), ClientError> {
        self.check_open()?;
        if let Some(window) = self.partitions.get_mut(&partition) {
            window.halted = false;
        }
        Ok(())
    }

    /// Begins a stream: everything without an answer goes out again, in the order it came.
    pub(super) fn begin_stream(&mut self, credit_bytes: u64, batch_bytes_max: u64) {
        self.credit_bytes = credit_bytes;
        self.batch_bytes_max = batch_bytes_max;
        self.sent_bytes = 0;
        let mut unsent: Vec<(u64, u32)> = Vec::new();
        for (number, window) in &mut self.partitions {
            for waiting in &mut window.batches {
                waiting.in_doubt |= waiting.is_sent;
                waiting.is_sent = false;
                if waiting.answer.is_none() {
                    unsent.push((waiting.id, *number));
                }
            }
        }
        unsent.sort_unstable();
        self.unsent = unsent.into_iter().map(|(id, number)| (number, id)).collect();
    }

    /// Returns whether the credit lets the next batch go out. One alone goes out whatever its size.
    pub(super) fn may_send(&mut self) -> bool {
        while let Some((partition, id)) = self.unsent.front().copied() {
            match self.find(partition, id) {
                Some(waiting) if waiting.answer.is_none() => {
                    let sum = self.sent_bytes.saturating_add(size(&waiting.batch));
                    return self.sent_bytes == 0 || sum <= self.credit_bytes;
                }
                // Its partition's halt has answered it.
                _ => self.unsent.pop_front(),
            };
        }
        false
    }

    /// Takes the batch that [`Self::may_send`] was about.
    pub(super) fn next_to_send(&mut self) -> Option<Batch> {
        let (partition, id) = self.unsent.pop_front()?;
        let waiting = self.find_mut(partition, id)?;
        waiting.is_sent = true;
        // The bytes are kept for a repeat; the clone shares them.
        let batch = waiting.batch.clone();
        self.sent_bytes = self.sent_bytes.saturating_add(size(&batch));
        Some(Batch { id, partition, batch })
    }

    /// Raises what the server lets wait.
    pub(super) fn add_credit(&mut self, bytes: u64) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes);
    }

    /// Takes an acknowledgement; returns what can be told now, in order.
    pub(super) fn ack(&mut self, ack: Ack) -> Vec<BatchAnswer> {
        let Some(waiting) = self.find_mut(ack.partition, ack.id) else { return Vec::new() };
        if waiting.answer.is_some() {
            return Vec::new();
        }
        waiting.answer = Some(BatchAnswer::Acked(Acked {
            token: waiting.token,
            partition: ack.partition,
            base_sequence: waiting.base_sequence,
            records: waiting.records,
            base_offset: ack.base_offset,
            revision: ack.revision,
            append_time_ms: ack.append_time_ms,
            duplicate: ack.duplicate,
        }));
        self.settled(ack.partition)
    }

    /// Returns whether a failure is about a batch that still waits for its answer.
    pub(super) fn expects(&self, failed: &Failed) -> bool {
        let found = self.find(failed.partition, failed.id);
        found.is_some_and(|waiting| waiting.answer.is_none())
    }

    /// Notes that the current stream did not apply a batch nor those after it in its partition. What an earlier
    /// stream made of them stays as much in doubt as it was.
    pub(super) fn not_applied(&mut self, partition: u32, id: u64) {
        if let Some(window) = self.partitions.get_mut(&partition) {
            for waiting in window.batches.iter_mut().filter(|waiting| waiting.id >= id) {
                waiting.is_sent = false;
            }
        }
    }

    /// Returns whether any batch waits for its answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_bytes > 0
    }

    /// Takes a failure: the batch failed, those after it are not applied, the partition halts. Where a stream
    /// that broke was given them, only a judgement of the server ends the doubt.
    pub(super) fn fail(
        &mut self,
        partition: u32,
        id: u64,
        operation: &'static str,
        error: ClientError,
    ) -> Vec<BatchAnswer> {
        let Some(window) = self.partitions.get_mut(&partition) else { return Vec::new() };
        let mut from_here = window.batches.iter_mut().skip_while(|waiting| waiting.id != id);
        let Some(failed) = from_here.next() else { return Vec::new() };
        window.next_sequence = failed.base_sequence;
        let (is_judged, is_not_applied) = said(&error);
        let reason = error.to_string();
        let unknown = || ClientError::UnknownOutcome { operation, reason: reason.clone() };
        let is_doubtful = failed.in_doubt && is_not_applied && !is_judged;
        failed.answer = Some(failed.failed(partition, if is_doubtful { unknown() } else { error }));
        for waiting in from_here {
            waiting.answer = Some(if waiting.in_doubt && !is_judged {
                waiting.failed(partition, unknown())
            } else {
                BatchAnswer::NotApplied(BatchNotApplied {
                    token: waiting.token,
                    partition,
                    records: waiting.records,
                })
            });
        }
        window.halted = true;
        window.taken = false;
        window.generation += 1;
        self.settled(partition)
    }

    /// Ends the writer: what was sent and not answered may be applied, the rest is not.
    pub(super) fn end(&mut self, operation: &'static str, error: &ClientError) -> Vec<BatchAnswer> {
        self.ended = Some(error.clone());
        self.unsent.clear();
        let mut answers = Vec::new();
        for (partition, window) in &mut self.partitions {
            for waiting in window.batches.drain(..) {
                let error = if waiting.is_sent || waiting.in_doubt {
                    let reason = error.to_string();
                    ClientError::UnknownOutcome { operation, reason }
                } else {
                    error.clone()
                };
                let failed = waiting.failed(*partition, error);
                answers.push(waiting.answer.unwrap_or(failed));
            }
        }
        self.waiting_bytes = 0;
        self.sent_bytes = 0;
        answers
    }

    /// Says that no more turns are wanted.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Refuses everything from now on, unless an error does so already.
    pub(super) fn close(&mut self) {
        self.ended.get_or_insert(ClientError::Closed);
    }

    /// Returns whether everything is answered and nothing more will come.
    pub(super) fn is_done(&self) -> bool {
        let idle = |window: &Window| window.batches.is_empty() && !window.taken;
        self.ended.is_some() || (self.finished && self.partitions.values().all(idle))
    }

    fn check_open(&self) -> Result<(), ClientError> {
        match &self.ended {
            Some(error) => Err(error.clone()),
            None if self.finished => Err(ClientError::Closed),
            None => Ok(()),
        }
    }

    /// Takes the answers at the head of a partition's window.
    fn settled(&mut self, partition: u32) -> Vec<BatchAnswer> {
        let mut answers = Vec::new();
        let Some(window) = self.partitions.get_mut(&partition) else { return answers };
        while window.batches.front().is_some_and(|waiting| waiting.answer.is_some()) {
            let Some(waiting) = window.batches.pop_front() else { break };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(size(&waiting.batch));
            if waiting.is_sent {
                self.sent_bytes = self.sent_bytes.saturating_sub(size(&waiting.batch));
            }
            answers.extend(waiting.answer);
        }
        answers
    }

    fn find(&self, partition: u32, id: u64) -> Option<&Waiting> {
        self.partitions.get(&partition)?.batches.iter().find(|waiting| waiting.id == id)
    }

    fn find_mut(&mut self, partition: u32, id: u64) -> Option<&mut Waiting> {
        self.partitions.get_mut(&partition)?.batches.iter_mut().find(|waiting| waiting.id == id)
    }
}

/// Returns whether a failure is a judgement on the batch, and whether it says that this attempt is not applied.
fn said(error: &ClientError) -> (bool, bool) {
    match error {
        ClientError::Refused(refusal) => {
            (is_judgement(refusal.code), outcome_of(refusal) == Outcome::NotApplied)
        }
        _ => (true, true),
    }
}

fn size(batch: &Bytes) -> u64 {
    u64::try_from(batch.len()).unwrap_or(u64::MAX)
}
