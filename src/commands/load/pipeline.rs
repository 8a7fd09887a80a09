//! From parsed records to acknowledged batches.
//!
//! One task owns all lanes; it sends where there is room and takes answers while it waits. Nothing is
//! lost when its future is dropped at an await: a record is in its lane before anything is awaited,
//! and a batch leaves its lane only when it is sent.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use prkdb_client::Clock;
use prkdb_types::{Compression, limits::PRODUCER_WINDOW_BATCHES};
use tokio::time::Instant;

use super::{
    lane::{Cut, Entry, Lane},
    link::{Link, next_answer},
    offsets::Offsets,
    progress::Progress,
    read::{Item, Place, Record},
    rejects::Rejects,
    report::Tally,
    resume::Marks,
    source::{Chunk, Source},
    sticky::Sticky,
};
use crate::commands::{
    failure::{Failure, Result},
    output::readable_size,
};

/// Puts that wait for one before them with a key of the same lane.
pub(super) const PUTS_WAITING: usize = 1024;
/// Batches answered before a checkpoint is written: half of what a server remembers.
pub(super) const SAVE_BATCHES: usize = PRODUCER_WINDOW_BATCHES / 2;

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
    /// The time of records without their own.
    pub stamps: Stamps,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record that came by a pipe waits for others; `None` = until its batch is full.
    pub linger: Option<Duration>,
    /// The longest key.
    pub max_key: u64,
    /// The longest value.
    pub max_value: u64,
    /// Whether the bytes of records are kept until they are answered.
    pub keeps_raw: bool,
}

/// The time of records without their own.
#[derive(Clone, Debug)]
pub(crate) enum Stamps {
    /// When the run began: a resumed one must make the same bytes.
    Fixed(i64),
    /// When each is read.
    Clock(Arc<dyn Clock>),
}

impl Stamps {
    fn now_ms(&self) -> i64 {
        match self {
            Self::Fixed(ms) => *ms,
            Self::Clock(clock) => clock.now_ms(),
        }
    }
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
    /// What an earlier run stored out of turn.
    pub marks: Marks,
    /// Where records without a key go.
    pub sticky: Sticky,
    /// Whether nothing more is read.
    pub is_stopping: bool,
    /// No record at or behind this byte of the input is sent any more.
    pub stop_at: Option<u64>,
    /// Records of batches that failed and may be stored all the same.
    pub(super) in_doubt: usize,
    /// Prints what was written.
    pub(super) offsets: Option<Offsets<'a>>,
    /// Since when records are collected.
    open_since: Option<Instant>,
    rejects: Option<Rejects>,
    pub(super) save: Option<Save<'a>>,
    progress: Progress,
    started: Instant,
    admitted: u64,
}

impl<'a> Pipeline<'a> {
    /// Prepares a run.
    pub(crate) fn new(link: Link, options: Options, progress: Progress) -> Self {
        let lanes = usize::try_from(link.lanes()).unwrap_or(usize::MAX);
        let sticky = Sticky::begin(link.producer_id(), link.lanes());
        Self {
            link,
            options,
            lanes: vec![Lane::default(); lanes],
            tally: Tally::default(),
            read_to: Place::default(),
            rejected_to: 0,
            marks: Marks::default(),
            sticky,
            is_stopping: false,
            stop_at: None,
            in_doubt: 0,
            offsets: None,
            open_since: None,
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

    /// Prints what is written.
    pub(crate) fn with_offsets(&mut self, offsets: Offsets<'a>) {
        self.offsets = Some(offsets);
    }

    /// Ends what is printed of each record; what was printed so far.
    pub(crate) fn take_offsets(&mut self) -> Option<Offsets<'a>> {
        self.offsets.take()
    }

    /// Returns what was done, with the offsets that each partition gave.
    pub(crate) fn tally(&self) -> Tally {
        let offsets = (0..).zip(&self.lanes);
        let partitions = offsets
            .filter_map(|(number, lane)| lane.offsets.map(|(first, last)| (number, first, last)))
            .collect();
        Tally { partitions, ..self.tally.clone() }
    }

    /// Returns the producer's id.
    pub(crate) fn producer_id(&self) -> u64 {
        self.link.producer_id()
    }

    /// Takes everything from the source and waits for every answer.
    ///
    /// # Errors
    /// An error that no later record can mend; what was answered is counted.
    pub(crate) async fn run(&mut self, source: &mut Source) -> Result {
        while !self.is_stopping {
            let Some(chunk) = self.next_chunk(source).await? else {
                if !self.is_stopping {
                    self.marks.end()?;
                }
                break;
            };
            let items = chunk.map_err(|error| {
                Failure::io(format_args!("read {}", self.options.input), &error)
            })?;
            for item in items {
                self.item(item).await?;
                if self.is_stopping {
                    break;
                }
            }
            self.progress.set(self.read_to.offset, self.tally.written);
        }
        for partition in 0..self.lanes.len() {
            self.lane(partition).close();
        }
        self.settle().await?;
        self.flush_rejects()
    }

    /// Waits for records while answers are taken. Where records come when they come, what is collected is
    /// sent after its linger, unless a batch of its partition is under way.
    async fn next_chunk(&mut self, source: &mut Source) -> Result<Option<Chunk>> {
        let linger = self.options.linger.filter(|_| source.is_live);
        loop {
            if self.is_stopping {
                return Ok(None);
            }
            if let Ok(chunk) = source.chunks.try_recv() {
                return Ok(Some(chunk));
            }
            let can_send = |lane: &Lane| lane.is_open() && lane.in_flight.is_empty();
            let due = match (linger, self.open_since) {
                (Some(linger), Some(since)) if self.lanes.iter().any(can_send) => {
                    since.checked_add(linger)
                }
                _ => None,
            };
            let waiting = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                chunk = source.chunks.recv() => return Ok(chunk),
                answer = next_answer(&mut self.link) => self.take(answer)?,
                () = waiting => self.send_open(can_send).await?,
            }
        }
    }

