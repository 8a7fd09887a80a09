//! From parsed records to acknowledged batches.
//!
//! One task owns all lanes; it sends where there is room and takes answers while it waits. Nothing is
//! lost when its future is dropped at an await: a record is in its lane before anything is awaited,
//! and a batch leaves its lane only when it is sent.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use prkdb_client::{BatchAnswer, BatchAnswers, BatchWriter, ClientError, Partitions, Slot};
use tokio::time::Instant;

use super::{
    args::WINDOW_BATCHES,
    conditional::Puts,
    lane::{Cut, Entry, Lane},
    progress::Progress,
    read::{Item, Place, Record},
    rejects::Rejects,
    report::Tally,
    source::Source,
};
use crate::commands::{
    failure::{Failure, Result},
    output::readable_size,
    session,
};

/// Puts that wait for one before them with a key of the same lane.
const PUTS_WAITING: usize = 1024;
/// Batches answered before a checkpoint is written: half of what a server remembers.
pub(super) const SAVE_BATCHES: usize = WINDOW_BATCHES / 2;

/// How a pipeline works.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The input's name in messages.
    pub input: String,
    /// Where batches are cut.
    pub cut: Cut,
    /// Batches under way for each partition.
    pub window: usize,
    /// Most records in a second.
    pub rate: Option<NonZeroU64>,
    /// Whether the first rejected record ends the run.
    pub stops_at_error: bool,
    /// So many rejected records end it; 0 = none do.
    pub max_errors: u64,
    /// Records to pass over.
    pub skip: u64,
    /// The time of every record.
    pub timestamp_ms: i64,
    /// The longest key.
    pub max_key: u64,
    /// The longest value.
    pub max_value: u64,
    /// Whether the bytes of records are kept until they are answered.
    pub keeps_raw: bool,
}

/// Called when enough was answered for a checkpoint.
pub(crate) type Save<'a> = Box<dyn FnMut(&Pipeline<'_>, &mut Option<Rejects>) -> Result + 'a>;

/// The state of a run.
pub(crate) struct Pipeline<'a> {
    pub(super) link: Link,
    /// How it works.
    pub options: Options,
    /// The lanes, by partition.
    pub lanes: Vec<Lane>,
    /// What was done.
    pub tally: Tally,
    /// Everything before it is in a lane, answered or rejected.
    pub read_to: Place,
    /// Rejected records before it were counted by an earlier run.
    pub rejected_to: u64,
    /// Whether nothing more is read.
    pub is_stopping: bool,
    rejects: Option<Rejects>,
    pub(super) save: Option<Save<'a>>,
    progress: Progress,
    started: Instant,
    admitted: u64,
}

/// Where records go.
pub(crate) enum Link {
    /// As batches over a stream.
    Batches {
        /// Sends.
        writer: BatchWriter,
        /// Answers.
        answers: BatchAnswers,
        /// Finds a key's partition.
        partitions: Arc<Partitions>,
    },
    /// One by one, under a condition.
    Puts(Puts),
    /// Nowhere.
    Dry,
}

impl Link {
    fn lanes(&self) -> u32 {
        match self {
            Self::Batches { partitions, .. } => partitions.count(),
            Self::Puts(puts) => puts.lanes(),
            Self::Dry => 1,
        }
    }

    fn lane(&self, key: &[u8]) -> u32 {
        match self {
            Self::Batches { partitions, .. } => partitions.of(key),
            Self::Puts(puts) => puts.lane(key),
            Self::Dry => 0,
        }
    }
}

impl<'a> Pipeline<'a> {
    /// Prepares a run.
    pub(crate) fn new(link: Link, options: Options, progress: Progress) -> Self {
        let lanes = usize::try_from(link.lanes()).unwrap_or(usize::MAX);
        Self {
            link,
            options,
            lanes: vec![Lane::default(); lanes],
            tally: Tally::default(),
            read_to: Place::default(),
            rejected_to: 0,
            is_stopping: false,
            rejects: None,
            save: None,
            progress,
            started: Instant::now(),
            admitted: 0,
        }
    }

    /// Writes rejected records.
    pub(crate) fn with_rejects(&mut self, rejects: Option<Rejects>) {
        self.rejects = rejects;
    }

    /// Writes checkpoints.
    pub(crate) fn with_save(&mut self, save: Save<'a>) {
        self.save = Some(save);
    }

    /// Returns the producer's id.
    pub(crate) fn producer_id(&self) -> u64 {
        match &self.link {
            Link::Batches { writer, .. } => writer.producer_id(),
            Link::Puts(_) | Link::Dry => 0,
        }
    }

