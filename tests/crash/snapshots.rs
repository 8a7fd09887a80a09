//! Snapshots: the files of a shard as it was at one entry, copied while it goes on, is cleaned and takes
//! checkpoints. Wherever the power goes, the shard is right, and the copy is whole or is none.

use std::{collections::HashSet, io::IoSlice, ops::Range, path::Path};

use prkdb::storage::{
    CopyPart,
    disk::{Access, Disk as _, sim::Loss},
};

use super::{
    oracle::{check, check_shard},
    power::{say, seeds},
    rig::DIR,
    shard::{CHECKPOINT_BYTES, Load, checkpoint, run_cleaned, try_open_in},
};

/// Bytes that are copied between two entries or so.
const PIECE_BYTES: usize = 6000;

/// How whoever copies may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copier {
    Right,
    /// It opens each file when its turn comes, and pins none.
    ByName,
    /// It gives the manifest its name before the files that it names are synced.
    ManifestFirst,
}

/// A copy that was made.
struct Made {
    dir: String,
    /// How many entries are in it.
    entries: usize,
    /// From the checkpoint to the end of the copy.
    boundaries: Range<u64>,
}

fn write(load: &Load, path: &str, position: u64, bytes: &[u8]) {
    let path = Path::new(path);
    let file = match load.disk.open(path, Access::ReadWrite) {
        Ok(file) => file,
        Err(_) => load.disk.create(path).unwrap(),
    };
    file.write_at(position, &[IoSlice::new(bytes)]).unwrap();
}

fn sync(load: &Load, path: &str) {
    load.disk.open(Path::new(path), Access::ReadWrite).unwrap().sync_all().unwrap();
}

/// Copies a file piece by piece; in between the shard goes on.
fn copy_part(load: &mut Load, part: &CopyPart, path: &str, copier: Copier) -> Result<(), String> {
    let mut position = 0;
    while position < part.len {
        let bytes = if copier == Copier::ByName {
            let name = Path::new(DIR).join(&part.name);
            let file = load.disk.open(&name, Access::Read).map_err(|error| error.to_string())?;
            let left = usize::try_from(part.len - position).unwrap();
            let mut bytes = vec![0; left.min(PIECE_BYTES)];
            file.read_at(position, &mut bytes).map_err(|error| error.to_string())?;
            bytes.into()
        } else {
            part.read(position, PIECE_BYTES).map_err(|error| error.to_string())?
        };
        write(load, path, position, &bytes);
        position += bytes.len() as u64;
        load.go_on(load.models.len() + 3);
    }
    sync(load, path);
    Ok(())
}

/// Takes a snapshot and copies it into a directory of the same disk. The manifest comes last, by a name of
/// its own: it says that there is a copy.
fn copy(load: &mut Load, dir: &str, copier: Copier) -> Result<Made, String> {
    let since = load.disk.boundary_count();
    load.shard.mark_synced();
    load.drive();
    if let Some(job) = load.shard.checkpoint_now() {
        let (finished, result) = job.run();
        load.shard.checkpointed(finished, &result);
        result.map_err(|error| error.to_string())?;
    }
    let copy = load.shard.copy().map_err(|error| error.to_string())?.unwrap();
    let entries = usize::try_from(copy.version.applied.index).unwrap() + 1;
    let held = load.shard.snapshots().map_err(|error| error.to_string())?;
    assert!(held.iter().any(|(version, readers)| *version == copy.version && *readers == 1));
    load.disk.create_dir(Path::new(dir)).unwrap();
    load.disk.sync_dir(Path::new("/")).unwrap();
    let (manifest, others) = copy.parts.split_first().unwrap();
    assert_eq!(manifest.name, "MANIFEST");
    let temporary = format!("{dir}/MANIFEST-new");
    let named = |load: &Load| {
        let to = format!("{dir}/MANIFEST");
        load.disk.rename(Path::new(&temporary), Path::new(&to)).unwrap();
        load.disk.sync_dir(Path::new(dir)).unwrap();
    };
    if copier == Copier::ManifestFirst {
        copy_part(load, manifest, &temporary, copier)?;
        named(load);
    }
    for part in others {
        copy_part(load, part, &format!("{dir}/{}", part.name), copier)?;
    }
    load.disk.sync_dir(Path::new(dir)).unwrap();
    if copier != Copier::ManifestFirst {
        copy_part(load, manifest, &temporary, Copier::Right)?;
        named(load);
    }
    let boundaries = since..load.disk.boundary_count();
    Ok(Made { dir: dir.to_owned(), entries, boundaries })
}

