//! The batches of a producer, from their first record to their answer.
//!
//! Pure state: each partition has a queue of the batch being filled, those that are full, and how many are
//! under way. It says which partition may send, and tells the fates of batches. Sends nothing and waits for
//! nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    batch::{Acked, BatchAnswer},
    error::ClientError,
    producer::{
        Delivered, Delivery, ProducerCounts, Record,
        delivery::Fate,
        queue::{Filling, Queue},
        settings::Settings,
    },
};

/// The batches of all partitions of one producer.
#[derive(Debug)]
pub(super) struct Outbox {
    settings: Arc<Settings>,
    queues: BTreeMap<u32, Queue>,
    /// Partitions that may send, in turn.
    ready: VecDeque<u32>,
    /// When batches have waited long enough, in order.
    due: VecDeque<(Instant, u32)>,
    /// Where records without a key go until its batch is cut.
    sticky: u32,
    under_way: BTreeMap<u64, UnderWay>,
    next_token: u64,
    buffered_bytes: usize,
    is_closed: bool,
    ended: Option<ClientError>,
    counts: ProducerCounts,
}

/// A batch that waits for its answer.
#[derive(Debug)]
struct UnderWay {
    partition: u32,
    bytes: usize,
    fate: Arc<Fate>,
}

/// What the sender does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Sends a batch of this partition.
    Send(u32),
    /// Waits for news, at most until this instant.
    Wait(Option<Instant>),
    /// Ends.
    End,
}

/// What became of an attempt to add a record.
#[derive(Debug)]
pub(super) enum Added {
    /// It is in a batch; `is_news` = the sender should know.
    Into { delivery: Delivery, is_news: bool },
    /// There is no room at present.
    Full,
}

impl Outbox {
    pub(super) fn new(settings: Arc<Settings>, sticky: u32) -> Self {
        Self {
            settings,
            queues: BTreeMap::new(),
            ready: VecDeque::new(),
            due: VecDeque::new(),
            sticky,
            under_way: BTreeMap::new(),
            next_token: 0,
            buffered_bytes: 0,
            is_closed: false,
            ended: None,
            counts: ProducerCounts::default(),
        }
    }

    /// Encodes a record of at most `bytes_max` bytes into the batch of its partition: `own` is its key's,
    /// where it has one.
    pub(super) fn add(
        &mut self,
        record: &Record<'_>,
        bytes_max: usize,
        own: Option<u32>,
        timestamp_ms: i64,
    ) -> Result<Added, ClientError> {
        self.check_open()?;
        let partition = match own {
            Some(own) => own,
            None => self.sticky()?,
        };
        let settings = &*self.settings;
        let queue = self.queues.entry(partition).or_default();
        if queue.failed.is_some() {
            return Err(ClientError::Halted { partition });
        }
        if self.buffered_bytes > 0 && self.buffered_bytes >= settings.buffer_bytes {
            // Nothing more can come before something goes out.
            self.urge();
            return Ok(Added::Full);
        }
        let mut is_cut = false;
        if !queue.fits(bytes_max, settings) {
            queue.cut();
            is_cut = true;
        }
        let encoded =
            queue.encode(record, bytes_max, timestamp_ms, settings).map_err(|source| {
                ClientError::Request { code: source.code(), message: source.to_string() }
            })?;
        if queue.is_full(settings) {
            queue.cut();
            is_cut = true;
        }
        let mut is_news = queue.list(settings);
        if is_news {
            self.ready.push_back(partition);
        }
        if let Some(due) = encoded.due {
            // The sender waits for the first of them.
            is_news |= self.due.is_empty();
            self.due.push_back((due, partition));
        }
        self.buffered_bytes += encoded.bytes;
        if is_cut {
            self.move_on(partition);
        }
        let delivery = Delivery::new(encoded.fate, encoded.ordinal);
        Ok(Added::Into { delivery, is_news })
    }

