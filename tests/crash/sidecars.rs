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

/// What a partition must have.
pub(crate) struct Expected<'a> {
    pub(crate) partition: u32,
    /// Every record that was ever appended to it.
    pub(crate) records: &'a [Record],
    pub(crate) log_start: u64,
    /// Whether the record at an offset may be gone.
    pub(crate) may_miss: &'a dyn Fn(u64) -> bool,
}

impl<'a> Expected<'a> {
    /// All of them.
    pub(crate) fn all(partition: u32, records: &'a [Record], log_start: u64) -> Self {
        Self { partition, records, log_start, may_miss: &|_| false }
    }
}

/// The records of a partition are read from any offset, and found by their time. Returns their offsets.
pub(crate) fn check_stream(shard: &Shard, expected: &Expected<'_>) -> Result<Vec<u64>, String> {
    let Expected { partition, records, log_start, may_miss } = *expected;
    let end = records.len() as u64;
    let bounds = shard.stream_bounds(partition);
    if (bounds.log_start, bounds.high_watermark) != (log_start, end) {
        return Err(format!("partition {partition} of {log_start}..{end} has {bounds:?}"));
    }
    let mut present = Vec::new();
    let middle = log_start + (end - log_start) / 2;
    for (from, bytes_max) in [(log_start, 1), (log_start, 1 << 20), (middle, 700)] {
        let mut next = from;
        present = if from == log_start { Vec::new() } else { present };
        while next < end {
            let fetched =
                shard.fetch(partition, next, bytes_max).map_err(|error| error.to_string())?;
            let read = decode(&fetched.parts)?;
            if fetched.next_offset <= next {
                return Err(format!("partition {partition} at {next}: {fetched:?}"));
            }
            let mut reached = next;
            for (offset, record) in read {
                if records.get(usize::try_from(offset).unwrap()) != Some(&record) {
                    return Err(format!("partition {partition} has another record at {offset}"));
                }
                if let Some(missing) = (reached..offset).find(|offset| !may_miss(*offset)) {
                    return Err(format!("partition {partition} has lost offset {missing}"));
                }
                reached = reached.max(offset + 1);
                if from == log_start && offset >= log_start {
                    present.push(offset);
                }
            }
            if let Some(missing) = (reached..fetched.next_offset).find(|at| !may_miss(*at)) {
                return Err(format!("partition {partition} has lost offset {missing}"));
            }
            next = fetched.next_offset;
        }
        present.dedup();
    }
    for time in (0..2600).step_by(130) {
        let reaches = |offset: &&u64| records[usize::try_from(**offset).unwrap()].0 >= time;
        let first = present.iter().find(reaches).copied();
        let found = shard.offset_at_time(partition, time).map_err(|error| error.to_string())?;
        if found.map(|(offset, _)| offset) != first {
            return Err(format!("partition {partition}: time {time} is {first:?}, not {found:?}"));
        }
    }
    Ok(present)
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
    let starts = load.models.last().unwrap().log_starts.clone();
    let check = |disk: &SimDisk, name: &str, whole: &[u8]| {
        let shard = open(disk);
        for (partition, next) in &ends {
            let records = &load.streams[partition][..usize::try_from(*next).unwrap()];
            let log_start = starts.get(partition).copied().unwrap_or_default();
            check_stream(&shard, &Expected::all(*partition, records, log_start)).unwrap();
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
    let starts = load.models.last().unwrap().log_starts.clone();
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
                let mut next = starts.get(partition).copied().unwrap_or_default();
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