#[derive(Default)]
struct Tally {
    crashes: usize,
    /// Disks on which a snapshot was under way.
    inside: usize,
    /// Disks with a copy.
    with_copy: usize,
}

fn check_copies(seed: u64, copier: Copier, tally: &mut Tally) -> Result<(), String> {
    let mut load = run_cleaned(seed, 60);
    let mut made = Vec::new();
    for number in 0..2 {
        made.push(copy(&mut load, &format!("/copy-{number}"), copier)?);
    }
    // Nobody holds one any more.
    let left = load.shard.snapshots().map_err(|error| error.to_string())?;
    assert!(left.len() == 1 && left[0].1 == 0, "{left:?}");
    let mut seen = HashSet::new();
    for image in load.disk.take_recording() {
        let boundary = image.boundary();
        let Some(under_way) = made.iter().find(|made| made.boundaries.contains(&boundary)) else {
            continue;
        };
        let count = load.moments.partition_point(|moment| moment.0 <= boundary);
        let bounds = (load.moments[count - 1].1, load.moments[count - 1].2);
        for loss in Loss::every(image.unsynced_count(), 0..3) {
            tally.crashes += 1;
            let crashed = image.crash(loss);
            if !seen.insert((crashed.hash(), bounds.1)) {
                continue;
            }
            tally.inside += 1;
            let told =
                |error: String| format!("snapshots {seed}, boundary {boundary}, {loss:?}: {error}");
            check(&crashed, &load, bounds, CHECKPOINT_BYTES).map_err(told)?;
            let has = |dir: &str| {
                let names = crashed.list(Path::new(dir)).unwrap_or_default();
                names.iter().any(|name| name == "MANIFEST")
            };
            for made in made.iter().filter(|made| made.boundaries.start <= boundary) {
                if !has(&made.dir) {
                    let is_over = made.boundaries.end <= boundary;
                    assert!(!is_over, "{}: a copy that was synced is gone", told(made.dir.clone()));
                    continue;
                }
                tally.with_copy += 1;
                // An older one was checked while it was under way.
                if made.dir == under_way.dir {
                    check_copy(&crashed, made, &load).map_err(told)?;
                }
            }
        }
    }
    Ok(())
}

fn check_copy(
    disk: &prkdb::storage::disk::sim::SimDisk,
    made: &Made,
    load: &Load,
) -> Result<(), String> {
    let bounds = (made.entries, made.entries);
    for again in [false, true] {
        let shard = try_open_in(disk, &made.dir, CHECKPOINT_BYTES);
        let shard = shard.map_err(|error| format!("copy: {error}"))?;
        check_shard(&shard, load, bounds)
            .map_err(|error| format!("copy, opened again: {again}: {error}"))?;
        checkpoint(&shard);
    }
    Ok(())
}

#[test]
fn a_snapshot_is_whole_or_none_after_any_power_cut() {
    let mut tally = Tally::default();
    for seed in seeds(1..=1) {
        check_copies(seed, Copier::Right, &mut tally).unwrap();
    }
    let Tally { crashes, inside, with_copy } = tally;
    say(&format!("snapshots: {crashes} crashes, {inside} disks inside of one, {with_copy} copies"));
    assert!(inside >= 2000, "{inside} disks inside of a snapshot");
}

#[test]
fn planted_copiers_are_caught() {
    for copier in [Copier::ByName, Copier::ManifestFirst] {
        let found = (1..=6).try_for_each(|seed| check_copies(seed, copier, &mut Tally::default()));
        say(&format!("planted {copier:?}: {found:?}"));
        assert!(found.is_err(), "{copier:?}");
    }
}
