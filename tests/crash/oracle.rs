//! Power cuts under a whole shard: key index, producer windows and streams are those of the model.

use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, Range},
    path::Path,
};

use bytes::Bytes;
use prkdb::storage::{
    Shard,
    disk::{
        Disk as _,
        sim::{Loss, SimDisk},
    },
    log::entry::LogId,
    sequencer::{Answer, Condition, Sequencer, Verdict, WriteRequest},
};
use prkdb_types::{ErrorCode, ProducerStamp};

use super::{
    power::{say, seeds},
    rig::DIR,
    shard::{
        CHECKPOINT_BYTES, COLLECTION, LIMITS, Load, Model, TERM, TOMBSTONE_GRACE_MS, checkpoint,
        drive, is_compacted, open_with, run_cleaned, run_with,
    },
    sidecars::{Expected, check_stream},
};

/// Opens a disk and compares the shard with the model of its last entry; then takes a checkpoint, and
/// does so again.
pub(crate) fn check(
    disk: &SimDisk,
    load: &Load,
    bounds: (usize, usize),
    checkpoint_bytes: u64,
) -> Result<(), String> {
    let shard = open_with(disk, checkpoint_bytes);
    check_shard(&shard, load, bounds)?;
    if checkpoint_bytes < u64::MAX {
        shard.mark_synced();
        drive(&shard);
        checkpoint(&shard);
        drop(shard);
        let again = open_with(disk, checkpoint_bytes);
        check_shard(&again, load, bounds).map_err(|error| format!("opened again: {error}"))?;
    }
    Ok(())
}

pub(crate) fn check_shard(
    shard: &Shard,
    load: &Load,
    (appended, synced): (usize, usize),
) -> Result<(), String> {
    let count = shard.log_state().last.map_or(0, |last| usize::try_from(last.index + 1).unwrap());
    if count < synced || count > appended {
        return Err(format!("{count} entries of {synced} acknowledged and {appended} attempted"));
    }
    apply_rest(shard)?;
    let Some(model) = count.checked_sub(1).map(|last| &load.models[last]) else { return Ok(()) };
    for (key, (value, version)) in model.live() {
        let found = shard.get(COLLECTION, key).map_err(|error| error.to_string())?;
        if found.is_none_or(|found| found.value != *value || found.version != *version) {
            return Err(format!("key {key:?} is not that of {count} entries"));
        }
    }
    if let Some(snapshot) = shard.scan(COLLECTION) {
        let all = snapshot.range(Bound::Unbounded, Bound::Unbounded);
        let keys: Vec<Vec<u8>> = all.map(|(key, _)| key).collect();
        if keys != model.live().map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            return Err(format!("keys are not those of {count} entries"));
        }
    } else if model.live().next().is_some() {
        return Err("no key index".to_owned());
    }
    for (partition, next) in &model.next_offsets {
        if shard.partition_state(*partition).map(|state| state.next_offset) != Some(*next) {
            return Err(format!("partition {partition} has another end"));
        }
        check_partition(shard, load, model, *partition, *next)?;
    }
    let purged = shard.log_state().purged.map_or(0, |mark| mark.index + 1);
    let mut next = purged;
    while next < count as u64 {
        let read = shard.read(next..count as u64, 2000).map_err(|error| error.to_string())?;
        for entry in &read {
            if entry.id != (LogId { term: TERM, index: next }) {
                return Err(format!("entry {next} reads as {:?}", entry.id));
            }
            next += 1;
        }
        if read.is_empty() {
            return Err(format!("entry {next} of {count} cannot be read"));
        }
    }
    check_windows(shard, model)
}

/// The stream of a partition is that of the model, but for what cleaning may have taken out.
fn check_partition(
    shard: &Shard,
    load: &Load,
    model: &Model,
    partition: u32,
    next: u64,
) -> Result<(), String> {
    let records = &load.streams[&partition][..usize::try_from(next).unwrap()];
    let log_start = model.log_starts.get(&partition).copied().unwrap_or_default();
    let all = Expected::all(partition, records, log_start);
    if !is_compacted(partition) {
        return check_stream(shard, &all).map(drop);
    }
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let latest = |key: &[u8]| records.iter().rposition(|(_, it, _)| it.as_deref() == Some(key));
    let old_ms = model.log_time_ms - i64::try_from(TOMBSTONE_GRACE_MS).unwrap();
    let may_miss = |offset: u64| {
        let (_, key, value) = &records[at(offset)];
        let key = key.as_deref().unwrap();
        match value {
            Some(_) => latest(key) != Some(at(offset)),
            None => load.appended[&partition][at(offset)] <= old_ms,
        }
    };
    let present = check_stream(shard, &Expected { may_miss: &may_miss, ..all })?;
    // Whoever reads it from the start has the keys that there are.
    let mut read: BTreeMap<&[u8], u64> = BTreeMap::new();
    for offset in present {
        let (_, key, value) = &records[at(offset)];
        match value {
            Some(_) => read.insert(key.as_deref().unwrap(), offset),
            None => read.remove(key.as_deref().unwrap()),
        };
    }
    for (key, offset) in &read {
        if model.keys.get(*key).map(|(_, version)| version) != Some(offset) {
            return Err(format!("partition {partition}: key {key:?} came back from {offset}"));
        }
    }
    Ok(())
}