    /// Says what the sender does next.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if self.ended.is_some() {
            return Turn::End;
        }
        while let Some((due, partition)) = self.due.front().copied() {
            if due > now {
                break;
            }
            self.due.pop_front();
            if let Some(filling) = self.filling_mut(partition)
                && filling.due.is_some_and(|due| due <= now)
            {
                filling.due = None;
            }
            self.list(partition);
        }
        while let Some(partition) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&partition) else { continue };
            queue.unlist();
            if queue.may_send(&self.settings) {
                return Turn::Send(partition);
            }
        }
        Turn::Wait(self.due.front().map(|(due, _)| *due))
    }

    /// Takes the next batch of a partition to be sent, with the token its answer comes under.
    pub(super) fn take(&mut self, partition: u32) -> Option<(Filling, u64)> {
        let queue = self.queues.get_mut(&partition)?;
        if !queue.may_send(&self.settings) {
            return None;
        }
        let is_cut = queue.full.is_empty();
        if is_cut {
            queue.cut();
        }
        let batch = queue.full.pop_front()?;
        queue.under_way += 1;
        if is_cut {
            self.move_on(partition);
        }
        let token = self.next_token;
        self.next_token += 1;
        let bytes = batch.builder.len_bytes();
        // The reference is for the answer.
        let fate = Arc::clone(&batch.fate);
        self.under_way.insert(token, UnderWay { partition, bytes, fate });
        self.list(partition);
        Some((batch, token))
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, answer: BatchAnswer) {
        match answer {
            BatchAnswer::Acked(acked) => self.acked(&acked),
            BatchAnswer::Failed(failed) => {
                self.refuse(failed.token, failed.error.clone());
                self.fail(failed.partition, failed.error);
            }
            BatchAnswer::NotApplied(batch) => {
                let partition = batch.partition;
                self.refuse(batch.token, ClientError::Halted { partition });
            }
        }
    }

    fn acked(&mut self, acked: &Acked) {
        let Some(batch) = self.release(acked.token) else { return };
        self.counts.records += u64::from(acked.records);
        self.counts.batches += 1;
        self.counts.bytes += u64::try_from(batch.bytes).unwrap_or(u64::MAX);
        self.counts.duplicates += u64::from(acked.duplicate);
        batch.fate.settle(Ok(Delivered {
            partition: acked.partition,
            offset: acked.base_offset,
            append_time_ms: acked.append_time_ms,
        }));
    }

    /// Tells a batch under way that it failed.
    pub(super) fn refuse(&mut self, token: u64, error: ClientError) {
        if let Some(batch) = self.release(token) {
            self.counts.failed_batches += 1;
            batch.fate.settle(Err(error));
        }
    }

    fn release(&mut self, token: u64) -> Option<UnderWay> {
        let batch = self.under_way.remove(&token)?;
        self.buffered_bytes = self.buffered_bytes.saturating_sub(batch.bytes);
        if let Some(queue) = self.queues.get_mut(&batch.partition) {
            queue.under_way -= 1;
        }
        self.list(batch.partition);
        Some(batch)
    }

    /// Halts a partition: what was not sent yet is not applied, and nothing more is taken.
    pub(super) fn fail(&mut self, partition: u32, error: ClientError) {
        let queue = self.queues.entry(partition).or_default();
        queue.failed.get_or_insert(error);
        self.drop_unsent(partition, &ClientError::Halted { partition });
    }

    fn drop_unsent(&mut self, partition: u32, error: &ClientError) {
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        for batch in queue.full.drain(..).chain(queue.filling.take()) {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(batch.builder.len_bytes());
            self.counts.failed_batches += 1;
            batch.fate.settle(Err(error.clone()));
        }
    }

    /// Returns why a partition is halted.
    pub(super) fn failure(&self, partition: u32) -> Option<&ClientError> {
        self.queues.get(&partition)?.failed.as_ref()
    }

    /// Returns whether everything sent to a partition is answered.
    pub(super) fn is_idle(&self, partition: u32) -> bool {
        self.queues.get(&partition).is_none_or(|queue| queue.under_way == 0)
    }

    /// Lets a partition take records again.
    pub(super) fn resume(&mut self, partition: u32) {
        if let Some(queue) = self.queues.get_mut(&partition) {
            queue.failed = None;
        }
    }

    /// Ends everything: what is under way may be applied, what was not sent is not.
    pub(super) fn end(&mut self, operation: &'static str, error: &ClientError) {
        self.ended.get_or_insert_with(|| error.clone());
        let partitions: Vec<u32> = self.queues.keys().copied().collect();
        for partition in partitions {
            self.drop_unsent(partition, error);
        }
        for token in self.under_way.keys().copied().collect::<Vec<u64>>() {
            let reason = error.to_string();
            self.refuse(token, ClientError::UnknownOutcome { operation, reason });
        }
    }

    /// Takes no more records.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Lets every batch go out as soon as it may; returns those that are not answered, as deliveries.
    pub(super) fn flush(&mut self) -> Vec<Delivery> {
        let mut waiting: Vec<Delivery> = Vec::new();
        let under_way = self.under_way.values().map(|batch| &batch.fate);
        waiting.extend(under_way.map(|fate| Delivery::new(Arc::clone(fate), 0)));
        for queue in self.queues.values() {
            let unsent = queue.full.iter().chain(&queue.filling);
            waiting.extend(unsent.map(|batch| Delivery::new(Arc::clone(&batch.fate), 0)));
        }
        self.urge();
        waiting
    }

    /// Lets no batch wait for more records.
    fn urge(&mut self) {
        for partition in self.queues.keys().copied().collect::<Vec<u32>>() {
            if let Some(filling) = self.filling_mut(partition) {
                filling.due = None;
            }
            self.list(partition);
        }
    }

    pub(super) fn counts(&self) -> ProducerCounts {
        self.counts
    }

    fn check_open(&self) -> Result<(), ClientError> {
        match &self.ended {
            Some(error) => Err(error.clone()),
            None if self.is_closed => Err(ClientError::Closed),
            None => Ok(()),
        }
    }

    fn filling_mut(&mut self, partition: u32) -> Option<&mut Filling> {
        self.queues.get_mut(&partition)?.filling.as_mut()
    }

    /// Sends the next record without a key elsewhere, where its partition's batch was cut, after Kafka's
    /// KIP-480.
    fn move_on(&mut self, partition: u32) {
        if partition == self.sticky {
            self.sticky = (partition + 1) % self.settings.partitions.count();
        }
    }

    /// Returns where a record without a key goes: past partitions that are halted.
    fn sticky(&mut self) -> Result<u32, ClientError> {
        let count = self.settings.partitions.count();
        for _ in 0..count {
            if self.failure(self.sticky).is_none() {
                return Ok(self.sticky);
            }
            self.sticky = (self.sticky + 1) % count;
        }
        Err(ClientError::Halted { partition: self.sticky })
    }

    /// Lists a partition that may send.
    fn list(&mut self, partition: u32) {
        if let Some(queue) = self.queues.get_mut(&partition)
            && queue.list(&self.settings)
        {
            self.ready.push_back(partition);
        }
    }
}
