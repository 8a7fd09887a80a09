//! The sequencer of a shard: the only place where a write is accepted or rejected.
//!
//! It belongs to the shard's leader, is driven by one task, and decides in order of arrival: is the
//! partition here, is it a repeat, does its condition hold; then it gives offsets and a time. What it
//! accepts is gathered into entries, each with the term it was decided in and a number one above the
//! last: every replica finds by that chain which entries were decided on what really came before
//! them. Its knowledge is the applied state and, over it, what it has accepted and not yet seen
//! applied ([`overlay`](self)).
//!
//! Pure: no clock (the time is an argument), no thread, no input or output.

mod overlay;
mod record;
mod request;
mod stamp;
mod sweep;
mod transaction;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use prkdb_types::{
    Batch, BatchBuilder, BatchHeader, Compression, ErrorCode, ProducerStamp, ShardCommand,
    command::ShardChange,
};

use self::overlay::{Known, Overlay, Version};
use self::record::Record;
pub use self::request::{
    Answer, CheckedBatch, Condition, Conflict, ConflictKind, KeyRules, Keyless, Refusal, Verdict,
    WriteRequest, check_key, check_value,
};
pub use self::stamp::LogClock;
pub use self::transaction::{Basis, KeyChange, KeyRead, Transaction};
use super::{
    kv::{
        catalog::CONTROL_PARTITION,
        state::State,
        window::{ProducerKey, Remembered, Window, WindowVerdict},
    },
    log::{
        entry::{FRAME_HEADER_BYTES, Frame, WRITE_PREFIX_BYTES, Write},
        header::ENTRY_HEADER_BYTES,
    },
};

/// Marks the entry of a remembered batch as a number of this sequencer: it is not applied yet. The
/// applied state may have forgotten a producer that the overlay still knows, so it cannot be asked.
pub(super) const PENDING: u64 = 1 << 63;

/// Limits of one sequencer.
#[derive(Clone, Copy, Debug)]
pub struct SequencerLimits {
    /// Largest entry in bytes.
    pub entry_bytes_max: u64,
    /// Most bytes of entries taken and not yet applied.
    pub in_flight_bytes_max: u64,
    /// Most entries taken and not yet applied.
    pub in_flight_entries_max: usize,
    /// Most bytes of the key index: beyond it new keys are refused.
    pub index_bytes_max: u64,
}

/// Decides the writes of one shard in one term.
#[derive(Debug)]
pub struct Sequencer {
    term: u64,
    limits: SequencerLimits,
    overlay: Overlay,
    /// Number of the entry being gathered.
    gathering: u64,
    frames: Vec<Frame>,
    frames_bytes: u64,
    now_ms: i64,
    /// The append time of the last entry taken.
    taken_ms: i64,
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
}

/// A write of one key.
struct KeyWrite<'a> {
    partition: u32,
    collection: u32,
    key: &'a Bytes,
    condition: Condition,
}

/// Where a write goes.
struct Target {
    partition: u32,
    base_offset: u64,
}

impl Sequencer {
    /// Opens in a term, when its first entry is applied here.
    pub fn open(term: u64, limits: SequencerLimits) -> Self {
        Self {
            term,
            limits,
            overlay: Overlay::default(),
            gathering: 1,
            frames: Vec::new(),
            frames_bytes: 0,
            now_ms: 0,
            taken_ms: i64::MIN,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Opens again in a term, when everything that was proposed in it is resolved. Its chain goes on
    /// behind `last`, the sequence of the last entry of the term that is not void.
    pub fn reopen(term: u64, last: u64, limits: SequencerLimits) -> Self {
        Self { gathering: last + 1, ..Self::open(term, limits) }
    }

    /// Returns the term it decides in.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns how many bytes are accepted and not taken.
    pub fn pending_bytes(&self) -> u64 {
        self.frames_bytes
    }

    /// Returns entries and bytes that are taken and not applied.
    pub fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len(), self.in_flight_bytes)
    }

