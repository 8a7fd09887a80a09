//! One shard on one replica: its log, what that adds up to, and what readers see of it.
//!
//! The log has one lock, the applied state another, the index of the streams a third; none is held
//! across a call to the disk but in the rare cases of a truncation and of a snapshot that is installed.
//! Readers of keys take none: they follow a published root to a place in a segment.
//!
//! - `apply`: the log becomes state.
//! - `stream`: the batches of a partition from an offset on.
//! - `checkpoint`: when one is due, and what a shard opens with.
//! - `clean`: what nobody can need any more is taken out of the log. `retention`: what may go.
//! - `jobs`: the log's calls.
//! - `copy`: the files of the last one, for a backup. `install`: those of another replica, here.
//! - `read`: what readers see of the keys. `renewal`: another time to live for one.
//!
//! Owns the order of the locks (relocation, checkpoints, log, state,
//! streams). Does not know who drives it.

mod apply;
mod checkpoint;
mod clean;
mod copy;
mod install;
mod jobs;
mod read;
mod renewal;
mod retention;
mod stream;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64},
    },
};

use arc_swap::ArcSwap;

use self::checkpoint::{Checkpoints, no_streams};
pub use self::{
    clean::{CleanDone, CleanJob, CleanStep, NotCleaned},
    copy::{CopyPart, ShardCopy, adopt},
    install::{Install, Installed, PreparedSnapshot},
    read::{Found, Snapshot},
    retention::Overdue,
    stream::Fetched,
};
use super::{
    StorageError,
    checkpoint::{Loaded, Opened, find, refuse_history},
    clock::Rng,
    disk::Disk,
    kv::{
        catalog::Catalog,
        state::{PartitionStats, Roots, State},
    },
    log::{
        Evidence, HISTORY_FIRST, JudgedLog, Log, Recovery, Segments,
        options::{GROUP_BYTES_MAX, LogOptions},
    },
    sequencer::{Sequencer, Verdict, WriteRequest},
    stream::StreamIndex,
};

/// What a shard is told when it is opened.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The shard.
    pub shard: u32,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Size of the log's first segment.
    pub segment_bytes_first: u64,
    /// Size of its largest segment.
    pub segment_bytes_max: u64,
    /// Bytes of the newest entries that stay in memory.
    pub tail_cache_bytes: u64,
    /// Bytes for the windows of producers.
    pub producer_bytes_max: u64,
    /// The least growth of the log from one checkpoint to the next.
    pub checkpoint_bytes: u64,
    /// How long a tombstone is kept where records of keys that were written again go, in milliseconds of
    /// the log's time: readers that follow more slowly may miss a deletion.
    pub tombstone_grace_ms: u64,
}

/// Default for the growth of a log from one checkpoint to the next.
pub const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Default for how long a tombstone is kept: a day.
pub const TOMBSTONE_GRACE_MS: u64 = 24 * 60 * 60 * 1000;

/// A shard whose log was read and found sound, and not yet changed.
#[derive(Debug)]
pub struct JudgedShard {
    log: JudgedLog,
    checkpoint: Opened,
    options: ShardOptions,
}

impl JudgedShard {
    /// Settles the log and builds the state.
    ///
    /// # Errors
    /// As [`JudgedLog::settle`].
    pub fn settle(self) -> Result<(Shard, Recovery), StorageError> {
        let Self { log, checkpoint, options } = self;
        let (log, mut recovery) = log.settle()?;
        let segments = log.segments();
        let next_history = segments.largest_number().max(HISTORY_FIRST - 1) + 1;
        {
            let (disk, dir, _) = log.home();
            checkpoint.tidy(disk.as_ref(), dir);
        }
        let mut checkpoints = Checkpoints::new(options.checkpoint_bytes);
        let (state, stream) = match checkpoint.loaded {
            Some(Loaded { state, streams, resume, generation, is_cleaned, bytes }) => {
                (checkpoints.bytes, checkpoints.applied) = (bytes, Some(resume.applied));
                (checkpoints.generation, checkpoints.is_cleaned) = (generation, is_cleaned);
                recovery.checkpoint_bytes = bytes;
                (state, streams)
            }
            None => (State::new(options.producer_bytes_max), no_streams(log.home())),
        };
        let shard = Shard {
            number: options.shard,
            tombstone_grace_ms: options.tombstone_grace_ms,
            segment_bytes_max: options.segment_bytes_max,
            producer_bytes_max: options.producer_bytes_max,
            next_history: AtomicU64::new(next_history),
            cluster_id: options.cluster_id,
            stream: Mutex::new(stream),
            log: Mutex::new(log),
            state: Mutex::new(state),
            checkpoints: Mutex::new(checkpoints),
            relocation: Mutex::new(()),
            segments,
            roots: ArcSwap::default(),
            keep_from: AtomicU64::new(u64::MAX),
            groups_with_readers: AtomicU32::new(0),
            log_time_ms: AtomicI64::new(i64::MIN),
            catalog: ArcSwap::default(),
        };
        shard.restore_streams()?;
        shard.fold_committed()?;
        Ok((shard, recovery))
    }

