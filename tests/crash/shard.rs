//! A load on a whole shard, and its model.

#[path = "shard/transactions.rs"]
mod transactions;

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use prkdb::storage::{
    CleanDone, CleanJob, CleanStep, Overdue, Shard, ShardOptions, StorageError,
    clock::{Rng as _, SeededRng},
    disk::sim::SimDisk,
    log::{
        PrepareMode,
        entry::{Entry, LogId, Payload},
    },
    sequencer::{
        Answer, CheckedBatch, Condition, KeyRules, Keyless, Sequencer, SequencerLimits, Verdict,
        WriteRequest,
    },
};
use prkdb_types::{
    BatchBuilder, Compression, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
    headers::{Operation, Ttl},
};

use super::rig::{DIR, new_disk};
pub(crate) use super::state::{Life, Model, Record, Sent};

pub(crate) const COLLECTION: u32 = 1;
const PARTITIONS: u32 = 3;
/// A collection without key index, and its one partition.
const EVENTS: u32 = 2;
const EVENTS_PARTITION: u32 = 4;
const EVENTS_PRODUCER: i64 = 30;
pub(crate) const TERM: u64 = 4;
/// How long values of partition 3 last that state nothing else.
const PARTITION_TTL_MS: u64 = 700;
pub(crate) const LIMITS: SequencerLimits = SequencerLimits {
    entry_bytes_max: 64 << 10,
    in_flight_bytes_max: 1 << 20,
    in_flight_entries_max: 16,
    index_bytes_max: u64::MAX,
};

/// How long tombstones stay.
pub(crate) const TOMBSTONE_GRACE_MS: u64 = 300;

/// A checkpoint is due after so many bytes of log.
pub(crate) const CHECKPOINT_BYTES: u64 = 12 << 10;

pub(crate) fn open(disk: &SimDisk) -> Shard {
    open_with(disk, u64::MAX)
}

pub(crate) fn open_with(disk: &SimDisk, checkpoint_bytes: u64) -> Shard {
    try_open_with(disk, checkpoint_bytes).unwrap()
}

pub(crate) fn try_open(disk: &SimDisk) -> Result<Shard, StorageError> {
    try_open_with(disk, u64::MAX)
}

pub(crate) fn try_open_with(disk: &SimDisk, checkpoint_bytes: u64) -> Result<Shard, StorageError> {
    try_open_in(disk, DIR, checkpoint_bytes)
}

pub(crate) fn try_open_in(
    disk: &SimDisk,
    dir: &str,
    checkpoint_bytes: u64,
) -> Result<Shard, StorageError> {
    let (options, rng) = (options(checkpoint_bytes), &mut SeededRng::new(1));
    let opened = Shard::open(Arc::new(disk.clone()), Path::new(dir), &options, rng, 1000);
    opened.map(|(shard, _)| shard)
}

pub(crate) fn options(checkpoint_bytes: u64) -> ShardOptions {
    ShardOptions {
        shard: 1,
        cluster_id: [5; 16],
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        tail_cache_bytes: 4 << 10,
        producer_bytes_max: 1 << 20,
        checkpoint_bytes,
        tombstone_grace_ms: TOMBSTONE_GRACE_MS,
    }
}

/// Returns whether records of a partition go that are not the latest of their keys.
pub(crate) fn is_compacted(partition: u32) -> bool {
    matches!(partition, 1 | 2)
}

fn partition_of(key: &[u8]) -> u32 {
    1 + u32::from(key[0]) % PARTITIONS
}

pub(crate) fn drive(shard: &Shard) {
    loop {
        if let Some(job) = shard.next_prepare() {
            let result = job.run(PrepareMode::Allocate);
            shard.prepared(job, result).unwrap();
        } else if let Some(job) = shard.next_flush() {
            let result = job.run();
            shard.flushed(job, result).unwrap();
        } else {
            return;
        }
    }
}

/// A shard and its model, entry by entry.
pub(crate) struct Load {
    pub(crate) disk: SimDisk,
    pub(crate) shard: Shard,
    sequencer: Sequencer,
    rng: SeededRng,
    gathered: Model,
    /// After the entry of each index.
    pub(crate) models: Vec<Model>,
    /// Every record of each partition: time, key, value.
    pub(crate) streams: BTreeMap<u32, Vec<Record>>,
    /// Boundary, entries appended, entries synced.
    pub(crate) moments: Vec<(u64, usize, usize)>,
    /// When the records of each partition were appended.
    pub(crate) appended: BTreeMap<u32, Vec<i64>>,
    /// Boundaries while a checkpoint was written.
    pub(crate) checkpoints: Vec<Range<u64>>,
    /// Boundaries from the beginning of a cleaning to the checkpoint that committed it.
    pub(crate) cleanings: Vec<Range<u64>>,
    cleaning_since: Option<u64>,
    /// A cleaning whose segment is written.
    written: Option<(CleanJob, CleanDone)>,
    cleans: bool,
    pub(crate) takes_checkpoints: bool,
}

