//! The storage engine alone: batches of 1 MB decided, appended, written and applied on one thread.
//!
//! `cargo bench --bench engine [-- DIR [GIB]]`. Two lines, and the limit of each: with a sync for each
//! group, as a node runs it, and with the syncs left out (what a node that promises less than it does today
//! could reach: the page cache has the bytes when they count as written). Then the key index: a million keys
//! of 16 bytes with values of 100 put in batches of a thousand without syncs, in order and scattered, and read
//! again by one thread and by two, values included, and beside it what gives the limit: a concurrent hash map of
//! the same keys that has where their values are, and one that has the values.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the measurement")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the measurement")]

use std::{
    fs::File,
    hint::black_box,
    io::{self, IoSlice, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prkdb::storage::{
    Shard, ShardOptions,
    clock::OsRng,
    disk::{Access, Disk, DiskFile, Privacy, RealDisk, Space},
    log::{
        PrepareMode,
        entry::{Entry, LogId, Payload},
    },
    sequencer::{CheckedBatch, Sequencer, SequencerLimits, Verdict, WriteRequest},
};
use prkdb_types::{
    BatchBuilder, Compression, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
};

const RECORDS: i32 = 10_000;
const VALUE_BYTES: usize = 100;
const LIMITS: SequencerLimits = SequencerLimits {
    entry_bytes_max: 8 << 20,
    in_flight_bytes_max: 64 << 20,
    in_flight_entries_max: 1024,
    index_bytes_max: u64::MAX,
};

/// The disk, with or without its syncs of content.
#[derive(Clone, Copy, Debug)]
struct MayNotSync {
    syncs: bool,
}

#[derive(Debug)]
struct FileOf {
    file: Arc<dyn DiskFile>,
    syncs: bool,
}

impl MayNotSync {
    fn file(self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FileOf { file, syncs: self.syncs })
    }
}

impl Disk for MayNotSync {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path).map(|file| self.file(file))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, access).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn make_private(&self, dir: &Path) -> io::Result<Privacy> {
        RealDisk.make_private(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealDisk.space(dir)
    }
}

impl DiskFile for FileOf {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.write_at(position, slices)
    }
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, into)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        self.file.allocate(from, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
    fn will_need(&self, position: u64, len: u64) {
        self.file.will_need(position, len);
    }
    fn map_source(&self) -> Option<&File> {
        self.file.map_source()
    }
}

/// Runs what is handed out, until there is nothing.
fn drive(shard: &Shard) {
    loop {
        if let Some(job) = shard.next_flush() {
            let result = job.run();
            shard.flushed(job, result).unwrap();
        } else if let Some(job) = shard.next_prepare() {
            let result = job.run(PrepareMode::Allocate);
            shard.prepared(job, result).unwrap();
        } else if let Some(job) = shard.next_sidecar() {
            let result = job.run();
            shard.sidecar_done(&job, result);
        } else {
            return;
        }
    }
}

/// An engine with one partition.
struct Engine {
    shard: Shard,
    sequencer: Sequencer,
    index: u64,
}

impl Engine {
    fn open(dir: &Path, syncs: bool) -> Self {
        let options = ShardOptions {
            shard: 1,
            cluster_id: [7; 16],
            segment_bytes_first: 256 << 20,
            segment_bytes_max: 256 << 20,
            tail_cache_bytes: 64 << 20,
            producer_bytes_max: 64 << 20,
            checkpoint_bytes: u64::MAX,
            tombstone_grace_ms: u64::MAX,
        };
        let (disk, rng) = (Arc::new(MayNotSync { syncs }), &mut OsRng::new().unwrap());
        let (shard, _) = Shard::open(disk, dir, &options, rng, 0).unwrap();
        let mut engine = Self { shard, sequencer: Sequencer::open(1, LIMITS), index: 0 };
        let put = PartitionPut {
            partition: 1,
            collection: 1,
            number: 0,
            key_index: false,
            ..PartitionPut::default()
        };
        let change = Some(ShardChange::PartitionPut(put));
        let commands = vec![ShardCommand { id: 1, version: 1, change }];
        engine.write(&WriteRequest::Control { commands, timestamp_ms: 0 });
        engine
    }

