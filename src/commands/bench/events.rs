//! Batches produced to a collection of its own and read from it again.
//!
//! Payloads are random; every batch is encoded when it is sent, every batch that is read is checked and
//! its records are walked. Open loops begin batches at fixed times, and latencies count from these.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{join, join_all, try_join_all};
use prkdb_client::{
    BatchAnswer, BatchAnswers, BatchWriter, Client, Consumer, ConsumerOptions, Purpose, StartAt,
    WriterOptions, wire,
};
use prkdb_types::{BatchBuilder, ErrorCode};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{args::EventArgs, latencies::Latencies, load::offset, machine::random, made::Made};
use crate::commands::{
    failure::{Failure, Result},
    session::{self, Session},
};

/// Random bytes that values are cut from.
const POOL_BYTES: usize = 1 << 20;
/// What a record has beside key and value, at most: for room in a batch.
const RECORD_OVERHEAD: usize = 32;
/// Each batch that is read says when it was due to be sent, in its first value.
const DUE_BYTES: usize = 8;
/// How long a reader waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was seen of a stream.
pub(super) struct Seen {
    /// Of each batch.
    pub latencies: Latencies,
    /// Records that count.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// For how long.
    pub elapsed: Duration,
    /// Batches that failed.
    pub errors: u64,
}

/// A node and a collection on it.
pub(super) struct Events<'a> {
    client: Client,
    collection: String,
    args: &'a EventArgs,
    value_size: usize,
    key_size: usize,
    pool: Vec<u8>,
}

/// How much is produced, and how.
#[derive(Clone, Copy)]
struct Plan {
    started: Instant,
    counts_from: Instant,
    ends: Option<Instant>,
    /// So many batches in all.
    batches: Option<u64>,
    /// Batches begun in a second.
    rate: Option<NonZeroU64>,
}

/// What producers count together.
struct Counted {
    next: Cell<u64>,
    /// Batches that are acknowledged, also those that do not count.
    acknowledged: Cell<u64>,
    latencies: RefCell<Latencies>,
    records: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<Failure>>,
    /// When the last batch that counts was answered.
    ended: Cell<Option<Instant>>,
}

/// A batch without an answer.
struct Waiting {
    begun: Instant,
    bytes: u64,
}

impl<'a> Events<'a> {
    /// Connects and creates the collection.
    ///
    /// # Errors
    /// 4 where no node answers, 2 where the sizes make no batch.
    pub(super) async fn new(session: &Session, args: &'a EventArgs, made: &Made) -> Result<Self> {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (value_size, key_size) = (size(args.value_size), size(args.key_size));
        if !(DUE_BYTES..=POOL_BYTES / 2).contains(&value_size) || key_size > POOL_BYTES / 2 {
            let message = "--value-size: 8 to 524288 bytes, --key-size: up to 524288 bytes";
            return Err(Failure::usage(message).into());
        }
        let client = session.client().await?.with_deadline(None);
        let settings = wire::CollectionSettings {
            partitions: args.partitions,
            key_index: wire::KeyIndex::Off.into(),
            ..Default::default()
        };
        let collection = made.create(&client, settings).await?;
        let pool = random(POOL_BYTES)?;
        Ok(Self { client, collection, args, value_size, key_size, pool })
    }

    /// Measures producing.
    ///
    /// # Errors
    /// Where nothing could be measured.
    pub(super) async fn produce(&self) -> Result<Seen> {
        let started = Instant::now();
        let batches = self.args.bytes.map(|bytes| self.batches(bytes));
        // So many bytes are so many that count.
        let counts_from = if batches.is_some() { started } else { started + self.args.warmup };
        let plan = Plan {
            started,
            counts_from,
            ends: batches.is_none().then(|| counts_from + self.args.duration),
            batches,
            rate: self.batch_rate(),
        };
        self.run(plan, self.args.clients).await
    }