/// Takes a checkpoint if one is due.
pub(crate) fn checkpoint(shard: &Shard) -> bool {
    let Some(job) = shard.next_checkpoint() else { return false };
    let (finished, result) = job.run();
    shard.checkpointed(finished, &result);
    result.unwrap();
    true
}

impl Load {
    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    pub(crate) fn drive(&self) {
        drive(&self.shard);
    }

    fn append(&mut self, payload: Payload) {
        let id = LogId { term: TERM, index: self.models.len() as u64 };
        self.shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
        self.models.push(self.gathered.clone());
        let appended = self.models.len();
        self.moments.push((self.disk.boundary_count(), appended, appended - 1));
        self.drive();
        self.moments.push((self.disk.boundary_count(), appended, appended));
        self.shard.set_committed(Some(id));
        for applied in self.shard.apply_all(&[id]).unwrap() {
            self.sequencer.resolved(applied.sequence);
        }
        while let Some(job) = self.shard.next_sidecar() {
            let result = job.run();
            self.shard.sidecar_done(&job, result);
        }
        let before = self.disk.boundary_count();
        if self.takes_checkpoints && checkpoint(&self.shard) {
            self.checkpoints.push(before..self.disk.boundary_count());
            if let Some(since) = self.cleaning_since.take() {
                self.cleanings.push(since..self.disk.boundary_count());
            }
        }
        if self.cleans {
            self.clean();
        }
    }

    /// Does what cleaning there is to do.
    pub(crate) fn clean(&mut self) {
        self.shard.forget_removed();
        // What was written stands beside the log for as long as an entry takes.
        if let Some((job, done)) = self.written.take() {
            self.shard.cleaned(job, done, &mut || {}).unwrap();
        }
        while let Some(step) = self.shard.next_cleaning() {
            let since = self.disk.boundary_count();
            match step {
                CleanStep::Purge(up_to) => {
                    self.shard.purge(up_to).unwrap();
                    self.drive();
                }
                CleanStep::Clean(job) => {
                    let done = job.run(&mut |_| {}).unwrap();
                    self.cleaning_since.get_or_insert(since);
                    self.written = Some((job, done));
                    break;
                }
            }
        }
        while let Some(job) = self.shard.next_sidecar() {
            let result = job.run();
            self.shard.sidecar_done(&job, result);
        }
    }

    /// Lets the partition of events begin later where it holds too much.
    fn trim(&mut self) {
        self.take();
        for Overdue { partition, point, .. } in self.shard.overdue(self.now_ms()) {
            self.accept(&WriteRequest::trim(partition, point, 0)).unwrap();
            self.gathered.log_starts.insert(partition, point.log_start);
        }
    }

    fn streamed(&mut self, partition: u32, record: Record) {
        self.streams.entry(partition).or_default().push(record);
    }

    fn take(&mut self) {
        if let Some(write) = self.sequencer.take_entry() {
            self.gathered.stamp(write.append_time_ms);
            for (partition, records) in &self.streams {
                let appended = self.appended.entry(*partition).or_default();
                appended.resize(records.len(), write.append_time_ms);
            }
            self.append(Payload::Normal(write));
        }
    }

    fn accept(&mut self, request: &WriteRequest) -> Option<u64> {
        loop {
            let now_ms = self.now_ms();
            match self.shard.decide(&mut self.sequencer, request, now_ms) {
                Verdict::Accepted { base_offset, .. } => return Some(base_offset),
                Verdict::Full | Verdict::WaitFor(_) => self.take(),
                Verdict::Answered { answer: Answer::Absent { .. }, .. } => return None,
                answered @ Verdict::Answered { .. } => panic!("{answered:?}"),
            }
        }
    }

    /// Ten milliseconds an entry.
    fn now_ms(&self) -> i64 {
        10 * i64::try_from(self.models.len()).unwrap()
    }

    fn stamp(&self, producer: i64) -> ProducerStamp {
        let base_sequence = self.gathered.producers.get(&producer).map_or(0, |s| s.next_sequence);
        ProducerStamp { id: producer, epoch: 0, base_sequence }
    }

    fn sent(&mut self, producer: i64, request: WriteRequest, base_offset: u64, count: i32) {
        let next_sequence = self.stamp(producer).base_sequence + count;
        let sent = Sent { request, base_offset, next_sequence };
        self.gathered.producers.insert(producer, sent);
    }