    /// Returns the manifest or checkpoint that was of no use, so that the whole log was read.
    pub fn damaged_checkpoint(&self) -> Option<&Path> {
        self.checkpoint.damaged.as_deref()
    }
}

/// A shard.
#[derive(Debug)]
pub struct Shard {
    number: u32,
    cluster_id: [u8; 16],
    tombstone_grace_ms: u64,
    segment_bytes_max: u64,
    producer_bytes_max: u64,
    /// The number of the next history segment.
    next_history: AtomicU64,
    log: Mutex<Log>,
    state: Mutex<State>,
    stream: Mutex<StreamIndex>,
    checkpoints: Mutex<Checkpoints>,
    /// Held while keys are pointed at a history segment that no manifest would name yet.
    relocation: Mutex<()>,
    segments: Arc<Segments>,
    roots: ArcSwap<Roots>,
    /// Entries from this index on are read by it, and stay where they are.
    keep_from: AtomicU64,
    /// So many more groups of entries are shown to readers as they are applied.
    groups_with_readers: AtomicU32,
    /// The log's time as applied: what is expired by it, readers do not see.
    log_time_ms: AtomicI64,
    catalog: ArcSwap<Catalog>,
}

/// Figures of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Segments of its log.
    pub segment_count: usize,
    /// Bytes ready to be written to.
    pub prepared_bytes: u64,
    /// Bytes of entries in memory.
    pub tail_cache_bytes: u64,
    /// Bytes of its key indexes.
    pub index_bytes: u64,
    /// Keys with a value.
    pub keys: u64,
    /// Producers remembered.
    pub producers: usize,
    /// Bytes of its segments.
    pub log_bytes: u64,
    /// Bytes of memory of the index of its streams.
    pub stream_index_bytes: u64,
}

impl Shard {
    /// Opens the shard in `dir`: recovers its log and applies it up to the committed index it saved.
    ///
    /// # Errors
    /// Those of [`Log::open`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &ShardOptions,
        rng: &mut dyn Rng,
        now_ms: i64,
    ) -> Result<(Self, Recovery), StorageError> {
        Self::judge(disk, dir, options, rng, now_ms)?.settle()
    }

    /// As [`Log::judge`].
    ///
    /// # Errors
    /// As there.
    pub fn judge(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &ShardOptions,
        rng: &mut dyn Rng,
        now_ms: i64,
    ) -> Result<JudgedShard, StorageError> {
        let log_options = LogOptions {
            shard: options.shard,
            cluster_id: options.cluster_id,
            segment_bytes_first: options.segment_bytes_first,
            segment_bytes_max: options.segment_bytes_max,
            tail_cache_bytes: options.tail_cache_bytes,
            group_bytes_max: GROUP_BYTES_MAX,
        };
        let checkpoint =
            find(&disk, dir, options.shard, options.cluster_id, options.producer_bytes_max)?;
        let evidence = Evidence {
            synced_lsn: checkpoint.synced_lsn,
            resume: checkpoint.loaded.as_ref().map(|loaded| &loaded.resume),
        };
        // The clone counts a reference.
        let named_on = Arc::clone(&disk);
        let log = Log::judge(disk, dir, log_options, evidence, rng, now_ms)?;
        if checkpoint.loaded.is_none() && log.begins_behind_its_mark() {
            // An installed snapshot whose manifest is gone would read as a shard that is nearly empty.
            refuse_history(named_on.as_ref(), dir, "no such file")?;
        }
        // The clone is a handful of numbers.
        Ok(JudgedShard { log, checkpoint, options: options.clone() })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic ends the process; until it has, what the lock guards is whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides a write on the applied state.
    pub fn decide(
        &self,
        sequencer: &mut Sequencer,
        request: &WriteRequest,
        now_ms: i64,
    ) -> Verdict {
        sequencer.decide(&self.state(), request, now_ms)
    }

    /// Returns the catalogue as applied.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Returns a partition that the shard hosts.
    pub fn partition_state(&self, partition: u32) -> Option<PartitionStats> {
        self.state().partition(partition).copied()
    }

    /// Returns how many keys a collection has here.
    pub fn keys(&self, collection: u32) -> u64 {
        self.state().keys(collection)
    }

    /// Returns the shard's figures.
    pub fn stats(&self) -> ShardStats {
        let (prepared_bytes, tail_cache_bytes, log_bytes) = {
            let log = self.log();
            (log.prepared_bytes(), log.tail_cache_bytes(), log.log_bytes())
        };
        let stream_index_bytes = self.stream_index_bytes();
        let state = self.state();
        ShardStats {
            segment_count: self.segments.count(),
            prepared_bytes,
            tail_cache_bytes,
            index_bytes: state.index_bytes(),
            keys: state.keys_total(),
            producers: state.windows().count(),
            log_bytes,
            stream_index_bytes,
        }
    }
}
