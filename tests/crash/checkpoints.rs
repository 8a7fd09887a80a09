//! Power cuts while checkpoints are taken, damage to them, and what they spare from reading.

use std::{
    ops::Bound,
    path::{Path, PathBuf},
};

use prkdb::storage::{
    bug::{self, Bug},
    disk::{
        Access, Disk as _,
        sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
    },
    log::entry::{Entry, LogId, Payload},
};

use super::{
    damage::files_of,
    oracle::{Tally, apply_rest, check_load, check_shard},
    power::{say, seeds},
    rig::{DIR, new_disk},
    shard::{CHECKPOINT_BYTES, Load, checkpoint, drive, open, open_with, run_with, try_open},
};

const COLLECTION: u32 = 1;

#[test]
fn a_shard_with_checkpoints_is_that_of_the_model_after_any_power_cut() {
    let mut tally = Tally::default();
    for seed in seeds(1..=2) {
        check_load(seed, CHECKPOINT_BYTES, &mut tally).unwrap();
    }
    let Tally { crashes, in_checkpoints, with_manifests, .. } = tally;
    let disks = tally.distinct();
    say(&format!("checkpoints: {crashes} crashes, {disks} distinct disks"));
    say(&format!(
        "checkpoints: {in_checkpoints} disks inside one, {with_manifests} with a manifest"
    ));
    assert!(in_checkpoints >= 2000, "{in_checkpoints} disks inside a checkpoint");
    assert!(with_manifests >= 2000, "{with_manifests} disks with a manifest");
}

#[test]
fn planted_checkpoint_without_windows_is_caught() {
    let planted = bug::plant(Bug::CheckpointWithoutWindows);
    let found =
        (1..=2).try_for_each(|seed| check_load(seed, CHECKPOINT_BYTES, &mut Tally::default()));
    drop(planted);
    say(&format!("planted checkpoint without windows: {found:?}"));
    assert!(found.is_err());
}

/// A load that ended cleanly, with checkpoints.
fn ended() -> Load {
    ended_with(2)
}

fn ended_with(seed: u64) -> Load {
    let load = run_with(seed, 150, CHECKPOINT_BYTES);
    load.shard.mark_synced();
    load.drive();
    assert!(load.shard.last_checkpoint().is_some());
    load
}

fn bounds(load: &Load) -> (usize, usize) {
    (load.models.len(), load.models.len())
}

#[test]
fn a_damaged_manifest_or_checkpoint_costs_time_and_nothing_else() {
    let load = ended();
    let (mut flips, mut cuts) = (0, 0);
    let is_ours = |name: &str| name == "MANIFEST" || name.ends_with(".checkpoint");
    let files = files_of(&load.disk).into_iter().filter(|(name, _)| is_ours(name));
    for (name, bytes) in files {
        let path = Path::new(DIR).join(&name);
        let check = |disk: &SimDisk, what: &str| {
            let shard = open(disk);
            check_shard(&shard, &load, bounds(&load))
                .unwrap_or_else(|error| panic!("{name}, {what}: {error}"));
            assert!(shard.last_checkpoint().is_none(), "{name}, {what}: it was believed");
        };
        for position in (0..bytes.len()).step_by(5) {
            let disk = load.disk.clone_image();
            disk.flip_bit(&path, position as u64, u8::try_from(position % 8).unwrap()).unwrap();
            check(&disk, &format!("bit of byte {position} flipped"));
            flips += 1;
        }
        for len in (0..bytes.len()).step_by(11) {
            let disk = load.disk.clone_image();
            disk.open(&path, Access::ReadWrite).unwrap().truncate(len as u64).unwrap();
            check(&disk, &format!("cut to {len} bytes"));
            cuts += 1;
        }
    }
    say(&format!("checkpoints: {flips} bits flipped, {cuts} lengths cut"));
    assert!(flips > 300 && cuts > 100, "{flips} flips, {cuts} cuts");
}

/// Reads everything by its key; counts what is refused, and demands that the rest is right.
fn read_all(disk: &SimDisk, load: &Load) -> Result<usize, String> {
    // The entry that the checkpoint was taken at is read at the start.
    let Ok(shard) = try_open(disk) else { return Ok(1) };
    if apply_rest(&shard).is_err() {
        return Ok(1);
    }
    let model = load.models.last().unwrap();
    let mut refused = 0;
    for (key, value) in model.values() {
        match shard.get(COLLECTION, key) {
            Ok(Some(found)) if found.value == *value => {}
            Ok(found) => return Err(format!("key {key:?} is {found:?}")),
            Err(_) => refused += 1,
        }
    }
    let snapshot = shard.scan(COLLECTION).unwrap();
    assert_eq!(snapshot.range(Bound::Unbounded, Bound::Unbounded).count(), model.values().count());
    Ok(refused)
}