    /// A put or a delete of one key; a put of a key below 6 carries a producer.
    fn write_one(&mut self) {
        let key = [u8::try_from(self.below(18)).unwrap()];
        let partition = partition_of(&key);
        let (collection, bytes) = (COLLECTION, Bytes::copy_from_slice(&key));
        if self.below(5) == 0 {
            let request = WriteRequest::Delete {
                partition,
                collection,
                key: bytes,
                timestamp_ms: 3,
                producer: None,
                condition: Condition::None,
            };
            let was_live = self.gathered.live().any(|(live, _)| live.as_slice() == key);
            let deleted = self.accept(&request);
            // What ends between the two is there still.
            assert!(deleted.is_some() >= was_live || self.gathered.lives.contains_key(&key[..]));
            if let Some(offset) = deleted {
                self.gathered.keys.remove(&key[..]);
                self.gathered.lives.remove(&key[..]);
                self.gathered.next_offsets.insert(partition, offset + 1);
                self.streamed(partition, (3, Some(key.to_vec()), None));
            }
            return;
        }
        let len = usize::try_from(self.below(500)).unwrap();
        let value = vec![self.rng.next_u64().to_le_bytes()[0]; len];
        let producer = (key[0] < 6).then_some(10 + i64::from(partition));
        let ttl_ms = self.below(600);
        let request = WriteRequest::Put {
            partition,
            collection,
            key: bytes,
            value: Bytes::from(value.clone()),
            timestamp_ms: 3,
            producer: producer.map(|producer| self.stamp(producer)),
            condition: Condition::None,
            ttl: (ttl_ms < 200).then_some(Ttl::Ms(ttl_ms)),
            headers: Vec::new(),
        };
        let offset = self.accept(&request).unwrap();
        self.streamed(partition, (3, Some(key.to_vec()), Some(value.clone())));
        self.gathered.keys.insert(key.to_vec(), (value, offset));
        self.gathered.lives.remove(&key[..]);
        if ttl_ms < 200 {
            self.gathered.lives.insert(key.to_vec(), Life::For(ttl_ms));
        } else if partition == 3 {
            self.gathered.lives.insert(key.to_vec(), Life::For(PARTITION_TTL_MS));
        }
        self.gathered.next_offsets.insert(partition, offset + 1);
        if let Some(producer) = producer {
            self.sent(producer, request, offset, 1);
        }
    }

    /// A batch of a producer: keys may repeat in it, and some are tombstones.
    fn write_batch(&mut self) {
        let partition = u32::try_from(1 + self.below(PARTITIONS.into())).unwrap();
        let producer = 20 + i64::from(partition);
        let mut builder = BatchBuilder::new(self.stamp(producer), Compression::Lz4);
        let mut records = Vec::new();
        for _ in 0..=self.below(6) {
            let key = [u8::try_from(u64::from(partition - 1) + 3 * self.below(6)).unwrap()];
            let value = (self.below(4) > 0).then(|| vec![7; 40]);
            builder.push(4, Some(&key), value.as_deref(), &[]).unwrap();
            records.push((key, value));
        }
        let count = i32::try_from(records.len()).unwrap();
        let rules = KeyRules {
            bytes_max: 100,
            value_bytes_max: 1000,
            records_max: 4096,
            decompressed_bytes_max: 1 << 20,
            number: partition,
            partition_of: &partition_of,
            keyless: Keyless::Refused,
        };
        let bytes = builder.finish().unwrap().to_bytes();
        let batch = CheckedBatch::check(bytes, Some(&rules)).unwrap();
        let request = WriteRequest::Batch { partition, collection: COLLECTION, batch };
        let offset = self.accept(&request).unwrap();
        for (version, (key, value)) in (offset..).zip(records) {
            self.streamed(partition, (4, Some(key.to_vec()), value.clone()));
            self.gathered.lives.remove(&key[..]);
            if partition == 3 && value.is_some() {
                self.gathered.lives.insert(key.to_vec(), Life::For(PARTITION_TTL_MS));
            }
            match value {
                Some(value) => self.gathered.keys.insert(key.to_vec(), (value, version)),
                None => self.gathered.keys.remove(&key[..]),
            };
            self.gathered.next_offsets.insert(partition, version + 1);
        }
        self.sent(producer, request, offset, count);
    }

    /// Tombstones for keys that are expired.
    fn sweep(&mut self) {
        self.take();
        let now_ms = self.now_ms();
        let keys_max = usize::try_from(1 + self.below(3)).unwrap();
        let Some(expired) = self.shard.expired(now_ms, keys_max, 1000) else { return };
        let (partition, collection) = (expired.partition, expired.collection);
        let request = WriteRequest::Sweep {
            partition,
            collection,
            keys: expired.keys.clone(),
            reason: Operation::Expired,
        };
        let offset = self.accept(&request).unwrap();
        for (at, (key, version)) in (offset..).zip(expired.keys) {
            assert_eq!(self.gathered.keys.remove(&key[..]).unwrap().1, version);
            let life = self.gathered.lives.remove(&key[..]);
            assert!(matches!(life, Some(Life::Until(end_ms)) if end_ms <= now_ms), "{life:?}");
            self.gathered.next_offsets.insert(partition, at + 1);
            self.streamed(partition, (now_ms, Some(key.to_vec()), None));
        }
    }