    /// Takes everything from the source and waits for every answer.
    ///
    /// # Errors
    /// An error that no later record can mend; what was answered is counted.
    pub(crate) async fn run(&mut self, source: &mut Source) -> Result {
        while !self.is_stopping {
            let chunk = tokio::select! {
                chunk = source.chunks.recv() => chunk,
                answer = next_answer(&mut self.link) => {
                    self.take(answer)?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            let items = chunk.map_err(|error| {
                Failure::io(format_args!("read {}", self.options.input), &error)
            })?;
            for item in items {
                self.item(item).await?;
                if self.is_stopping {
                    break;
                }
            }
            self.progress.set(self.read_to.offset, self.tally.put);
        }
        for partition in 0..self.lanes.len() {
            self.lane(partition).close();
        }
        self.settle().await?;
        self.flush_rejects()
    }

    /// Sends what waits until everything is answered.
    async fn settle(&mut self) -> Result {
        while let Some(partition) = self.lanes.iter().position(|lane| !lane.is_settled()) {
            self.send_waiting(partition).await?;
            if !self.lane(partition).in_flight.is_empty() {
                self.answer().await?;
            }
        }
        Ok(())
    }

    /// Waits for the answers to what is sent, and sends nothing more.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub(crate) async fn drain(&mut self, limit: Duration) -> Result {
        self.is_stopping = true;
        let deadline = Instant::now() + limit;
        while self.lanes.iter().any(|lane| !lane.in_flight.is_empty()) {
            match tokio::time::timeout_at(deadline, self.answer()).await {
                Ok(answered) => answered?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn item(&mut self, item: Item) -> Result {
        let Item { start, end, content, raw } = item;
        if start.record < self.options.skip {
            self.read_to = end;
            return Ok(());
        }
        self.pace().await?;
        match content.and_then(|record| self.checked(record)) {
            Err(reason) => self.reject(start, end, &raw, &reason),
            Ok(record) => {
                let partition = self.partition(&record.key);
                self.read_to = end;
                if start.offset < self.lane(partition).done_to {
                    return Ok(());
                }
                if let Link::Dry = self.link {
                    self.tally.put += 1;
                    self.tally.bytes += u64::try_from(record.payload()).unwrap_or(u64::MAX);
                    return Ok(());
                }
                let raw = if self.options.keeps_raw { raw } else { Vec::new() };
                let cut = self.options.cut;
                if self.lane(partition).push(Entry { record, start, raw }, cut) {
                    self.send_waiting(partition).await?;
                }
                Ok(())
            }
        }
    }

    fn partition(&self, key: &[u8]) -> usize {
        usize::try_from(self.link.lane(key)).unwrap_or(usize::MAX)
    }

    /// The lane of a partition. The table of partitions gives only numbers that have a lane.
    pub(super) fn lane(&mut self, partition: usize) -> &mut Lane {
        self.lanes.get_mut(partition).expect("a partition's number is below their count")
    }

    fn checked(&self, record: Record) -> std::result::Result<Record, String> {
        let over = |what: &str, bytes: &[u8], limit: u64| {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            (length > limit).then(|| {
                format!("{what} is {}, limit {}", readable_size(length), readable_size(limit))
            })
        };
        let value = record.value.as_deref().unwrap_or_default();
        let wrong = over("key", &record.key, self.options.max_key)
            .or_else(|| over("value", value, self.options.max_value));
        wrong.map_or(Ok(record), Err)
    }

    /// Keeps to the rate while answers are taken.
    async fn pace(&mut self) -> Result {
        let Some(rate) = self.options.rate else { return Ok(()) };
        // Nanoseconds since the start at which the next record may go.
        let due = u128::from(self.admitted) * 1_000_000_000 / u128::from(rate.get());
        let due = self.started + Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
        self.admitted += 1;
        while Instant::now() < due {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                answer = next_answer(&mut self.link) => self.take(answer)?,
            }
        }
        Ok(())
    }

    /// Sends a lane's batches as far as its window goes.
    async fn send_waiting(&mut self, partition: usize) -> Result {
        if let Link::Puts(_) = self.link {
            self.start_put(partition);
            while self.lanes.iter().map(|lane| lane.waiting.len()).sum::<usize>() >= PUTS_WAITING {
                self.answer().await?;
            }
            return Ok(());
        }
        while !self.lane(partition).waiting.is_empty() {
            if !self.lane(partition).returned.is_empty() {
                // Halted: the rest of its answers comes first.
                self.answer().await?;
                continue;
            }
            let lane = self.lane(partition);
            let under_way = lane.in_flight.len();
            if self.save.is_some() && under_way + self.lane(partition).unsaved >= WINDOW_BATCHES {
                self.checkpoint()?;
            }
            if under_way >= self.options.window {
                self.answer().await?;
                continue;
            }
            if let Some(slot) = self.slot(partition).await? {
                self.send(partition, slot)?;
            }
        }
        Ok(())
    }

    /// Sends the next put of a lane, if none is under way.
    pub(super) fn start_put(&mut self, lane: usize) {
        let Link::Puts(puts) = &mut self.link else { return };
        let number = u32::try_from(lane).unwrap_or(u32::MAX);
        let Some(lane) = self.lanes.get_mut(lane).filter(|lane| lane.in_flight.is_empty()) else {
            return;
        };
        if let Some(batch) = lane.waiting.pop_front() {
            puts.start(number, &batch);
            lane.in_flight.push_back(batch);
        }
    }

    /// Waits for a slot while answers are taken; none where the partition halted meanwhile.
    async fn slot(&mut self, partition: usize) -> Result<Option<Slot>> {
        let Link::Batches { writer, .. } = &self.link else { return Ok(None) };
        let writer = writer.clone();
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let slot = writer.slot(number);
        tokio::pin!(slot);
        loop {
            tokio::select! {
                slot = &mut slot => match slot {
                    Ok(slot) => return Ok(Some(slot)),
                    Err(ClientError::Halted { .. }) => {
                        self.answer().await?;
                        return Ok(None);
                    }
                    Err(error) => return Err(session::failure(&error).into()),
                },
                answer = next_answer(&mut self.link) => {
                    self.take(answer)?;
                    if !self.lane(partition).returned.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn send(&mut self, partition: usize, slot: Slot) -> Result {
        let stamp = slot.stamp();
        let timestamp_ms = self.options.timestamp_ms;
        let Some(batch) = self.lane(partition).waiting.pop_front() else { return Ok(()) };
        let records = u32::try_from(batch.entries.len()).unwrap_or(u32::MAX);
        let encoded = batch
            .encode(stamp, timestamp_ms)
            .map_err(|error| Failure::of(error.code(), format!("encode a batch: {error}")))?;
        match slot.send(encoded, records, 0) {
            Ok(()) => self.lane(partition).in_flight.push_back(batch),
            // It halted since; the batch waits for the answers like those before it.
            Err(ClientError::Halted { .. }) => self.lane(partition).waiting.push_front(batch),
            Err(error) => return Err(session::failure(&error).into()),
        }
        Ok(())
    }

    /// Waits for one answer.
    async fn answer(&mut self) -> Result {
        let answer = next_answer(&mut self.link).await;
        self.take(answer)
    }

    fn reject(&mut self, start: Place, end: Place, raw: &[u8], reason: &str) -> Result {
        if start.offset < self.rejected_to {
            self.read_to = end;
            return Ok(());
        }
        self.count_rejected(start, raw, reason)?;
        // Where it ends the run, a later one begins with it: it may have been mended.
        self.read_to = if self.options.stops_at_error { start } else { end };
        Ok(())
    }

    pub(super) fn count_rejected(&mut self, start: Place, raw: &[u8], reason: &str) -> Result {
        self.tally.rejected += 1;
        if self.tally.first_error.is_none() {
            let message = format!("{}:{}: {reason}", self.options.input, start.line + 1);
            self.tally.first_error = Some((start.line + 1, message));
        }
        let is_enough =
            self.options.max_errors > 0 && self.tally.rejected >= self.options.max_errors;
        self.is_stopping |= self.options.stops_at_error || is_enough;
        match &mut self.rejects {
            Some(rejects) => rejects.add(start, raw, reason),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint, where one is asked for.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn checkpoint(&mut self) -> Result {
        let Some(mut save) = self.save.take() else { return Ok(()) };
        let mut rejects = self.rejects.take();
        let saved = save(self, &mut rejects);
        self.rejects = rejects;
        self.save = Some(save);
        for lane in &mut self.lanes {
            lane.unsaved = 0;
        }
        saved
    }

    fn flush_rejects(&mut self) -> Result {
        match &mut self.rejects {
            Some(rejects) => rejects.sync().map(|_| ()),
            None => Ok(()),
        }
    }
}

/// The next answer; never in a dry run.
async fn next_answer(link: &mut Link) -> Option<BatchAnswer> {
    match link {
        Link::Batches { answers, .. } => answers.next_ack().await,
        Link::Puts(puts) => Some(puts.next().await),
        Link::Dry => std::future::pending().await,
    }
}