    /// Produces first, then measures reading all of it, as fast as it goes.
    ///
    /// # Errors
    /// Where nothing could be measured, and where what is read is not what was produced.
    pub(super) async fn consume(&self) -> Result<Seen> {
        let started = Instant::now();
        let plan = Plan {
            started,
            counts_from: started,
            ends: None,
            batches: Some(self.batches(self.args.bytes.unwrap_or(2 << 30))),
            rate: None,
        };
        let produced = self.run(plan, 1).await?;
        let ends = self.ends().await?;
        let begun = Instant::now();
        let clients = usize::try_from(self.args.clients).unwrap_or(1);
        let mut shares: Vec<BTreeMap<u32, StartAt>> = vec![BTreeMap::new(); clients];
        for (index, partition) in ends.keys().enumerate() {
            if let Some(share) = shares.get_mut(index % clients) {
                share.insert(*partition, StartAt::Earliest);
            }
        }
        let shares = shares.into_iter().filter(|share| !share.is_empty());
        let readers = shares.map(|partitions| {
            let options =
                ConsumerOptions { partitions, until: ends.clone(), ..ConsumerOptions::default() };
            self.read_all(options)
        });
        let read = try_join_all(readers).await?;
        let elapsed = begun.elapsed();
        let (records, bytes) =
            read.iter().fold((0, 0), |sum, (records, bytes)| (sum.0 + records, sum.1 + bytes));
        if (records, bytes) != (produced.records, produced.bytes) {
            let message = format!("{} records produced, {records} read", produced.records);
            return Err(Failure::of(ErrorCode::Internal, message).into());
        }
        Ok(Seen { latencies: Latencies::new()?, records, bytes, elapsed, errors: 0 })
    }

    /// Measures from when a batch was due to be sent until it was read, at a fixed rate.
    ///
    /// # Errors
    /// As [`Events::consume`].
    pub(super) async fn follow(&self, rate: NonZeroU64) -> Result<Seen> {
        let options = ConsumerOptions { start: StartAt::Latest, ..ConsumerOptions::default() };
        let mut consumer = Consumer::open(&self.client, &self.collection, options)
            .await
            .map_err(|error| session::failure(&error))?;
        let started = Instant::now();
        let counts_from = started + self.args.warmup;
        let ends = counts_from + self.args.duration;
        let plan = Plan {
            started,
            counts_from,
            ends: Some(ends),
            batches: None,
            rate: Some(self.per_batch(rate)),
        };
        let sent = Cell::new(None);
        let is_over = Notify::new();
        let producing = async {
            let seen = self.run_counted(plan, self.args.clients).await;
            // What was not acknowledged may never come.
            sent.set(Some(seen.as_ref().map_or(0, |seen| seen.acknowledged.get())));
            is_over.notify_one();
            seen
        };
        let reading = async {
            let mut seen = Seen {
                latencies: Latencies::new()?,
                records: 0,
                bytes: 0,
                elapsed: self.args.duration,
                errors: 0,
            };
            let mut batches = 0;
            while sent.get().is_none_or(|sent| batches < sent) {
                let next = tokio::select! {
                    next = tokio::time::timeout(PATIENCE, consumer.next_batch()) => next,
                    // All may have been read before the last was acknowledged.
                    () = is_over.notified() => continue,
                };
                let Ok(next) = next else {
                    let message = "a batch that was acknowledged does not come";
                    return Err(Failure::of(ErrorCode::Internal, message).into());
                };
                let Some(batch) = next.map_err(|error| session::failure(&error))? else { break };
                let now = Instant::now();
                let (mut records, mut bytes, mut due) = (0, 0, None);
                for record in batch.records() {
                    let record = record.map_err(|error| session::failure(&error))?;
                    let value = record.value.unwrap_or_default();
                    due = due.or_else(|| value.first_chunk::<DUE_BYTES>().copied());
                    bytes += record.key.map_or(0, <[u8]>::len) + value.len();
                    records += 1;
                }
                batches += 1;
                let due =
                    started + Duration::from_nanos(u64::from_be_bytes(due.unwrap_or_default()));
                if due >= counts_from {
                    seen.latencies.record(now.saturating_duration_since(due));
                    seen.records += records;
                    seen.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
                }
            }
            Ok::<_, crate::commands::failure::Stop>(seen)
        };
        let (produced, read) = join(producing, reading).await;
        let produced = produced?;
        let mut seen = read?;
        seen.errors = produced.errors.get();
        Ok(seen)
    }

    /// Returns the end of each partition.
    async fn ends(&self) -> Result<BTreeMap<u32, u64>> {
        let items = self.client.list_offsets(&self.collection, Vec::new()).await;
        let items = items.map_err(|error| session::failure(&error))?;
        Ok(items.into_iter().map(|item| (item.partition, item.log_end)).collect())
    }

