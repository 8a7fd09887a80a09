//! What is done with a store and timed, and the check that it holds what it was given.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    engines::{Durability, Peer, Reader, Store, Work},
    pairs::{Pair, Random, beginning, value},
};

/// Pairs in a batch.
pub(crate) const BATCH_PAIRS: u64 = 1_000;
/// Keys that a transaction of gets reads.
const READ_KEYS: u64 = 1_000;
/// So many values are compared byte for byte.
const SAMPLE_KEYS: u64 = 1_000;
/// A number that is never written.
const ABSENT: u64 = 1 << 60;
/// Ticks of processor time in a second, as `/proc` counts them.
const TICKS_PER_SECOND: f64 = 100.0;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Pairs of the load.
    pub(crate) keys: u64,
    /// How long single puts and gets take.
    pub(crate) time: Duration,
}

/// Figures of one run by their names.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// Measures one kind of work of one peer in a directory of its own below `parent`.
pub(crate) fn run(peer: &Peer, work: Work, plan: Plan, parent: &Path) -> Result<Figures> {
    write_back(parent)?;
    let dir = tempfile::Builder::new()
        .prefix("peers-")
        .tempdir_in(parent)
        .with_context(|| format!("create a directory in {}", parent.display()))?;
    let mut figures = Figures::new();
    let mut written = 0;
    peer.open(dir.path(), work.durability(), &mut |store| {
        match work {
            Work::Load => {
                written = batches(store, plan.keys, peer.is_pipelined, &mut figures)?;
                figures.insert("disk_bytes", precise(disk_bytes(dir.path())?));
                check(store, written)?;
                gets(store, 1, written, plan.time / 5)?;
                figures.insert("gets_s_1", gets(store, 1, written, plan.time)?);
                figures.insert("gets_s_2", gets(store, 2, written, plan.time)?);
            }
            Work::Puts => written = puts(store, plan.time, peer.is_pipelined, &mut figures)?,
            Work::Batches => {
                written = batches(store, plan.keys / 2, peer.is_pipelined, &mut figures)?;
            }
        }
        check(store, written)
    })?;
    if work.durability() == Durability::Synced {
        peer.open(dir.path(), Durability::Synced, &mut |store| check(store, written))
            .context("open again")?;
    }
    Ok(figures)
}

/// Has the disk done with what others left to it.
fn write_back(dir: &Path) -> Result<()> {
    let status = Command::new("sync").arg("-f").arg(dir).status().context("run sync")?;
    ensure!(status.success(), "sync -f {} ended with {status}", dir.display());
    Ok(())
}

/// Puts batches; returns how many pairs.
fn batches(
    store: &mut dyn Store,
    pairs: u64,
    is_pipelined: bool,
    figures: &mut Figures,
) -> Result<u64> {
    let count = (pairs / BATCH_PAIRS).max(1);
    let mut batch = Vec::new();
    let mut latencies = Vec::new();
    let cpu = cpu_seconds()?;
    let begun = Instant::now();
    for number in 0..count {
        batch.clear();
        batch.extend((number * BATCH_PAIRS..(number + 1) * BATCH_PAIRS).map(Pair::of));
        let called = Instant::now();
        store.put_batch(&batch)?;
        latencies.push(called.elapsed());
    }
    store.settle()?;
    let elapsed = begun.elapsed();
    let written = count * BATCH_PAIRS;
    figures.insert("cpu_s_per_million", (cpu_seconds()? - cpu) * 1e6 / precise(written));
    figures.insert("puts_s", precise(written) / elapsed.as_secs_f64());
    if !is_pipelined {
        note_latencies(&mut latencies, figures);
    }
    Ok(written)
}

/// Puts one pair after the other; returns how many.
fn puts(
    store: &mut dyn Store,
    time: Duration,
    is_pipelined: bool,
    figures: &mut Figures,
) -> Result<u64> {
    let mut latencies = Vec::new();
    let mut written = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        let pair = Pair::of(written);
        let called = Instant::now();
        store.put(&pair)?;
        latencies.push(called.elapsed());
        written += 1;
    }
    store.settle()?;
    figures.insert("puts_s", precise(written) / begun.elapsed().as_secs_f64());
    if !is_pipelined {
        note_latencies(&mut latencies, figures);
    }
    Ok(written)
}

fn note_latencies(latencies: &mut [Duration], figures: &mut Figures) {
    latencies.sort_unstable();
    for (name, percent) in [("p50_us", 50), ("p99_us", 99)] {
        let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        if let Some(latency) = latencies.get(at) {
            figures.insert(name, latency.as_secs_f64() * 1e6);
        }
    }
}

/// Gets keys drawn at random from those written; returns how many in a second.
fn gets(store: &dyn Store, threads: u64, written: u64, time: Duration) -> Result<f64> {
    let mut readers = (0..threads).map(|_| store.reader()).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let count = thread::scope(|scope| {
        let threads: Vec<_> = readers
            .iter_mut()
            .zip(1..)
            .map(|(reader, seed)| {
                scope.spawn(move || read(reader.as_mut(), seed, written, begun, time))
            })
            .collect();
        threads.into_iter().try_fold(0, |count, thread| {
            let read = thread.join().map_err(|_| anyhow!("a reader panicked"))?;
            Ok::<_, anyhow::Error>(count + read?)
        })
    })?;
    Ok(precise(count) / begun.elapsed().as_secs_f64())
}

fn read(
    reader: &mut dyn Reader,
    seed: u64,
    written: u64,
    begun: Instant,
    time: Duration,
) -> Result<u64> {
    let mut random = Random::of(seed);
    let mut numbers = Vec::new();
    let mut count = 0;
    // Each value is copied, so that every engine has read all of it.
    let mut copy = [0; 100];
    while begun.elapsed() < time {
        numbers.clear();
        numbers.extend((0..READ_KEYS).map(|_| random.next() % written));
        reader.read(&numbers, &mut |number, found| {
            let found = found.with_context(|| format!("key {number} is not there"))?;
            ensure!(found.len() == copy.len(), "key {number} has {} bytes", found.len());
            copy.copy_from_slice(found);
            black_box(&copy);
            ensure!(copy[..8] == beginning(number), "key {number} has another value");
            Ok(())
        })?;
        count += READ_KEYS;
    }
    Ok(count)
}

/// Compares a sample of what was written with what is read, the first and the last pair among it.
fn check(store: &dyn Store, written: u64) -> Result<()> {
    let step = usize::try_from((written / SAMPLE_KEYS).max(1)).context("step of the sample")?;
    let mut numbers: Vec<u64> = (0..written).step_by(step).collect();
    numbers.extend(written.checked_sub(1));
    numbers.push(ABSENT);
    let mut seen = 0;
    store.reader()?.read(&numbers, &mut |number, found| {
        let expected = (number != ABSENT).then(|| value(number));
        let is_same = found == expected.as_ref().map(|value| &value[..]);
        ensure!(is_same, "check: key {number} has not the value that was written: {found:?}");
        seen += 1;
        Ok(())
    })?;
    ensure!(seen == numbers.len(), "check: {seen} of {} keys were read", numbers.len());
    Ok(())
}

/// Returns what a directory takes on the disk: holes of files take nothing.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            // Its engine removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).context("size of a file"),
        };
    }
    Ok(bytes)
}

/// Returns the processor time of all threads of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field behind it.
    let (_, rest) = stat.rsplit_once(')').context("parse /proc/self/stat")?;
    let mut ticks = 0.0;
    for field in rest.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<f64>().context("parse /proc/self/stat")?;
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Returns a count as a figure. Counts here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}
