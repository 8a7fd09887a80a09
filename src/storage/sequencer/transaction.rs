//! Transactions: several keys of one shard, decided as one and appended as one entry, or not at all.
//!
//! A transaction read a [`ShardSnapshot`]. What was applied or accepted since then decides:
//!
//! - *Snapshot*: a key it writes must not have been written since. The version tells where the key has a
//!   value now or had one then; the memory of tombstones tells where it had none at both ends.
//! - *Serializable*: also, every key and range it read must be what it was, version by version. Then the
//!   transaction is one that ran alone at this moment.
//!
//! A key that expired since the snapshot was changed: it had a value there and has none now. One that was
//! expired there and is swept later had a tombstone since, which is told as a conflict although nobody can
//! see the difference; the next try finds none.
//!
//! Everything in the overlay is later than any snapshot: what is applied was taken out of it before.
//!
//! The batches are made of the request alone, never of the state, so that a repeat of it has the same
//! bytes and is known by its producer's windows. A delete is therefore a tombstone whether the key has a
//! value or not.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use bytes::Bytes;
use prkdb_types::{
    Batch, BatchBuilder, BatchHeader, Compression, ErrorCode, Isolation, ProducerStamp, limits,
    sequence_after, transaction::RangeRead,
};

use super::{
    Answer, Refusal, Sequencer, Target, Verdict,
    overlay::{Known, Version},
    refused, repeat,
    request::{Conflict, ConflictKind},
};
use crate::storage::{
    bug::bug,
    kv::{
        removals::Since,
        snapshot::ShardSnapshot,
        state::State,
        tree::Root,
        window::{ProducerKey, Remembered, Window, WindowVerdict},
    },
    log::entry::FRAME_HEADER_BYTES,
};

/// A key and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The partition.
    pub partition: u32,
    /// The collection it belongs to.
    pub collection: u32,
    /// The key, not empty.
    pub key: Bytes,
    /// Its next value; `None` takes the value away.
    pub value: Option<Bytes>,
}

/// A key that was read, whether or not it had a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRead {
    /// The partition.
    pub partition: u32,
    /// The collection it belongs to.
    pub collection: u32,
    /// The key.
    pub key: Bytes,
}

/// What a transaction rests on.
#[derive(Clone, Debug)]
pub enum Basis {
    /// Nothing: it read nothing, and nothing can conflict with it.
    Nothing,
    /// What it read.
    Snapshot(Arc<ShardSnapshot>),
    /// A snapshot that is not kept any more: it is refused, unless it is a repeat of one that was
    /// accepted.
    Lost,
}

/// A transaction to be decided. Partitions are named by their number in frames.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// What it rests on.
    pub basis: Basis,
    /// What it is kept from seeing.
    pub isolation: Isolation,
    /// What it writes: each key once, at least one, at most [`limits::MAX_TRANSACTION_WRITES`].
    pub changes: Vec<KeyChange>,
    /// The keys it read; looked at where it is serializable.
    pub reads: Vec<KeyRead>,
    /// The ranges it read, by collection; looked at where it is serializable.
    pub ranges: Vec<RangeRead<u32>>,
    /// The producer's time.
    pub timestamp_ms: i64,
    /// Makes a repeat recognisable: its stamp in each partition it writes to, or none at all.
    pub producers: BTreeMap<u32, ProducerStamp>,
}

/// The batches of one partition, with their headers.
type Part = (u32, Vec<(Batch, BatchHeader)>);