    fn write(&mut self, request: &WriteRequest) {
        let verdict = self.shard.decide(&mut self.sequencer, request, 1);
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
        let id = LogId { term: 1, index: self.index };
        let payload = Payload::Normal(self.sequencer.take_entry().unwrap());
        self.shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
        drive(&self.shard);
        self.sequencer.resolved(self.shard.apply(id).unwrap().sequence);
        self.index += 1;
    }
}

fn batch(number: i32, noise: &[u8]) -> Bytes {
    let stamp = ProducerStamp { id: 1, epoch: 0, base_sequence: number * RECORDS };
    let mut builder = BatchBuilder::with_capacity(stamp, Compression::None, 1_200_000);
    for value in noise.chunks_exact(VALUE_BYTES) {
        builder.push(1, None, Some(value), &[]).unwrap();
    }
    builder.finish().unwrap().to_bytes()
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0; usize::try_from(RECORDS).unwrap() * VALUE_BYTES];
    getrandom::fill(&mut noise).unwrap();
    noise
}

/// Writes of 1 MB into a file that was written before; returns bytes in a second.
fn limit(dir: &Path, payload: &[u8], syncs: bool) -> f64 {
    let file = File::create_new(dir.join("limit")).unwrap();
    for at in 0..256 {
        file.write_all_at(payload, at * payload.len() as u64).unwrap();
    }
    file.sync_all().unwrap();
    let begun = Instant::now();
    let count = 1000;
    for at in 0..count {
        file.write_all_at(payload, at % 256 * payload.len() as u64).unwrap();
        if syncs {
            file.sync_data().unwrap();
        }
    }
    per_second(count * payload.len() as u64, begun)
}

fn per_second(count: u64, since: Instant) -> f64 {
    f64::from(u32::try_from(count >> 10).unwrap()) * 1024.0 / since.elapsed().as_secs_f64()
}

/// How many keys, and how many of them in a batch.
const KEYS: u64 = 1_000_000;
const BATCH_KEYS: u64 = 1_000;
/// How long keys are read.
const READING: Duration = Duration::from_secs(2);