/// What was saved as committed is applied at the start; Raft has the rest applied.
pub(crate) fn apply_rest(shard: &Shard) -> Result<(), String> {
    let count = shard.log_state().last.map_or(0, |last| last.index + 1);
    let applied = shard.applied().0.map_or(0, |id| id.index + 1);
    let ids: Vec<LogId> = (applied..count).map(|index| LogId { term: TERM, index }).collect();
    shard.apply_all(&ids).map(drop).map_err(|error| error.to_string())
}

/// A repeat is known and gets the offset it got, and a gap is refused.
fn check_windows(shard: &Shard, model: &Model) -> Result<(), String> {
    let mut sequencer = Sequencer::open(TERM + 1, LIMITS);
    for (producer, sent) in &model.producers {
        match shard.decide(&mut sequencer, &sent.request, 5) {
            Verdict::Answered { answer: Answer::Duplicate { base_offset, .. }, .. }
                if base_offset == sent.base_offset => {}
            other => return Err(format!("a repeat of producer {producer} is {other:?}")),
        }
        let WriteRequest::Put { partition, collection, key, .. } = sent.request.clone() else {
            continue;
        };
        let ahead =
            ProducerStamp { id: *producer, epoch: 0, base_sequence: sent.next_sequence + 1 };
        let gap = WriteRequest::Put {
            partition,
            collection,
            key,
            value: Bytes::new(),
            timestamp_ms: 3,
            producer: Some(ahead),
            condition: Condition::None,
            ttl: None,
            headers: Vec::new(),
        };
        match shard.decide(&mut sequencer, &gap, 5) {
            Verdict::Answered { answer: Answer::Refused(refusal), .. }
                if refusal.code == ErrorCode::OutOfOrder => {}
            other => return Err(format!("a gap of producer {producer} is {other:?}")),
        }
    }
    if model.producers.keys().any(|producer| *producer < 10) {
        return Err("a producer of nobody".to_owned());
    }
    Ok(())
}

/// Where the power is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// At every call.
    Everywhere,
    /// At every call of a cleaning, up to the end of the checkpoint that commits it.
    InCleanings,
}

/// What was tried.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) crashes: usize,
    seen: HashSet<(u64, usize)>,
    /// Disks with a sidecar, whole or not.
    with_sidecars: usize,
    /// Disks on which a checkpoint was being written.
    pub(crate) in_checkpoints: usize,
    /// Disks with a manifest.
    pub(crate) with_manifests: usize,
    /// Disks on which a cleaning was under way, up to the checkpoint that commits it.
    pub(crate) in_cleanings: usize,
}

impl Tally {
    pub(crate) fn distinct(&self) -> usize {
        self.seen.iter().map(|(hash, _)| *hash).collect::<HashSet<u64>>().len()
    }
}

pub(crate) fn check_load(
    seed: u64,
    checkpoint_bytes: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let load = run_with(seed, 150, checkpoint_bytes);
    assert!(load.shard.stats().segment_count >= 3);
    check_recording(&load, checkpoint_bytes, Where::Everywhere, tally, &format!("load {seed}"))
}

/// As [`check_load`], of a log that is cleaned.
pub(crate) fn check_cleaned(
    seed: u64,
    entries: usize,
    at: Where,
    tally: &mut Tally,
) -> Result<(), String> {
    let load = run_cleaned(seed, entries);
    check_recording(&load, CHECKPOINT_BYTES, at, tally, &format!("cleaned load {seed}"))
}

fn check_recording(
    load: &Load,
    checkpoint_bytes: u64,
    at: Where,
    tally: &mut Tally,
    name: &str,
) -> Result<(), String> {
    for image in load.disk.take_recording() {
        let count = load.moments.partition_point(|moment| moment.0 <= image.boundary());
        let bounds =
            count.checked_sub(1).map_or((0, 0), |at| (load.moments[at].1, load.moments[at].2));
        let is_inside = |range: &Range<u64>| range.contains(&image.boundary());
        let in_cleaning = load.cleanings.iter().any(is_inside);
        if at == Where::InCleanings && !in_cleaning {
            continue;
        }
        let samples = if in_cleaning { 0..12 } else { 0..4 };
        for loss in Loss::every(image.unsynced_count(), samples) {
            tally.crashes += 1;
            let crashed = image.crash(loss);
            if !tally.seen.insert((crashed.hash(), bounds.1)) {
                continue;
            }
            let names = crashed.list(Path::new(DIR)).unwrap();
            let is_sidecar = |name: &std::ffi::OsString| name.to_str().unwrap().contains(".index");
            tally.with_sidecars += usize::from(names.iter().any(is_sidecar));
            tally.in_checkpoints += usize::from(load.checkpoints.iter().any(is_inside));
            tally.in_cleanings += usize::from(in_cleaning);
            tally.with_manifests += usize::from(names.iter().any(|name| name == "MANIFEST"));
            check(&crashed, load, bounds, checkpoint_bytes).map_err(|error| {
                format!("{name}, boundary {}, {loss:?}: {error}", image.boundary())
            })?;
        }
    }
    Ok(())
}

#[test]
fn keys_producers_and_streams_are_those_of_the_model_after_any_power_cut() {
    let mut tally = Tally::default();
    for seed in seeds(1..=4) {
        check_load(seed, u64::MAX, &mut tally).unwrap();
    }
    let (crashes, sidecars, disks) = (tally.crashes, tally.with_sidecars, tally.distinct());
    say(&format!("shards: {crashes} crashes, {disks} distinct disks"));
    say(&format!("shards: {sidecars} disks with a sidecar"));
    assert!(disks > 3000, "{disks} distinct disks");
    assert!(sidecars > 1000, "{sidecars} with a sidecar");
}