impl Sequencer {
    pub(super) fn decide_transaction(
        &mut self,
        state: &State,
        transaction: &Transaction,
    ) -> Result<Verdict, Verdict> {
        check_shape(transaction)?;
        let parts = batches(transaction)?;
        for (partition, _) in &parts {
            self.check_hosted(state, *partition)?;
        }
        self.check_windows(state, &parts)?;
        match &transaction.basis {
            Basis::Nothing => {}
            Basis::Snapshot(snapshot) => {
                self.check_changes(state, transaction, snapshot)?;
                if transaction.isolation == Isolation::Serializable {
                    self.check_reads(state, transaction, snapshot)?;
                    self.check_ranges(state, transaction, snapshot)?;
                }
            }
            Basis::Lost => {
                let message = "the transaction's snapshot is not kept any more";
                return Err(refused(ErrorCode::SnapshotGone, message.to_owned()));
            }
        }
        self.check_memory(state, transaction)?;
        let frames = parts.iter().flat_map(|(_, batches)| batches);
        let bytes: usize = frames.map(|(batch, _)| FRAME_HEADER_BYTES + batch.len()).sum();
        self.check_room(bytes as u64, "transaction")?;
        self.place_transaction(state, transaction, parts)
    }

    fn place_transaction(
        &mut self,
        state: &State,
        transaction: &Transaction,
        parts: Vec<Part>,
    ) -> Result<Verdict, Verdict> {
        let mut offsets = BTreeMap::new();
        let mut first = None;
        for (partition, batches) in parts {
            for (batch, header) in batches {
                let target = self.target(state, partition)?;
                offsets.entry(partition).or_insert(target.base_offset);
                let verdict = self.place(state, &target, batch, &header);
                first.get_or_insert(verdict);
            }
        }
        for change in &transaction.changes {
            let Some(offset) = offsets.get_mut(&change.partition) else { continue };
            let expires = state.has_ttl(change.partition);
            let version = change.value.is_some().then_some(Version { offset: *offset, expires });
            *offset += 1;
            self.overlay.write_key(self.gathering, change.collection, change.key.clone(), version);
        }
        first.ok_or_else(nothing_written)
    }

    fn check_hosted(&self, state: &State, partition: u32) -> Result<Target, Verdict> {
        self.target(state, partition).map_err(|gone| {
            if state.has_hosted(partition) {
                return gone;
            }
            let message = format!(
                "partition {partition} is not in this shard, and a transaction covers one shard"
            );
            refused(ErrorCode::CrossShard, message)
        })
    }

    /// A repeat is one in every partition, and of one entry; else all must be what comes next.
    fn check_windows(&self, state: &State, parts: &[Part]) -> Result<(), Verdict> {
        if bug!(RepeatNotKnown) {
            return Ok(());
        }
        let mut repeats = Vec::new();
        let mut is_next = false;
        for (partition, batches) in parts {
            for (number, (_, header)) in batches.iter().enumerate() {
                if !header.has_producer() {
                    continue;
                }
                let key = ProducerKey { partition: *partition, producer: header.producer_id };
                let (window, _) = self.overlay.window(state, key);
                match Window::judge(window, header) {
                    WindowVerdict::Repeat(known) => repeats.push((*partition, known, key)),
                    // The ones behind it are judged as if it were there.
                    WindowVerdict::Next if number == 0 => {
                        is_next = true;
                        break;
                    }
                    _ => self.check_window(state, *partition, header)?,
                }
            }
        }
        let Some((partition, known, key)) = repeats.first().copied() else { return Ok(()) };
        let entry = |known: &Remembered, key| match applied(state, key, known) {
            Some(applied) => applied.entry,
            None => known.entry,
        };
        let is_one = repeats.iter().all(|(_, other, at)| entry(other, *at) == entry(&known, key));
        if is_next || !is_one {
            let message = "a part of the transaction was written before with another one";
            return Err(refused(ErrorCode::SequenceReused, message.to_owned()));
        }
        Err(repeat(partition, known, state, key))
    }