    /// Goes on until there are so many entries.
    pub(crate) fn go_on(&mut self, entries: usize) {
        while self.models.len() < entries {
            for _ in 0..=self.below(4) {
                match self.below(10) {
                    0 | 1 => self.write_batch(),
                    2 | 3 => self.write_events(),
                    4 => self.sweep(),
                    5 => self.trim(),
                    6 => self.write_transaction(),
                    _ => self.write_one(),
                }
            }
            self.take();
            if self.below(12) == 0 {
                self.shard.mark_synced();
                self.drive();
            }
        }
    }

    /// Goes on with events alone: the keys grow cold, and are cleaned where they stand.
    pub(crate) fn go_on_without_keys(&mut self, entries: usize) {
        while self.models.len() < entries {
            self.write_events();
            self.trim();
            self.take();
            self.shard.mark_synced();
            self.drive();
        }
    }

    /// Events, with and without keys, whose times go up and down.
    fn write_events(&mut self) {
        let mut builder = BatchBuilder::new(self.stamp(EVENTS_PRODUCER), Compression::Zstd);
        let mut records = Vec::new();
        for _ in 0..=self.below(20) {
            let time = i64::try_from(self.below(1000)).unwrap()
                + 10 * i64::try_from(self.models.len()).unwrap();
            let key = (self.below(2) == 0).then(|| vec![1, 2]);
            let value = Some(self.rng.next_u64().to_le_bytes().repeat(4));
            builder.push(time, key.as_deref(), value.as_deref(), &[]).unwrap();
            records.push((time, key, value));
        }
        let count = i32::try_from(records.len()).unwrap();
        let batch = CheckedBatch::check(builder.finish().unwrap().to_bytes(), None).unwrap();
        let (partition, collection) = (EVENTS_PARTITION, EVENTS);
        let request = WriteRequest::Batch { partition, collection, batch };
        let offset = self.accept(&request).unwrap();
        self.gathered.next_offsets.insert(partition, offset + u64::try_from(count).unwrap());
        records.into_iter().for_each(|record| self.streamed(partition, record));
        self.sent(EVENTS_PRODUCER, request, offset, count);
    }
}

pub(crate) fn run(seed: u64, entries: usize) -> Load {
    run_with(seed, entries, u64::MAX)
}

pub(crate) fn run_with(seed: u64, entries: usize, checkpoint_bytes: u64) -> Load {
    run_all(seed, entries, checkpoint_bytes, false)
}

/// As [`run_with`], and the log is cleaned.
pub(crate) fn run_cleaned(seed: u64, entries: usize) -> Load {
    run_all(seed, entries, CHECKPOINT_BYTES, true)
}

pub(crate) fn run_all(seed: u64, entries: usize, checkpoint_bytes: u64, cleans: bool) -> Load {
    let disk = new_disk();
    disk.record();
    let shard = open_with(&disk, checkpoint_bytes);
    let mut load = Load {
        disk,
        shard,
        sequencer: Sequencer::open(TERM, LIMITS),
        rng: SeededRng::new(seed),
        gathered: Model::default(),
        models: Vec::new(),
        streams: BTreeMap::new(),
        moments: Vec::new(),
        checkpoints: Vec::new(),
        appended: BTreeMap::new(),
        cleanings: Vec::new(),
        cleaning_since: None,
        written: None,
        cleans,
        takes_checkpoints: true,
    };
    load.append(Payload::Blank);
    let commands = (1..=EVENTS_PARTITION)
        .map(|partition| ShardCommand {
            id: partition.into(),
            version: 1,
            change: Some(ShardChange::PartitionPut(PartitionPut {
                partition,
                collection: if partition == EVENTS_PARTITION { EVENTS } else { COLLECTION },
                number: (partition - 1) % PARTITIONS,
                key_index: partition != EVENTS_PARTITION,
                // The keys of one partition last for some time unless they say otherwise.
                ttl_ms: if partition == 3 { PARTITION_TTL_MS } else { 0 },
                compact: is_compacted(partition),
                retention_bytes: if partition == EVENTS_PARTITION { 5000 } else { 0 },
                ..PartitionPut::default()
            })),
        })
        .collect();
    load.accept(&WriteRequest::Control { commands, timestamp_ms: 0 }).unwrap();
    load.take();
    load.go_on(entries);
    load
}