/// The key of a number: in order, or scattered over all there are.
fn key(number: u64, scattered: bool) -> [u8; 16] {
    let number = if scattered { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { number };
    let mut key = *b"0000000000000000";
    let mut left = number;
    for byte in key.iter_mut().rev() {
        *byte = b"0123456789abcdef"[usize::try_from(left % 16).unwrap()];
        left /= 16;
    }
    key
}

fn keyed(first: u64, scattered: bool) -> CheckedBatch {
    let base_sequence = i32::try_from(first).unwrap();
    let stamp = ProducerStamp { id: 1, epoch: 0, base_sequence };
    let mut builder = BatchBuilder::with_capacity(stamp, Compression::None, 160_000);
    for number in first..first + BATCH_KEYS {
        builder.push(1, Some(&key(number, scattered)), Some(&[b'v'; 100]), &[]).unwrap();
    }
    CheckedBatch::check(builder.finish().unwrap().to_bytes(), None).unwrap()
}

fn keys(parent: &Path, out: &mut impl io::Write) {
    for scattered in [false, true] {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let mut engine = Engine::open(dir.path(), false);
        let put = PartitionPut {
            partition: 2,
            collection: 2,
            number: 0,
            key_index: true,
            ..PartitionPut::default()
        };
        let change = Some(ShardChange::PartitionPut(put));
        let commands = vec![ShardCommand { id: 2, version: 1, change }];
        engine.write(&WriteRequest::Control { commands, timestamp_ms: 0 });
        let begun = Instant::now();
        for first in (0..KEYS).step_by(usize::try_from(BATCH_KEYS).unwrap()) {
            let batch = keyed(first, scattered);
            engine.write(&WriteRequest::Batch { partition: 2, collection: 2, batch });
        }
        let puts = per_second(KEYS, begun);
        let stats = engine.shard.stats();
        let bytes_per_key = stats.index_bytes / stats.keys;
        let shard = &engine.shard;
        let found = |key: &[u8]| assert!(shard.leaf(2, key).is_some());
        let lookups = [1, 2].map(|threads| per_second_of(threads, scattered, found));
        let read = |key: &[u8]| assert_eq!(shard.get(2, key).unwrap().unwrap().value.len(), 100);
        let gets = [1, 2].map(|threads| per_second_of(threads, scattered, read));
        writeln!(
            out,
            "keys, {}: {puts:.0} puts/s in batches of {BATCH_KEYS}, encoding included; {bytes_per_key} bytes of index \
             per key",
            if scattered { "scattered" } else { "in order" },
        )
        .unwrap();
        drop(engine);
        let places = map_gets(scattered, |number| number);
        let values = map_gets(scattered, |_| [b'v'; 100]);
        for (what, rates, limits) in
            [("lookups", lookups, places), ("gets of values", gets, values)]
        {
            let [(one, limit_one), (two, limit_two)] =
                [(rates[0], limits[0]), (rates[1], limits[1])];
            writeln!(
                out,
                "  {what}: {one:.0}/s by one thread, {:.2} of a concurrent hash map; {two:.0}/s by two, {:.2}",
                one / limit_one,
                two / limit_two,
            )
            .unwrap();
        }
    }
}

/// How often a concurrent hash map of the same keys finds one, by one thread and by two.
fn map_gets<V: Copy + Send + Sync>(scattered: bool, value: impl Fn(u64) -> V) -> [f64; 2] {
    let map = papaya::HashMap::with_capacity(usize::try_from(KEYS).unwrap());
    for number in 0..KEYS {
        map.pin().insert(key(number, scattered), value(number));
    }
    let found = |key: &[u8]| {
        let value = map.pin().get(key).copied();
        assert!(black_box(value).is_some());
    };
    [1, 2].map(|threads| per_second_of(threads, scattered, found))
}

/// How often something can be done with keys drawn at random.
fn per_second_of(threads: u64, scattered: bool, act: impl Fn(&[u8]) + Sync) -> f64 {
    let act = &act;
    let begun = Instant::now();
    let counts: u64 = std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=threads)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut state, mut count) = (seed, 0);
                    while begun.elapsed() < READING {
                        for _ in 0..1000 {
                            // Xorshift, Marsaglia 2003.
                            state ^= state << 13;
                            state ^= state >> 7;
                            state ^= state << 17;
                            act(&key(state % KEYS, scattered));
                        }
                        count += 1000;
                    }
                    count
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    per_second(counts, begun)
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let parent = words.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let gib: f64 = words.next().map_or(2.0, |word| word.parse().unwrap());
    let noise = noise();
    let mut out = io::stdout().lock();
    keys(&parent, &mut out);
    for (name, syncs) in [("sync", true), ("relaxed: no sync", false)] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        let limit = limit(dir.path(), &noise, syncs);
        let mut engine = Engine::open(dir.path(), syncs);
        let payload = noise.len() as u64;
        let begun = Instant::now();
        let mut written = 0;
        let mut number = 0;
        while f64::from(u32::try_from(written >> 20).unwrap()) < gib * 1024.0 {
            let batch = CheckedBatch::check(batch(number, &noise), None).unwrap();
            engine.write(&WriteRequest::Batch { partition: 1, collection: 1, batch });
            number += 1;
            written += payload;
        }
        let rate = per_second(written, begun);
        writeln!(
            out,
            "engine, {name}: {:.0} MB/s of values, encoding included; {:.2} of {:.0} MB/s, pwrite of the same bytes{}",
            rate / 1e6,
            rate / limit,
            limit / 1e6,
            if syncs { " and fdatasync for each" } else { "" },
        )
        .unwrap();
    }
}