    /// Of two that write a key, the first to commit wins.
    fn check_changes(
        &self,
        state: &State,
        transaction: &Transaction,
        snapshot: &ShardSnapshot,
    ) -> Result<(), Verdict> {
        if bug!(WritesNotValidated) {
            return Ok(());
        }
        for KeyChange { partition, collection, key, .. } in &transaction.changes {
            let conflict = |rests_on| {
                Err(conflict(ConflictKind::Written, *collection, key, snapshot, rests_on))
            };
            match self.known(state, *partition, *collection, key)? {
                Known::Version(_, Some(entry)) => return conflict(Some(entry)),
                Known::Version(now, None) => {
                    // One that was put and is expired again is behind neither of the two.
                    let latest = state.leaf(*collection, key).map(|leaf| leaf.version);
                    let latest_then = snapshot.latest(*collection, key).map(|leaf| leaf.version);
                    if now != snapshot.version(*collection, key) || latest != latest_then {
                        return conflict(None);
                    }
                    if now.is_some() {
                        continue;
                    }
                    match state.removals().since(*collection, key, snapshot.revision()) {
                        Since::Untouched => {}
                        Since::Removed => return conflict(None),
                        Since::Forgotten => return Err(forgotten(snapshot)),
                    }
                }
                Known::After(entry) => return Err(Verdict::WaitFor(entry)),
            }
        }
        Ok(())
    }

    fn check_reads(
        &self,
        state: &State,
        transaction: &Transaction,
        snapshot: &ShardSnapshot,
    ) -> Result<(), Verdict> {
        if bug!(ReadsNotValidated) {
            return Ok(());
        }
        for KeyRead { partition, collection, key } in &transaction.reads {
            let (now, rests_on) = match self.known(state, *partition, *collection, key)? {
                Known::Version(now, rests_on) => (now, rests_on),
                Known::After(entry) => return Err(Verdict::WaitFor(entry)),
            };
            if now != snapshot.version(*collection, key) {
                return Err(conflict(ConflictKind::Read, *collection, key, snapshot, rests_on));
            }
        }
        Ok(())
    }

    fn check_ranges(
        &self,
        state: &State,
        transaction: &Transaction,
        snapshot: &ShardSnapshot,
    ) -> Result<(), Verdict> {
        if bug!(RangesNotValidated) {
            return Ok(());
        }
        for RangeRead { collection, from, to } in &transaction.ranges {
            let conflict = |key: &Bytes, rests_on| {
                Err(conflict(ConflictKind::Range, *collection, key, snapshot, rests_on))
            };
            let Some(now) = state.root(*collection) else {
                let message = format!("collection {collection} is not in this shard any more");
                return Err(refused(ErrorCode::PartitionNotFound, message));
            };
            if !bug!(OverlayNotConsulted) {
                if let Some(entry) = self.overlay.unsettled_in(state, *collection) {
                    return Err(Verdict::WaitFor(entry));
                }
                let changed = self.overlay.first_written(*collection, from, to, |key, version| {
                    snapshot.version(*collection, key) != version
                });
                if let Some((key, entry)) = changed {
                    return conflict(&key, Some(entry));
                }
            }
            let (time_ms, taken) = self.seen_time(state);
            let mut expired = state.expired_between(*collection, snapshot.log_time_ms(), time_ms);
            let is_in =
                |key: &&[u8]| RangeBounds::<[u8]>::contains(&(as_slice(from), as_slice(to)), *key);
            if let Some(key) = expired.find(is_in) {
                let rests_on = (time_ms > state.log_time_ms()).then_some(taken);
                return conflict(&Bytes::copy_from_slice(key), rests_on);
            }
            let none = Root::default();
            let then = snapshot.root(*collection).unwrap_or(&none);
            if let Some(key) = then.first_difference(&now, as_slice(from), as_slice(to)) {
                return conflict(&key.into(), None);
            }
        }
        Ok(())
    }

    fn known(
        &self,
        state: &State,
        partition: u32,
        collection: u32,
        key: &Bytes,
    ) -> Result<Known, Verdict> {
        if bug!(OverlayNotConsulted) {
            let version = state.leaf(collection, key).map(|leaf| leaf.version);
            return Ok(Known::Version(version, None));
        }
        self.check_hosted(state, partition)?;
        Ok(self.overlay.version(state, (partition, collection), key, self.seen_time(state)))
    }

