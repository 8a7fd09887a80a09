//! A shard with its driver, inline.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use prkdb_types::{
    BatchBuilder, Compression, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
};

use super::{Kept, Model};
use crate::storage::{
    CleanStep, Shard, ShardOptions,
    clock::SeededRng,
    disk::{Disk as _, sim::SimDisk},
    kv::state::Applied,
    log::{
        PrepareMode,
        entry::{Entry, LogId, Payload},
    },
    sequencer::{
        CheckedBatch, Condition, KeyRules, Keyless, Sequencer, SequencerLimits, Verdict,
        WriteRequest,
    },
};

const DIR: &str = "/shard";
pub(super) const COLLECTION: u32 = 1;
pub(super) const PARTITIONS: u32 = 3;

const LIMITS: SequencerLimits = SequencerLimits {
    entry_bytes_max: 64 << 10,
    in_flight_bytes_max: 1 << 20,
    in_flight_entries_max: 16,
    index_bytes_max: u64::MAX,
};

/// A shard with its driver, its one replica's Raft reduced to "what is synced is committed".
pub(super) struct Engine {
    disk: SimDisk,
    pub(super) shard: Shard,
    pub(super) sequencer: Sequencer,
    term: u64,
    last_index: u64,
    pub(super) now_ms: i64,
    /// The times of the entries that were committed.
    pub(super) commits: Vec<i64>,
    pub(super) cleanings: usize,
}

impl Engine {
    pub(super) fn new() -> Self {
        let disk = SimDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut engine = Self::open(disk, 1);
        let commands = (1..=PARTITIONS)
            .map(|partition| ShardCommand {
                id: partition.into(),
                version: 1,
                change: Some(ShardChange::PartitionPut(PartitionPut {
                    partition,
                    collection: COLLECTION,
                    number: partition - 1,
                    key_index: true,
                    compact: partition != PARTITIONS,
                    ..PartitionPut::default()
                })),
            })
            .collect();
        engine.accept(&WriteRequest::Control { commands, timestamp_ms: 0 });
        engine.commit();
        engine
    }

    pub(super) fn open(disk: SimDisk, term: u64) -> Self {
        let options = ShardOptions {
            shard: 1,
            cluster_id: [1; 16],
            segment_bytes_first: 6 << 10,
            segment_bytes_max: 12 << 10,
            tail_cache_bytes: 4 << 10,
            producer_bytes_max: 1 << 20,
            checkpoint_bytes: u64::MAX,
            tombstone_grace_ms: 200,
        };
        let rng = &mut SeededRng::new(7);
        let (shard, _) =
            Shard::open(Arc::new(disk.clone()), Path::new(DIR), &options, rng, 0).unwrap();
        // What recovery believes is committed where there is one replica; a node learns it from Raft.
        let last = shard.log_state().last.map_or(0, |id| id.index);
        let applied = shard.applied().0.map_or(0, |id| id.index);
        let mut engine = Self {
            disk,
            shard,
            sequencer: Sequencer::open(term, LIMITS),
            term,
            last_index: last,
            now_ms: 5,
            commits: Vec::new(),
            cleanings: 0,
        };
        for index in applied + 1..=last {
            engine.apply(index);
        }
        engine.append(Payload::Blank);
        engine
    }

    pub(super) fn append(&mut self, payload: Payload) -> Option<Applied> {
        self.last_index += 1;
        let id = LogId { term: self.term, index: self.last_index };
        self.shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
        self.drive();
        self.shard.set_committed(Some(id));
        self.apply(id.index)
    }

    pub(super) fn apply(&mut self, index: u64) -> Option<Applied> {
        let id = self.shard.log_id_at(index).unwrap();
        let applied = self.shard.apply_all(&[id]).unwrap().pop_front();
        if let Some(applied) = &applied {
            self.sequencer.resolved(applied.sequence);
        }
        applied
    }

    pub(super) fn drive(&self) {
        loop {
            if let Some(job) = self.shard.next_prepare() {
                let result = job.run(PrepareMode::Allocate);
                self.shard.prepared(job, result).unwrap();
            } else if let Some(job) = self.shard.next_flush() {
                let result = job.run();
                self.shard.flushed(job, result).unwrap();
            } else {
                return;
            }
        }
    }

    fn checkpoint(&self) {
        while let Some(job) = self.shard.next_sidecar() {
            let result = job.run();
            self.shard.sidecar_done(&job, result);
        }
        let Some(job) = self.shard.checkpoint_now() else { return };
        let (finished, result) = job.run();
        self.shard.checkpointed(finished, &result);
        result.unwrap();
    }