    /// Returns whether another entry may be taken.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.limits.in_flight_entries_max
            && self.in_flight_bytes < self.limits.in_flight_bytes_max
    }

    /// Decides one write on the applied state and what was accepted before.
    pub fn decide(&mut self, state: &State, request: &WriteRequest, now_ms: i64) -> Verdict {
        // The shard's time never goes back, whoever led before and whatever the clock does.
        self.now_ms = now_ms.max(self.now_ms).max(state.log_time_ms());
        // What is applied the state knows better: all that is left is later than any snapshot of it.
        self.overlay.resolved(state.applied_sequence(self.term));
        let verdict = match request {
            WriteRequest::Put {
                partition,
                collection,
                key,
                value,
                timestamp_ms,
                producer,
                condition,
                ttl,
                headers,
            } => {
                let (partition, collection) = (*partition, *collection);
                let write = KeyWrite { partition, collection, key, condition: *condition };
                let record = Record { timestamp_ms: *timestamp_ms, key, ttl: *ttl, headers };
                record
                    .batch(*producer, Some(value))
                    .and_then(|batch| self.decide_put(state, &write, batch, ttl.is_some()))
            }
            WriteRequest::Delete {
                partition,
                collection,
                key,
                timestamp_ms,
                producer,
                condition,
            } => {
                let (partition, collection) = (*partition, *collection);
                let write = KeyWrite { partition, collection, key, condition: *condition };
                let record = Record { timestamp_ms: *timestamp_ms, key, ttl: None, headers: &[] };
                record
                    .batch(*producer, None)
                    .and_then(|batch| self.decide_delete(state, &write, batch))
            }
            WriteRequest::Batch { partition, collection, batch } => {
                self.decide_batch(state, *partition, *collection, batch)
            }
            WriteRequest::Sweep { partition, collection, keys, reason } => {
                self.decide_sweep(state, (*partition, *collection), keys, *reason)
            }
            WriteRequest::Transaction(transaction) => self.decide_transaction(state, transaction),
            WriteRequest::Control { commands, timestamp_ms } => {
                self.decide_control(state, commands, *timestamp_ms)
            }
        };
        // Both sides are verdicts: the error side is the one that ends the decision early.
        verdict.unwrap_or_else(|verdict| verdict)
    }

    /// Seals what was accepted into one entry. `None` if there is nothing.
    pub fn take_entry(&mut self) -> Option<Arc<Write>> {
        if self.frames.is_empty() {
            return None;
        }
        let write = Write {
            sequencer_term: self.term,
            sequence: self.gathering,
            append_time_ms: self.now_ms,
            frames: std::mem::take(&mut self.frames),
        };
        self.in_flight.push_back((self.gathering, self.frames_bytes));
        self.in_flight_bytes += self.frames_bytes;
        self.frames_bytes = 0;
        self.taken_ms = self.now_ms;
        self.gathering += 1;
        Some(Arc::new(write))
    }

    /// Hears that the entry of this number, and those before it, are applied.
    pub fn resolved(&mut self, sequence: u64) {
        while let Some((entry, bytes)) = self.in_flight.front().copied()
            && entry <= sequence
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
        self.overlay.resolved(sequence);
    }

    fn target(&self, state: &State, partition: u32) -> Result<Target, Verdict> {
        match self.overlay.next_offset(state, partition) {
            Some(base_offset) => Ok(Target { partition, base_offset }),
            None => Err(refused(
                ErrorCode::PartitionNotFound,
                format!("partition {partition} is not in this shard"),
            )),
        }
    }

    /// Answers a repeat, refuses what its producer's window does not allow.
    fn check_window(
        &self,
        state: &State,
        partition: u32,
        header: &BatchHeader,
    ) -> Result<(), Verdict> {
        if !header.has_producer() {
            return Ok(());
        }
        let key = ProducerKey { partition, producer: header.producer_id };
        let (window, pending) = self.overlay.window(state, key);
        let sequence = header.base_sequence;
        let (code, message) = match Window::judge(window, header) {
            WindowVerdict::Next => return Ok(()),
            WindowVerdict::Repeat(known) => {
                return Err(repeat(partition, known, state, key));
            }
            WindowVerdict::Reused => (
                ErrorCode::SequenceReused,
                format!("sequence {sequence} was used for another batch"),
            ),
            WindowVerdict::Gap(expected) => {
                (ErrorCode::OutOfOrder, format!("sequence {sequence}, expected {expected}"))
            }
            WindowVerdict::Unknown => (
                ErrorCode::UnknownProducer,
                format!("producer {} is not known and starts at {sequence}", header.producer_id),
            ),
            WindowVerdict::Fenced(epoch) => (
                ErrorCode::OutOfOrder,
                format!(
                    "epoch {} of the producer is over, it is at {epoch}",
                    header.producer_epoch
                ),
            ),
        };
        // What is under way may be what this one rests on: the answer waits for it.
        let answer = Answer::Refused(Refusal::new(code, message));
        Err(Verdict::Answered { rests_on: pending, answer })
    }

    fn decide_put(
        &mut self,
        state: &State,
        write: &KeyWrite<'_>,
        batch: Batch,
        has_ttl: bool,
    ) -> Result<Verdict, Verdict> {
        let target = self.target(state, write.partition)?;
        let header = batch.header();
        self.check_window(state, write.partition, &header)?;
        self.check_condition(state, write)?;
        self.check_index_memory(state, write)?;
        let expires = has_ttl || state.has_ttl(write.partition);
        let version = Some(Version { offset: target.base_offset, expires });
        let verdict = self.accept(state, &target, batch, &header)?;
        self.overlay.write_key(self.gathering, write.collection, write.key.clone(), version);
        Ok(verdict)
    }

    fn decide_delete(
        &mut self,
        state: &State,
        write: &KeyWrite<'_>,
        batch: Batch,
    ) -> Result<Verdict, Verdict> {
        let target = self.target(state, write.partition)?;
        let header = batch.header();
        self.check_window(state, write.partition, &header)?;
        self.check_condition(state, write)?;
        if let (None, rests_on) = self.version(state, write)? {
            let answer = Answer::Absent { partition: write.partition };
            return Err(Verdict::Answered { rests_on, answer });
        }
        let verdict = self.accept(state, &target, batch, &header)?;
        self.overlay.write_key(self.gathering, write.collection, write.key.clone(), None);
        Ok(verdict)
    }

    /// Returns the version of a key and the entry that rests on.
    fn version(
        &self,
        state: &State,
        write: &KeyWrite<'_>,
    ) -> Result<(Option<u64>, Option<u64>), Verdict> {
        let place = (write.partition, write.collection);
        match self.overlay.version(state, place, write.key, self.seen_time(state)) {
            Known::After(entry) => Err(Verdict::WaitFor(entry)),
            Known::Version(version, rests_on) => Ok((version, rests_on)),
        }
    }

    /// Returns the time of the log that an entry taken now sees, and the entry that brings it: an entry
    /// rests on what precedes it, and so does what is expired.
    fn seen_time(&self, state: &State) -> (i64, u64) {
        (self.taken_ms.max(state.log_time_ms()), self.gathering - 1)
    }

    fn decide_batch(
        &mut self,
        state: &State,
        partition: u32,
        collection: u32,
        checked: &CheckedBatch,
    ) -> Result<Verdict, Verdict> {
        let target = self.target(state, partition)?;
        self.check_window(state, partition, &checked.header)?;
        let is_keyed = state.has_index(collection);
        if is_keyed && state.index_bytes() > self.limits.index_bytes_max {
            return Err(self.index_memory(state));
        }
        // The clone counts a reference.
        let verdict = self.accept(state, &target, checked.batch.clone(), &checked.header)?;
        if is_keyed {
            self.overlay.write_opaque(self.gathering, partition);
        }
        Ok(verdict)
    }

    fn decide_control(
        &mut self,
        state: &State,
        commands: &[ShardCommand],
        timestamp_ms: i64,
    ) -> Result<Verdict, Verdict> {
        let target = self.target(state, CONTROL_PARTITION)?;
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        for command in commands {
            builder
                .push(timestamp_ms, None, Some(&command.to_record()), &[])
                .map_err(|error| refused(error.code(), error.to_string()))?;
        }
        let batch = builder.finish().map_err(|error| refused(error.code(), error.to_string()))?;
        let header = batch.header();
        let verdict = self.accept(state, &target, batch, &header)?;
        for command in commands {
            if let Some(ShardChange::PartitionDrop(drop)) = &command.change {
                self.overlay.drop_partition(self.gathering, drop.partition);
            }
        }
        Ok(verdict)
    }

    fn check_condition(&self, state: &State, write: &KeyWrite<'_>) -> Result<(), Verdict> {
        if write.condition == Condition::None {
            return Ok(());
        }
        let (version, rests_on) = self.version(state, write)?;
        let message = match (write.condition, version) {
            (Condition::IfAbsent, Some(version)) => {
                format!("the key has a value, version {version}")
            }
            (Condition::IfVersion(wanted), Some(version)) if wanted != version => {
                format!("the key has version {version}, not {wanted}")
            }
            (Condition::IfVersion(wanted), None) => {
                format!("the key has no value, and not version {wanted}")
            }
            _ => return Ok(()),
        };
        let code = ErrorCode::VersionMismatch;
        let refusal = Refusal { current_version: version, ..Refusal::new(code, message) };
        let answer = Answer::Refused(refusal);
        Err(Verdict::Answered { rests_on, answer })
    }

    /// Beyond its share of memory the index takes no new keys.
    fn check_index_memory(&self, state: &State, write: &KeyWrite<'_>) -> Result<(), Verdict> {
        let is_over = state.index_bytes() > self.limits.index_bytes_max;
        if is_over && !self.overlay.may_have(state, write.collection, write.key) {
            return Err(self.index_memory(state));
        }
        Ok(())
    }

    fn index_memory(&self, state: &State) -> Verdict {
        let (bytes, limit) = (state.index_bytes(), self.limits.index_bytes_max);
        refused(
            ErrorCode::IndexMemory,
            format!("the key index has {bytes} bytes, limit {limit} bytes (index-memory)"),
        )
    }

    /// Gives the batch its offset and a frame of the entry being gathered, if that has room.
    fn accept(
        &mut self,
        state: &State,
        target: &Target,
        batch: Batch,
        header: &BatchHeader,
    ) -> Result<Verdict, Verdict> {
        self.check_room((FRAME_HEADER_BYTES + batch.len()) as u64, "write")?;
        Ok(self.place(state, target, batch, header))
    }

    /// Refuses what no entry can take, and asks for another entry where this one is too full.
    fn check_room(&self, bytes: u64, what: &str) -> Result<(), Verdict> {
        let overhead = (ENTRY_HEADER_BYTES + WRITE_PREFIX_BYTES) as u64;
        let limit = self.limits.entry_bytes_max;
        if overhead + bytes > limit {
            let message = format!("{what} is {bytes} bytes, limit {limit} bytes (max-message)");
            return Err(refused(ErrorCode::MessageTooLarge, message));
        }
        if overhead + self.frames_bytes + bytes > limit {
            return Err(Verdict::Full);
        }
        Ok(())
    }

    fn place(
        &mut self,
        state: &State,
        target: &Target,
        mut batch: Batch,
        header: &BatchHeader,
    ) -> Verdict {
        let bytes = (FRAME_HEADER_BYTES + batch.len()) as u64;
        let Target { partition, base_offset } = *target;
        let entry = self.gathering;
        let record_count = header.record_count();
        batch.set_base_offset(base_offset);
        // The leader epoch is informative and 31 bits wide; the entry has the whole term.
        batch.set_leader_epoch(i32::try_from(self.term).unwrap_or(i32::MAX));
        self.overlay.place(entry, partition, base_offset, record_count);
        if header.has_producer() {
            let key = ProducerKey { partition, producer: header.producer_id };
            let remembered = Remembered {
                sequence: header.base_sequence,
                count: record_count,
                crc: header.crc,
                base_offset,
                entry: entry | PENDING,
                append_time_ms: self.now_ms,
            };
            self.overlay.remember(state, key, header.producer_epoch, remembered);
        }
        self.frames.push(Frame { partition, record_count, base_offset, batch });
        self.frames_bytes += bytes;
        Verdict::Accepted { sequence: entry, frame: self.frames.len() - 1, base_offset }
    }
}

fn refused(code: ErrorCode, message: String) -> Verdict {
    Verdict::Answered { rests_on: None, answer: Answer::Refused(Refusal::new(code, message)) }
}

/// Answers a repeat as the write was answered.
fn repeat(partition: u32, known: Remembered, state: &State, key: ProducerKey) -> Verdict {
    // The overlay's copy holds applied batches too; those have a revision in the state.
    let applied = state.windows().get(key).and_then(|window| {
        window.batches().find(|b| b.sequence == known.sequence && b.crc == known.crc).copied()
    });
    let (rests_on, revision) = match applied {
        Some(applied) => (None, Some(applied.entry)),
        None if known.entry & PENDING != 0 => (Some(known.entry & !PENDING), None),
        None => (None, Some(known.entry)),
    };
    let answer = Answer::Duplicate {
        partition,
        base_offset: known.base_offset,
        revision,
        append_time_ms: known.append_time_ms,
    };
    Verdict::Answered { rests_on, answer }
}