    fn check_memory(&self, state: &State, transaction: &Transaction) -> Result<(), Verdict> {
        let is_over = state.index_bytes() > self.limits.index_bytes_max;
        let is_new = |change: &KeyChange| {
            change.value.is_some() && !self.overlay.may_have(state, change.collection, &change.key)
        };
        if is_over && transaction.changes.iter().any(is_new) {
            return Err(self.index_memory(state));
        }
        Ok(())
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(Bytes::as_ref)
}

fn applied(state: &State, key: ProducerKey, known: &Remembered) -> Option<Remembered> {
    let mut batches = state.windows().get(key)?.batches();
    batches.find(|b| (b.sequence, b.crc) == (known.sequence, known.crc)).copied()
}

fn nothing_written() -> Verdict {
    refused(ErrorCode::InvalidArgument, "the transaction writes nothing".to_owned())
}

fn check_shape(transaction: &Transaction) -> Result<(), Verdict> {
    let (count, limit) = (transaction.changes.len(), limits::MAX_TRANSACTION_WRITES);
    if count == 0 {
        return Err(nothing_written());
    }
    if count > limit {
        let message = format!("the transaction writes {count} keys, limit {limit}");
        return Err(refused(ErrorCode::MessageTooLarge, message));
    }
    Ok(())
}

/// Makes the batches, in the order of the partitions' numbers and of the changes.
fn batches(transaction: &Transaction) -> Result<Vec<Part>, Verdict> {
    let mut by_partition: BTreeMap<u32, Vec<&KeyChange>> = BTreeMap::new();
    for change in &transaction.changes {
        by_partition.entry(change.partition).or_default().push(change);
    }
    let records_max = usize::try_from(limits::MAX_KEYED_BATCH_RECORDS).unwrap_or(usize::MAX);
    let mut parts = Vec::with_capacity(by_partition.len());
    for (partition, changes) in by_partition {
        let mut stamp = match transaction.producers.get(&partition) {
            Some(stamp) => *stamp,
            None if transaction.producers.is_empty() => ProducerStamp::NONE,
            None => {
                let message = format!("the producer has no sequence for partition {partition}");
                return Err(refused(ErrorCode::InvalidArgument, message));
            }
        };
        let mut batches = Vec::new();
        for some in changes.chunks(records_max) {
            let invalid = |error: prkdb_types::BatchError| refused(error.code(), error.to_string());
            let mut builder = BatchBuilder::new(stamp, Compression::None);
            for change in some {
                let value = change.value.as_deref();
                builder
                    .push(transaction.timestamp_ms, Some(&change.key), value, &[])
                    .map_err(invalid)?;
            }
            let batch = builder.finish().map_err(invalid)?;
            let header = batch.header();
            if header.has_producer() {
                stamp.base_sequence = sequence_after(stamp.base_sequence, header.record_count());
            }
            batches.push((batch, header));
        }
        parts.push((partition, batches));
    }
    Ok(parts)
}

fn conflict(
    kind: ConflictKind,
    collection: u32,
    key: &Bytes,
    snapshot: &ShardSnapshot,
    rests_on: Option<u64>,
) -> Verdict {
    let what = match kind {
        ConflictKind::Written => "which it writes, was written",
        ConflictKind::Read => "which it read, was changed",
        ConflictKind::Range => "of a range that it read, was changed",
    };
    let message = format!(
        "the transaction conflicts: key \"{}\", {what} since its snapshot at revision {}",
        key.escape_ascii(),
        snapshot.revision()
    );
    // The clone counts a reference.
    let conflict = Some(Conflict { collection, key: key.clone(), kind });
    let refusal = Refusal { conflict, ..Refusal::new(ErrorCode::ConflictDetected, message) };
    Verdict::Answered { rests_on, answer: Answer::Refused(refusal) }
}

fn forgotten(snapshot: &ShardSnapshot) -> Verdict {
    let message = format!(
        "the transaction's snapshot at revision {} is older than the deletes that are remembered",
        snapshot.revision()
    );
    refused(ErrorCode::SnapshotGone, message)
}