    /// Takes a checkpoint and does all the cleaning there is to do.
    pub(super) fn clean(&mut self) {
        self.shard.mark_synced();
        self.drive();
        self.checkpoint();
        self.shard.forget_removed();
        for round in 0.. {
            // Each leaves less for the next.
            assert!(round < 1000, "cleaning comes to no end");
            let Some(step) = self.shard.next_cleaning() else { return };
            match step {
                CleanStep::Purge(up_to) => {
                    self.shard.purge(up_to).unwrap();
                    self.drive();
                }
                CleanStep::Clean(job) => {
                    let done = job.run(&mut |_| {}).unwrap();
                    self.shard.cleaned(job, done, &mut || {}).unwrap();
                    self.cleanings += 1;
                    self.checkpoint();
                }
            }
        }
    }

    pub(super) fn commit(&mut self) -> Option<Applied> {
        let write = self.sequencer.take_entry()?;
        self.commits.push(write.append_time_ms);
        let applied = self.append(Payload::Normal(write));
        assert!(!applied.as_ref().unwrap().is_void);
        applied
    }

    pub(super) fn decide(&mut self, request: &WriteRequest) -> Verdict {
        loop {
            match self.shard.decide(&mut self.sequencer, request, self.now_ms) {
                Verdict::Full | Verdict::WaitFor(_) => self.commit().map(drop).unwrap(),
                verdict => return verdict,
            }
        }
    }

    /// Returns the base offset given.
    pub(super) fn accept(&mut self, request: &WriteRequest) -> u64 {
        match self.decide(request) {
            Verdict::Accepted { base_offset, .. } => base_offset,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn restart(self) -> Self {
        self.shard.mark_synced();
        self.drive();
        let engine = Self::open(self.disk.clone(), self.term + 1);
        Self { now_ms: self.now_ms, commits: self.commits, cleanings: self.cleanings, ..engine }
    }

    pub(super) fn crash(self) -> Self {
        let engine = Self::open(self.disk.clone_image(), self.term + 1);
        Self { now_ms: self.now_ms, commits: self.commits, cleanings: self.cleanings, ..engine }
    }

    /// Returns the value and version of a key that the model has, unless it is expired.
    pub(super) fn live<'a>(&self, model: &'a Model, key: &[u8]) -> Option<&'a Kept> {
        let kept = model.get(key)?;
        let (Some(ttl_ms), Some(from_ms)) = (kept.ttl_ms, self.commits.get(kept.commit)) else {
            return Some(kept);
        };
        let now_ms = self.commits.last().copied().unwrap_or_default();
        (from_ms + i64::from(ttl_ms) > now_ms).then_some(kept)
    }
}

pub(super) fn partition_of(key: &[u8]) -> u32 {
    1 + u32::from(key[0]) % PARTITIONS
}

pub(super) fn put(
    key: &[u8],
    value: &[u8],
    producer: Option<ProducerStamp>,
    condition: Condition,
) -> WriteRequest {
    WriteRequest::Put {
        partition: partition_of(key),
        collection: COLLECTION,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        timestamp_ms: 3,
        producer,
        condition,
        ttl: None,
        headers: Vec::new(),
    }
}

pub(super) fn delete(key: &[u8]) -> WriteRequest {
    WriteRequest::Delete {
        partition: partition_of(key),
        collection: COLLECTION,
        key: Bytes::copy_from_slice(key),
        timestamp_ms: 3,
        producer: None,
        condition: Condition::None,
    }
}

pub(super) fn batch(
    partition: u32,
    records: &[(Vec<u8>, Option<Vec<u8>>)],
    stamp: ProducerStamp,
) -> WriteRequest {
    let mut builder = BatchBuilder::new(stamp, Compression::Lz4);
    for (key, value) in records {
        builder.push(4, Some(key), value.as_deref(), &[]).unwrap();
    }
    let rules = KeyRules {
        bytes_max: 100,
        value_bytes_max: 1000,
        records_max: 4096,
        decompressed_bytes_max: 1 << 20,
        number: partition,
        partition_of: &partition_of,
        keyless: Keyless::Refused,
    };
    let batch = CheckedBatch::check(builder.finish().unwrap().to_bytes(), Some(&rules)).unwrap();
    WriteRequest::Batch { partition, collection: COLLECTION, batch }
}