    /// Cuts what is being collected, and sends it.
    async fn send_open(&mut self, is_wanted: impl Fn(&Lane) -> bool) -> Result {
        for partition in 0..self.lanes.len() {
            if is_wanted(self.lane(partition)) {
                self.lane(partition).close();
                self.send_waiting(partition).await?;
            }
        }
        if !self.lanes.iter().any(Lane::is_open) {
            self.open_since = None;
        }
        Ok(())
    }

    /// Sends what waits until everything is answered that is still to be sent.
    async fn settle(&mut self) -> Result {
        let is_unsettled = |stop_at| move |lane: &Lane| !lane.is_settled(stop_at);
        while let Some(partition) = self.lanes.iter().position(is_unsettled(self.stop_at)) {
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
    /// The first of [`Pipeline::run`]; those behind it are waited for all the same.
    pub(crate) async fn drain(&mut self, limit: Duration) -> Result {
        self.stop(0);
        let deadline = Instant::now() + limit;
        let mut drained = Ok(());
        while self.lanes.iter().any(|lane| !lane.in_flight.is_empty()) {
            let next = tokio::time::timeout_at(deadline, next_answer(&mut self.link));
            let Ok(answer) = next.await else { break };
            let is_last = answer.is_none();
            let taken = self.take(answer);
            drained = drained.and(taken);
            if is_last {
                break;
            }
        }
        drained
    }

    /// Returns how many records were sent about which nothing is known.
    pub(crate) fn unanswered(&self) -> usize {
        let under_way = self.lanes.iter().flat_map(|lane| &lane.in_flight);
        under_way.map(|batch| batch.entries.len()).sum::<usize>() + self.in_doubt
    }

    /// Reads nothing more, and sends nothing that does not stand whole before this byte of the input.
    pub(super) fn stop(&mut self, at: u64) {
        self.is_stopping = true;
        self.stop_at = Some(self.stop_at.map_or(at, |before| before.min(at)));
    }

    async fn item(&mut self, item: Item) -> Result {
        let Item { start, end, content, raw } = item;
        self.marks.pass(start, end)?;
        if start.record < self.options.skip {
            self.read_to = end;
            return Ok(());
        }
        self.pace().await?;
        if self.is_stopping {
            // An answer came meanwhile that ends the run before this record.
            return Ok(());
        }
        match content.and_then(|record| self.checked(record)) {
            Err(reason) => self.reject(start, end, &raw, &reason),
            Ok(record) => self.record(record, start, end, raw).await,
        }
    }

    async fn record(&mut self, record: Record, start: Place, end: Place, raw: Vec<u8>) -> Result {
        let before = self.sticky;
        let (partition, left) = self.place(&record);
        self.read_to = end;
        if let Some(left) = left {
            // Nothing without a key comes here soon; a batch that is full leaves nothing to cut.
            self.lane(left).close();
        }
        let is_done = start.offset < self.lane(partition).done_to;
        let mut is_ready = false;
        if let (false, Link::Dry) = (is_done, &self.link) {
            self.tally.written += 1;
            self.tally.bytes += u64::try_from(record.payload()).unwrap_or(u64::MAX);
        } else if !is_done {
            let raw = if self.options.keeps_raw { raw } else { Vec::new() };
            let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.options.stamps.now_ms());
            let entry = Entry { record, timestamp_ms, start, raw };
            let cut = self.options.cut;
            is_ready = self.lane(partition).push(entry, cut, before);
            if self.options.linger.is_some() && self.open_since.is_none() {
                self.open_since = Some(Instant::now());
            }
        }
        if let Some(left) = left {
            self.send_waiting(left).await?;
        }
        if is_ready { self.send_waiting(partition).await } else { Ok(()) }
    }

    /// Returns the lane of a record, and the one that records without a key leave for it.
    fn place(&mut self, record: &Record) -> (usize, Option<usize>) {
        let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(partition) = record.partition.filter(|_| self.link.has_partitions()) {
            return (index(partition), None);
        }
        if let Some(key) = &record.key {
            return (index(self.link.lane(key)), None);
        }
        let length = super::lane::length(record);
        let left = self.sticky.place(length, self.options.cut, self.link.lanes());
        (index(self.sticky.partition), left.map(index))
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
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let wrong = over("key", key, self.options.max_key)
            .or_else(|| over("value", value, self.options.max_value))
            .or_else(|| self.link.refusal(&record));
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

    /// Waits for one answer.
    pub(super) async fn answer(&mut self) -> Result {
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
