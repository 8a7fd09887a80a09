//! What the machine does without a database, measured as a node would use it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::RwLock,
    time::Duration,
};

use bytes::Bytes;
use prkdb_types::{crc32c, murmur2};
use tokio::time::Instant;

use super::{
    echo::Echo,
    latencies::Latencies,
    load::{self, Plan},
    machine::random,
    report::{Figure, per_second},
};
use crate::commands::failure::{Failure, Result};

const MIB: usize = 1 << 20;
/// The prepared file; writes go round in it.
const FILE_MIB: u64 = 256;
/// Batches of 1 MiB between two syncs.
const GROUP: u64 = 4;
const MAP_KEYS: u32 = 1_000_000;
const MAP_SHARDS: usize = 64;

/// Measures everything.
///
/// # Errors
/// 13 where the disk or a port fails.
pub(super) async fn all(dir: &Path, duration: Duration) -> Result<Vec<Figure>> {
    let mut figures = disk(dir, duration)?;
    figures.push(checksum(duration)?);
    figures.push(loopback(duration).map_err(|error| Failure::io("measure loopback TCP", &error))?);
    let echo = Echo::start().await?;
    for (clients, bytes) in [(1, 100), (64, 100), (256, 100), (4, MIB)] {
        figures.push(calls(&echo, clients, bytes, duration).await?);
    }
    for way in [Way::Both, Way::In, Way::Out] {
        figures.push(exchange(&echo, way, MIB, duration).await?);
    }
    figures.push(map(duration)?);
    Ok(figures)
}

/// Measures calls with so many under way.
///
/// # Errors
/// 4 where the echo fails.
pub(super) async fn calls(
    echo: &Echo,
    clients: u32,
    bytes: usize,
    duration: Duration,
) -> Result<Figure> {
    let payload = Bytes::from(random(bytes)?);
    let warmup = duration / 5;
    let plan = Plan { clients, warmup, duration, count: None, rate: None };
    let seen = load::run(plan, |_| echo.call(payload.clone())).await?;
    if let Some(failure) = seen.first_error {
        return Err(failure.into());
    }
    let name = format!("grpc echo of {bytes} bytes, {clients} under way");
    Ok(Figure::rate(&name, seen.rate()).with_latencies(&seen))
}

/// Which way the bytes of a call go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the server.
    In,
    /// To the client.
    Out,
    /// To the server and back.
    Both,
}

/// Measures how fast calls carry bytes; those that go both ways count once.
///
/// # Errors
/// 4 where the echo fails.
pub(super) async fn exchange(
    echo: &Echo,
    way: Way,
    bytes: usize,
    duration: Duration,
) -> Result<Figure> {
    let payload = Bytes::from(random(bytes)?);
    let (payload, wanted, name) = match way {
        Way::In => (payload, Some(0), "grpc calls with bytes in, 4 under way"),
        Way::Out => {
            let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
            (Bytes::new(), Some(wanted), "grpc calls with bytes out, 4 under way")
        }
        Way::Both => (payload, None, "grpc echo of the same bytes, 4 under way"),
    };
    let plan = Plan { clients: 4, warmup: duration / 5, duration, count: None, rate: None };
    let seen = load::run(plan, |_| echo.ask(payload.clone(), wanted)).await?;
    if let Some(failure) = seen.first_error {
        return Err(failure.into());
    }
    let total = seen.latencies.count().saturating_mul(u64::try_from(bytes).unwrap_or(u64::MAX));
    Ok(Figure::bytes(name, total, seen.elapsed))
}

/// Measures writes of 1 MiB with a sync for each group.
///
/// # Errors
/// 13.
pub(super) fn grouped(dir: &Path, duration: Duration) -> Result<Figure> {
    let failed = |error| Failure::io(format_args!("measure the disk of {}", dir.display()), &error);
    let file = prepared(dir).map_err(failed)?;
    let payload = random(MIB)?;
    let (count, elapsed) =
        repeat(duration, |index| write_grouped(&file, &payload, index)).map_err(failed)?;
    Ok(Figure::bytes(GROUPED, count << 20, elapsed))
}

const GROUPED: &str = "pwrite of 1 MiB, fdatasync for each 4";

fn write_grouped(file: &File, payload: &[u8], index: u64) -> io::Result<()> {
    file.write_all_at(payload, (index % FILE_MIB) << 20)?;
    if (index + 1).is_multiple_of(GROUP) { file.sync_data() } else { Ok(()) }
}

