//! The stream view of a shard after crashes, and sidecars that are damaged.

use std::path::Path;

use bytes::Bytes;
use prkdb::storage::{
    Shard,
    bug::{self, Bug},
    disk::{Access, Disk as _, sim::SimDisk},
};
use prkdb_types::{Batch, DecompressLimit};

use super::{
    damage::files_of,
    oracle::{Tally, check_load},
    power::say,
    rig::DIR,
    shard::{Record, open, run},
};

/// The records of a partition are read from any offset, and found by their time.
pub(crate) fn check_stream(
    shard: &Shard,
    partition: u32,
    records: &[Record],
) -> Result<(), String> {
    let end = records.len() as u64;
    let bounds = shard.stream_bounds(partition);
    if (bounds.log_start, bounds.high_watermark) != (0, end) {
        return Err(format!("partition {partition} of {end} records has {bounds:?}"));
    }
    for (from, bytes_max) in [(0, 1), (0, 1 << 20), (end / 2, 700)] {
        let mut next = from;
        while next < end {
            let fetched =
                shard.fetch(partition, next, bytes_max).map_err(|error| error.to_string())?;
            let read = decode(&fetched.parts)?;
            let first = read.first().map_or(u64::MAX, |(offset, _)| *offset);
            if first > next || fetched.next_offset <= next {
                return Err(format!("partition {partition} at {next}: {first}, {fetched:?}"));
            }
            for (offset, record) in read {
                if records.get(usize::try_from(offset).unwrap()) != Some(&record) {
                    return Err(format!("partition {partition} has another record at {offset}"));
                }
            }
            next = fetched.next_offset;
        }
    }
    for time in (0..2600).step_by(130) {
        let expected = records.iter().position(|(reached, ..)| *reached >= time);
        let found = shard.offset_at_time(partition, time).map_err(|error| error.to_string())?;
        if found.map(|(offset, _)| offset) != expected.map(|at| at as u64) {
            return Err(format!(
                "partition {partition}: time {time} is {expected:?}, not {found:?}"
            ));
        }
    }
    Ok(())
}

fn decode(parts: &[Bytes]) -> Result<Vec<(u64, Record)>, String> {
    let mut rest = Bytes::from(parts.concat());
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (batch, bytes) = Batch::split_first(&rest).map_err(|error| error.to_string())?;
        batch.verify_crc().map_err(|error| error.to_string())?;
        let opened = batch.records(DecompressLimit::new(1 << 20));
        for record in &opened.map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            records.push((record.offset, (record.timestamp_ms, key, value)));
        }
        rest = rest.slice(bytes..);
    }
    Ok(records)
}

#[test]
fn planted_sidecar_that_is_not_compared_is_caught() {
    let planted = bug::plant(Bug::SidecarNotCompared);
    let found = (1..=4).try_for_each(|seed| check_load(seed, u64::MAX, &mut Tally::default()));
    drop(planted);
    say(&format!("planted sidecar: {found:?}"));
    assert!(found.is_err());
}

#[test]
fn a_damaged_sidecar_is_written_again_and_nothing_is_read_by_it() {
    let load = run(1, 150);
    load.shard.mark_synced();
    load.drive();
    let (mut flips, mut cuts) = (0, 0);
    let ends = load.models.last().unwrap().next_offsets.clone();
    let check = |disk: &SimDisk, name: &str, whole: &[u8]| {
        let shard = open(disk);
        for (partition, next) in &ends {
            let records = &load.streams[partition][..usize::try_from(*next).unwrap()];
            check_stream(&shard, *partition, records).unwrap();
        }
        let files = files_of(disk);
        let (_, now) = files.iter().find(|(other, _)| other == name).unwrap();
        assert!(now == whole, "{name} is not what it was");
    };
    let sidecars = files_of(&load.disk).into_iter().filter(|(name, _)| name.ends_with(".index"));
    for (name, bytes) in sidecars {
        let path = Path::new(DIR).join(&name);
        for position in (0..bytes.len()).step_by(3) {
            let disk = load.disk.clone_image();
            disk.flip_bit(&path, position as u64, u8::try_from(position % 8).unwrap()).unwrap();
            check(&disk, &name, &bytes);
            flips += 1;
        }
        for len in (0..bytes.len()).step_by(7) {
            let disk = load.disk.clone_image();
            disk.open(&path, Access::ReadWrite).unwrap().truncate(len as u64).unwrap();
            check(&disk, &name, &bytes);
            cuts += 1;
        }
    }
    say(&format!("sidecars: {flips} bits flipped, {cuts} lengths cut"));
    assert!(flips > 500 && cuts > 200, "{flips} flips, {cuts} cuts");
}

/// Rot behind a sidecar's back, as the planted trust has it: what it still finds is right, what it lost is
/// refused, and nothing is passed over.
#[test]
fn what_a_rotten_sidecar_lost_is_refused_and_not_passed_over() {
    let load = run(1, 150);
    load.shard.mark_synced();
    load.drive();
    let ends = load.models.last().unwrap().next_offsets.clone();
    let (mut reads, mut refused) = (0, 0);
    let sidecars = files_of(&load.disk).into_iter().filter(|(name, _)| name.ends_with(".index"));
    for (name, bytes) in sidecars {
        let path = Path::new(DIR).join(&name);
        for position in (0..bytes.len()).step_by(5) {
            let disk = load.disk.clone_image();
            disk.flip_bit(&path, position as u64, u8::try_from(position % 8).unwrap()).unwrap();
            let planted = bug::plant(Bug::SidecarNotCompared);
            let shard = open(&disk);
            drop(planted);
            for (partition, end) in &ends {
                let mut next = 0;
                while next < *end {
                    reads += 1;
                    let Ok(fetched) = shard.fetch(*partition, next, 700) else {
                        refused += 1;
                        break;
                    };
                    let read = decode(&fetched.parts).unwrap();
                    let first = read.first().map_or(u64::MAX, |(offset, _)| *offset);
                    assert!(first <= next && next < fetched.next_offset, "{name} at {position}");
                    let last = read.last().map_or(0, |(offset, _)| *offset);
                    assert_eq!(last + 1, fetched.next_offset, "{name} at {position}");
                    next = fetched.next_offset;
                }
            }
        }
    }
    say(&format!("rotten sidecars: {reads} reads, {refused} refused"));
    assert!(refused > 50, "{refused} of {reads}");
}