    /// Reads to the end; returns records and bytes.
    async fn read_all(&self, options: ConsumerOptions) -> Result<(u64, u64)> {
        let mut consumer = Consumer::open(&self.client, &self.collection, options)
            .await
            .map_err(|error| session::failure(&error))?;
        let (mut records, mut bytes) = (0_u64, 0_usize);
        while let Some(batch) =
            consumer.next_batch().await.map_err(|error| session::failure(&error))?
        {
            for record in batch.records() {
                let record = record.map_err(|error| session::failure(&error))?;
                bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                records += 1;
            }
        }
        Ok((records, u64::try_from(bytes).unwrap_or(u64::MAX)))
    }

    /// Returns how many batches have about so many bytes of keys and values.
    fn batches(&self, bytes: u64) -> u64 {
        let batch = u64::try_from(self.batch_records() * (self.value_size + self.key_size));
        bytes.div_ceil(batch.unwrap_or(u64::MAX).max(1)).max(1)
    }

    /// Returns how many records a batch has.
    fn batch_records(&self) -> usize {
        let record = self.value_size + self.key_size + RECORD_OVERHEAD;
        let fit = usize::try_from(self.args.batch_bytes).unwrap_or(usize::MAX) / record;
        usize::try_from(self.args.batch_size).unwrap_or(usize::MAX).min(fit).max(1)
    }

    /// Turns records in a second into batches.
    fn per_batch(&self, rate: NonZeroU64) -> NonZeroU64 {
        let records = u64::try_from(self.batch_records()).unwrap_or(u64::MAX);
        NonZeroU64::new(rate.get() / records).unwrap_or(NonZeroU64::MIN)
    }

    fn batch_rate(&self) -> Option<NonZeroU64> {
        self.args.rate.map(|rate| self.per_batch(rate))
    }

    async fn run(&self, plan: Plan, clients: u32) -> Result<Seen> {
        let counted = self.run_counted(plan, clients).await?;
        let ended = counted.ended.get().unwrap_or(plan.counts_from);
        if let Some(failure) = counted.first_error.take().filter(|_| counted.records.get() == 0) {
            return Err(failure.into());
        }
        Ok(Seen {
            records: counted.records.get(),
            bytes: counted.bytes.get(),
            errors: counted.errors.get(),
            elapsed: ended.saturating_duration_since(plan.counts_from),
            latencies: counted.latencies.replace(Latencies::new()?),
        })
    }

    async fn run_counted(&self, plan: Plan, clients: u32) -> Result<Rc<Counted>> {
        let counted = Rc::new(Counted {
            next: Cell::new(0),
            acknowledged: Cell::new(0),
            latencies: RefCell::new(Latencies::new()?),
            records: Cell::new(0),
            bytes: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            ended: Cell::new(None),
        });
        let producers = (0..clients).map(|client| self.producer(plan, client, &counted));
        for ended in join_all(producers).await {
            ended?;
        }
        Ok(counted)
    }

    /// One producer: sends, and counts the answers meanwhile.
    async fn producer(&self, plan: Plan, client: u32, counted: &Counted) -> Result {
        let options = WriterOptions { purpose: Purpose::Events, ..WriterOptions::default() };
        let (writer, answers) = BatchWriter::open(&self.client, &self.collection, options)
            .await
            .map_err(|error| session::failure(&error))?;
        let under_way = Semaphore::new(usize::from(self.args.in_flight));
        let waiting = RefCell::new(BTreeMap::<u32, VecDeque<Waiting>>::new());
        let sending = self.send(plan, client, counted, writer, &under_way, &waiting);
        let counting = self.count(plan, counted, answers, &under_way, &waiting);
        let (sent, ()) = join(sending, counting).await;
        sent
    }