/// A file as a node prepares it: written and synced once before.
fn prepared(dir: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    let zeroes = vec![0; MIB];
    for index in 0..FILE_MIB {
        file.write_all_at(&zeroes, index << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn disk(dir: &Path, duration: Duration) -> Result<Vec<Figure>> {
    let failed = |error| Failure::io(format_args!("measure the disk of {}", dir.display()), &error);
    let file = prepared(dir).map_err(failed)?;
    let payload = random(MIB)?;
    let write = |index: u64| file.write_all_at(&payload, (index % FILE_MIB) << 20);
    let mut figures = Vec::new();
    let (count, elapsed) = repeat(duration, write).map_err(failed)?;
    figures.push(Figure::bytes("pwrite of 1 MiB into a prepared file", count << 20, elapsed));
    file.sync_data().map_err(failed)?;
    let (count, elapsed) =
        repeat(duration, |index| write_grouped(&file, &payload, index)).map_err(failed)?;
    figures.push(Figure::bytes(GROUPED, count << 20, elapsed));
    figures.push(sync_of(&file, 4096, duration).map_err(failed)??);
    Ok(figures)
}

/// Measures one write and one sync after the other, of so many bytes.
///
/// # Errors
/// 13.
pub(super) fn syncs(dir: &Path, bytes: usize, duration: Duration) -> Result<Figure> {
    let failed = |error| Failure::io(format_args!("measure the disk of {}", dir.display()), &error);
    let file = prepared(dir).map_err(failed)?;
    sync_of(&file, bytes, duration).map_err(failed)?
}

fn sync_of(file: &File, bytes: usize, duration: Duration) -> io::Result<Result<Figure>> {
    let mut latencies = match Latencies::new() {
        Ok(latencies) => latencies,
        Err(stop) => return Ok(Err(stop)),
    };
    let payload = match random(bytes) {
        Ok(payload) => payload,
        Err(stop) => return Ok(Err(stop)),
    };
    let step = u64::try_from(bytes).unwrap_or(u64::MAX);
    let mut position = 0;
    let (_, elapsed) = repeat(duration, |_| {
        let begun = Instant::now();
        file.write_all_at(&payload, position)?;
        file.sync_data()?;
        position = (position + step) % ((FILE_MIB - 1) << 20);
        latencies.record(begun.elapsed());
        Ok(())
    })?;
    let seen = load::Seen { latencies, errors: 0, first_error: None, elapsed };
    let name = format!("write and fdatasync of {bytes} bytes");
    Ok(Ok(Figure::rate(&name, seen.rate()).with_latencies(&seen)))
}

fn repeat(
    duration: Duration,
    mut work: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < duration {
        work(count)?;
        count += 1;
    }
    Ok((count, begun.elapsed()))
}

fn checksum(duration: Duration) -> Result<Figure> {
    let payload = random(MIB)?;
    let mut sum = 0;
    let counted = repeat(duration, |_| {
        sum ^= crc32c(std::hint::black_box(&payload));
        Ok(())
    });
    std::hint::black_box(sum);
    let (count, elapsed) = counted.map_err(|error| Failure::io("measure checksums", &error))?;
    Ok(Figure::bytes("crc32c of 1 MiB", count << 20, elapsed))
}

fn loopback(duration: Duration) -> io::Result<Figure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sink = std::thread::Builder::new().name("bench sink".to_owned()).spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; MIB];
        while stream.read(&mut buffer)? > 0 {}
        Ok::<(), io::Error>(())
    })?;
    let mut stream = TcpStream::connect(address)?;
    let payload = vec![7; MIB];
    let (count, elapsed) = repeat(duration, |_| stream.write_all(&payload))?;
    drop(stream);
    match sink.join() {
        Ok(ended) => ended?,
        Err(_) => return Err(io::Error::other("the receiving thread panicked")),
    }
    Ok(Figure::bytes("tcp over loopback", count << 20, elapsed))
}

/// Lookups in maps behind locks, one of 64 for each key.
fn map(duration: Duration) -> Result<Figure> {
    let shard = |key: &[u8; 16]| usize::try_from(murmur2(key)).unwrap_or(0) % MAP_SHARDS;
    let key = |number: u32| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    };
    let mut shards: Vec<HashMap<[u8; 16], u64>> = vec![HashMap::new(); MAP_SHARDS];
    for number in 0..MAP_KEYS {
        if let Some(map) = shards.get_mut(shard(&key(number))) {
            map.insert(key(number), u64::from(number));
        }
    }
    let shards: Vec<_> = shards.into_iter().map(RwLock::new).collect();
    let mut state = 1_u32;
    let mut found = 0_u64;
    let counted = repeat(duration, |_| {
        for _ in 0..1000 {
            // Xorshift, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let key = key(state % MAP_KEYS);
            if let Some(Ok(map)) = shards.get(shard(&key)).map(RwLock::read) {
                found += u64::from(map.contains_key(&key));
            }
        }
        Ok(())
    });
    std::hint::black_box(found);
    let (count, elapsed) = counted.map_err(|error| Failure::io("measure lookups", &error))?;
    Ok(Figure::rate(
        "lookup in a concurrent map of 1 M keys, 1 thread",
        per_second(count * 1000, elapsed),
    ))
}