/// Places in the segments below the checkpoint.
fn places_below(load: &Load) -> Vec<(PathBuf, usize)> {
    let mut segments: Vec<_> =
        files_of(&load.disk).into_iter().filter(|(name, _)| name.ends_with(".log")).collect();
    segments.sort();
    segments
        .iter()
        .take(segments.len() - 1)
        .flat_map(|(name, bytes)| {
            let path = Path::new(DIR).join(name);
            (4096..bytes.len()).step_by(23).map(move |position| (path.clone(), position))
        })
        .collect()
}

/// Reads all of a load with a bit flipped.
fn read_flipped(load: &Load, (path, position): &(PathBuf, usize)) -> Result<usize, String> {
    let disk = load.disk.clone_image();
    disk.flip_bit(path, *position as u64, u8::try_from(position % 8).unwrap()).unwrap();
    read_all(&disk, load)
}

#[test]
fn what_was_not_read_at_the_start_is_checked_when_it_is_read() {
    let load = ended();
    let (applied, _) = load.shard.last_checkpoint().unwrap();
    let (mut refused, mut flips) = (0, 0);
    for place in places_below(&load) {
        refused += read_flipped(&load, &place).unwrap();
        flips += 1;
    }
    let index = applied.index;
    say(&format!("{flips} bits flipped below the checkpoint at {index}: {refused} refused"));
    assert!(refused > 20, "{refused} of {flips}");
    let planted = bug::plant(Bug::HistoryNotChecked);
    // Not every load has a value where a bit is flipped.
    let found = (1..=8).map(ended_with).find_map(|load| {
        places_below(&load).iter().find_map(|place| read_flipped(&load, place).err())
    });
    drop(planted);
    assert!(found.is_some(), "damage that is not checked must be seen by this test");
}

#[test]
fn a_segment_below_the_checkpoint_that_is_gone_or_short_is_corruption() {
    let load = ended();
    let mut names: Vec<String> = files_of(&load.disk)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort();
    let path = Path::new(DIR).join(&names[0]);
    for is_cut in [true, false] {
        let disk = load.disk.clone_image();
        if is_cut {
            disk.open(&path, Access::ReadWrite).unwrap().truncate(6000).unwrap();
        } else {
            disk.remove(&path).unwrap();
        }
        let error = try_open(&disk).unwrap_err().to_string();
        assert!(error.contains("corrupt") && error.contains(&names[0]), "{error}");
    }
}

/// Tries a checkpoint of an entry that is applied and on its way to the disk, and cuts the power.
fn ahead_of_sync() -> Result<(), String> {
    let disk = new_disk();
    let shard = open_with(&disk, 0);
    let blank =
        |index| Entry { id: LogId { term: 1, index }, is_void: false, payload: Payload::Blank };
    shard.append(vec![blank(0)]).unwrap();
    drive(&shard);
    shard.apply_all(&[LogId { term: 1, index: 0 }]).unwrap();
    shard.append(vec![blank(1)]).unwrap();
    let job = shard.next_flush().unwrap();
    // It is written, and its sync takes its time.
    let (calls, failure, repeat) = (Calls::DataSyncs, Failure::Ignored, Repeat::Once);
    disk.fail(Fault { calls, nth: 1, failure, repeat });
    let result = job.run();
    disk.heal();
    shard.apply_all(&[LogId { term: 1, index: 1 }]).unwrap();
    let early = checkpoint(&shard);
    disk.record();
    disk.sync_dir(Path::new(DIR)).unwrap();
    let image = disk.take_recording().pop().unwrap();
    let opened = try_open(&image.crash(Loss::All)).map(drop).map_err(|error| error.to_string());
    assert!(!early || opened.is_err(), "a checkpoint ahead of the log must not open");
    shard.flushed(job, result).unwrap();
    assert!(early || checkpoint(&shard), "it is due once the entry is synced");
    opened
}

#[test]
fn an_entry_is_covered_only_when_it_is_synced() {
    ahead_of_sync().unwrap();
    let planted = bug::plant(Bug::CheckpointAheadOfSync);
    let found = ahead_of_sync();
    drop(planted);
    say(&format!("planted checkpoint ahead of the sync: {found:?}"));
    assert!(found.is_err());
}