    async fn send(
        &self,
        plan: Plan,
        client: u32,
        counted: &Counted,
        writer: BatchWriter,
        under_way: &Semaphore,
        waiting: &RefCell<BTreeMap<u32, VecDeque<Waiting>>>,
    ) -> Result {
        let mut partition = client % self.args.partitions;
        loop {
            let number = counted.next.get();
            if plan.batches.is_some_and(|batches| number >= batches) {
                break;
            }
            let due = plan.rate.map(|rate| plan.started + offset(number, rate));
            if plan.ends.is_some_and(|ends| due.unwrap_or_else(Instant::now) >= ends) {
                break;
            }
            counted.next.set(number + 1);
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            let Ok(permit) = under_way.acquire().await else { break };
            // Given back by its answer.
            permit.forget();
            let slot = match writer.slot(partition).await {
                Ok(slot) => slot,
                Err(error) => return Err(session::failure(&error).into()),
            };
            let begun = due.unwrap_or_else(Instant::now);
            let stamp_ns = begun.saturating_duration_since(plan.started).as_nanos();
            let stamp_ns = u64::try_from(stamp_ns).unwrap_or(u64::MAX);
            let (batch, records, bytes) = self.encode(&slot, number, stamp_ns)?;
            waiting.borrow_mut().entry(partition).or_default().push_back(Waiting { begun, bytes });
            slot.send(batch, records, 0).map_err(|error| session::failure(&error))?;
            partition = (partition + self.args.clients) % self.args.partitions;
        }
        writer.finish();
        Ok(())
    }

    fn encode(
        &self,
        slot: &prkdb_client::Slot,
        number: u64,
        stamp_ns: u64,
    ) -> Result<(Bytes, u32, u64)> {
        let records = self.batch_records();
        let failed =
            |error: prkdb_types::BatchError| Failure::of(error.code(), format!("encode: {error}"));
        let compression = self.args.compression.into();
        let room = records * (self.value_size + self.key_size + RECORD_OVERHEAD);
        let mut builder = BatchBuilder::with_capacity(slot.stamp(), compression, room);
        let mut first = vec![0; self.value_size];
        let step = self.value_size.max(1);
        let span = self.pool.len() - self.value_size.max(self.key_size);
        let mut at = usize::try_from(number).unwrap_or(0).wrapping_mul(7919) % span;
        let cut = |at: usize, len: usize| self.pool.get(at..at + len).unwrap_or_default();
        for index in 0..records {
            at = (at + step) % span;
            let key = (self.key_size > 0).then(|| cut(at, self.key_size));
            let value = if index == 0 {
                first.copy_from_slice(cut(at, self.value_size));
                if let Some(due) = first.first_chunk_mut::<DUE_BYTES>() {
                    *due = stamp_ns.to_be_bytes();
                }
                &first
            } else {
                cut(at, self.value_size)
            };
            builder.push(1, key, Some(value), &[]).map_err(failed)?;
        }
        let batch = builder.finish().map_err(failed)?.to_bytes();
        let bytes = u64::try_from(records * (self.value_size + self.key_size)).unwrap_or(u64::MAX);
        Ok((batch, u32::try_from(records).unwrap_or(u32::MAX), bytes))
    }

    async fn count(
        &self,
        plan: Plan,
        counted: &Counted,
        mut answers: BatchAnswers,
        under_way: &Semaphore,
        waiting: &RefCell<BTreeMap<u32, VecDeque<Waiting>>>,
    ) {
        while let Some(answer) = answers.next_ack().await {
            let now = Instant::now();
            under_way.add_permits(1);
            let (partition, records, error) = match answer {
                BatchAnswer::Acked(acked) => (acked.partition, acked.records, None),
                BatchAnswer::Failed(failed) => {
                    (failed.partition, failed.records, Some(session::failure(&failed.error)))
                }
                BatchAnswer::NotApplied(batch) => {
                    let message = "not applied: one before it failed";
                    (batch.partition, batch.records, Some(Failure::measurement(message)))
                }
            };
            let answered = waiting.borrow_mut().get_mut(&partition).and_then(VecDeque::pop_front);
            let Some(Waiting { begun, bytes }) = answered else { continue };
            if let Some(failure) = error {
                counted.errors.set(counted.errors.get() + 1);
                counted.first_error.borrow_mut().get_or_insert(failure);
                // Nothing more is sent to a partition that halted.
                under_way.close();
                continue;
            }
            counted.acknowledged.set(counted.acknowledged.get() + 1);
            if now < plan.counts_from || (plan.rate.is_some() && begun < plan.counts_from) {
                continue;
            }
            counted.latencies.borrow_mut().record(now.saturating_duration_since(begun));
            counted.records.set(counted.records.get() + u64::from(records));
            counted.bytes.set(counted.bytes.get() + bytes);
            counted.ended.set(Some(now));
        }
    }
}
