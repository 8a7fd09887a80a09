//! Logs that are cleaned: what is needless goes and gives its room back, and nothing else does, whenever
//! the power goes.

use std::{
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use prkdb::storage::{
    CleanStep,
    bug::{self, Bug},
    disk::{Disk, sim::SimDisk},
    log::inspect::{self, CutPlan, Depth, LogOwner, LogReport},
};

use super::{
    damage::files_of,
    oracle::{Tally, Where, apply_rest, check_cleaned, check_shard},
    power::{say, seeds},
    rig::DIR,
    shard::{
        CHECKPOINT_BYTES, COLLECTION, Load, checkpoint, open_with, run_all, run_cleaned, run_with,
    },
};

#[test]
fn a_cleaned_shard_is_that_of_the_model_after_any_power_cut() {
    let mut tally = Tally::default();
    for seed in seeds(1..=1) {
        check_cleaned(seed, 130, Where::Everywhere, &mut tally).unwrap();
    }
    for seed in seeds(2..=4) {
        check_cleaned(seed, 150, Where::InCleanings, &mut tally).unwrap();
    }
    for seed in seeds(4..=12) {
        check_ended(&run_cold(seed)).unwrap();
    }
    let (crashes, disks, inside) = (tally.crashes, tally.distinct(), tally.in_cleanings);
    say(&format!("cleaning: {crashes} crashes, {disks} distinct disks"));
    say(&format!("cleaning: {inside} disks inside of one, up to its checkpoint"));
    assert!(inside >= 2000, "{inside} disks inside of a cleaning");
}

fn log_bytes(disk: &SimDisk) -> usize {
    let of_log = |name: &str| name.ends_with(".log") || name.ends_with(".history");
    files_of(disk).iter().filter(|(name, _)| of_log(name)).map(|(_, bytes)| bytes.len()).sum()
}

fn bytes_of_both(entries: usize) -> (usize, usize) {
    let cleaned = run_cleaned(7, entries);
    let kept = run_with(7, entries, CHECKPOINT_BYTES);
    (log_bytes(&cleaned.disk), log_bytes(&kept.disk))
}

#[test]
fn what_is_needless_gives_its_room_back() {
    let (cleaned, kept) = bytes_of_both(1500);
    say(&format!("1500 entries: {kept} bytes, cleaned {cleaned}"));
    // The records of one of three partitions with keys stay.
    assert!(cleaned * 10 < kept * 6, "{cleaned} of {kept} bytes are left");
    let planted = bug::plant(Bug::CleanKeepsReplaced);
    let (cleaned, kept) = bytes_of_both(1500);
    drop(planted);
    say(&format!("planted CleanKeepsReplaced: {cleaned} of {kept} bytes"));
    assert!(cleaned * 10 >= kept * 6, "{cleaned} of {kept} bytes: the check above must see this");
}

#[test]
fn planted_cleanings_are_caught() {
    for planted in
        [Bug::CleanForgetsTombstones, Bug::CleanForgetsKeys, Bug::RemovedBeforeCheckpoint]
    {
        let guard = bug::plant(planted);
        let found = (4..=12).try_for_each(|seed| {
            let run = || {
                check_ended(&run_cold(seed))?;
                check_cleaned(seed, 130, Where::InCleanings, &mut Tally::default())
            };
            // What a shard refuses while it is loaded is caught as well.
            std::panic::catch_unwind(run).unwrap_or_else(|_| Err("the load panicked".to_owned()))
        });
        drop(guard);
        say(&format!("planted {planted:?}: {found:?}"));
        assert!(found.is_err(), "{planted:?}");
    }
}

#[test]
fn a_snapshot_reads_what_was_cleaned_away_since() {
    let mut load = run_cleaned(3, 60);
    let snapshot = load.shard.scan(COLLECTION).unwrap();
    let all = || snapshot.range(Bound::Unbounded, Bound::Unbounded);
    let read = || {
        let mut values = snapshot.values();
        all().map(|(key, leaf)| (key, values.read(leaf).unwrap())).collect::<Vec<_>>()
    };
    let before = read();
    assert!(!before.is_empty());
    let segments = |disk: &SimDisk| -> Vec<String> {
        files_of(disk).into_iter().map(|(name, _)| name).filter(|n| n.ends_with(".log")).collect()
    };
    let had = segments(&load.disk);
    load.go_on(400);
    // What was written takes its place, and is committed.
    load.clean();
    load.go_on(420);
    let has = segments(&load.disk);
    assert!(had.iter().all(|name| !has.contains(name)), "all of them were replaced: {has:?}");
    assert_eq!(read(), before);
}

/// Tries to take a checkpoint between two steps of pointing keys at what a cleaning has written; returns how
/// many were taken, and what is wrong with the disk then.
fn checkpoint_beside(seed: u64, at_step: usize) -> (usize, Result<(), String>) {
    let mut load = run_with(seed, 60, CHECKPOINT_BYTES);
    // The keys grow cold: what is cleaned has the latest record of some.
    load.go_on_without_keys(200);
    let shard = &load.shard;
    shard.mark_synced();
    load.drive();
    let job = shard.checkpoint_now().unwrap();
    let (finished, result) = job.run();
    shard.checkpointed(finished, &result);
    let (job, done) = loop {
        match shard.next_cleaning().unwrap() {
            CleanStep::Purge(up_to) => {
                shard.purge(up_to).unwrap();
                load.drive();
            }
            CleanStep::Clean(job) => {
                let done = job.run(&mut |_| {}).unwrap();
                break (job, done);
            }
        }
    };
    // There is something that the checkpoint does not have, and enough for another one to be due.
    load.takes_checkpoints = false;
    load.go_on_without_keys(load.models.len() + 60);
    load.shard.mark_synced();
    load.drive();
    let (shard, mut taken, mut steps) = (&load.shard, 0, 0);
    shard
        .cleaned(job, done, &mut || {
            steps += 1;
            if steps == at_step
                && let Some(job) = shard.next_checkpoint()
            {
                let (finished, result) = job.run();
                shard.checkpointed(finished, &result);
                taken += 1;
            }
        })
        .unwrap();
    assert!(steps >= at_step, "{steps} steps");
    let count = load.models.len();
    let opened = open_with(&load.disk.clone_image(), u64::MAX);
    (taken, check_shard(&opened, &load, (count, count)))
}

#[test]
fn no_checkpoint_is_taken_while_keys_are_pointed_elsewhere() {
    for seed in 1..=4 {
        assert_eq!(checkpoint_beside(seed, 5), (0, Ok(())), "load {seed}");
    }
    let planted = bug::plant(Bug::CheckpointInRelocation);
    // A key must have been pointed elsewhere by then.
    let found = (1..=20).try_for_each(|step| {
        let (taken, found) = checkpoint_beside(1, step);
        assert_eq!(taken, 1);
        found
    });
    drop(planted);
    say(&format!("planted CheckpointInRelocation: {found:?}"));
    assert!(found.is_err());
}

/// A load whose keys are written for the last time long before its end.
fn run_cold(seed: u64) -> Load {
    let mut load = run_cleaned(seed, 60);
    load.go_on_without_keys(260);
    load
}

/// Compares what opens when a load is synced with the model.
fn check_ended(load: &Load) -> Result<(), String> {
    load.shard.mark_synced();
    load.drive();
    let shard = open_with(&load.disk.clone_image(), CHECKPOINT_BYTES);
    apply_rest(&shard)?;
    let count = load.models.len();
    check_shard(&shard, load, (count, count))
}

#[test]
fn a_segment_that_cannot_be_read_is_passed_over_and_the_others_are_cleaned() {
    let load = run_all(4, 300, CHECKPOINT_BYTES, false);
    let (disk, shard) = (&load.disk, &load.shard);
    shard.mark_synced();
    load.drive();
    let mut logs: Vec<String> = files_of(disk)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".log"))
        .collect();
    logs.sort();
    let damaged = Path::new(DIR).join(&logs[logs.len() / 3]);
    let (mut refused, mut cleaned) = (0, 0);
    while let Some(step) = shard.next_cleaning() {
        match step {
            CleanStep::Purge(up_to) => {
                shard.purge(up_to).unwrap();
                load.drive();
                if refused + cleaned == 0 {
                    disk.flip_bit(&damaged, 4096 + 100, 3).unwrap();
                }
            }
            CleanStep::Clean(job) => match job.run(&mut |_| {}) {
                Ok(done) => {
                    shard.cleaned(job, done, &mut || {}).unwrap();
                    cleaned += 1;
                    load.drive();
                    let (finished, result) = shard.checkpoint_now().unwrap().run();
                    shard.checkpointed(finished, &result);
                    result.unwrap();
                }
                Err(failed) => {
                    assert!(failed.unreadable.is_some(), "{failed}");
                    shard.not_cleaned(&failed);
                    refused += 1;
                }
            },
        }
    }
    say(&format!("{cleaned} cleanings beside a damaged segment"));
    assert_eq!(refused, 1, "it is not tried again");
    assert!(cleaned > 0 && disk.exists(&damaged).unwrap());
}

#[test]
fn sidecars_of_history_are_made_again_from_it() {
    let load = run_cleaned(5, 300);
    load.shard.mark_synced();
    load.drive();
    checkpoint(&load.shard);
    let disk = load.disk.clone_image();
    let sidecars = files_of(&disk).into_iter().map(|(name, _)| name);
    let sidecars: Vec<_> = sidecars.filter(|name| name.ends_with(".index")).collect();
    assert!(!sidecars.is_empty());
    for name in sidecars {
        disk.remove(&Path::new(DIR).join(name)).unwrap();
    }
    let shard = open_with(&disk, CHECKPOINT_BYTES);
    apply_rest(&shard).unwrap();
    let count = load.models.len();
    check_shard(&shard, &load, (count, count)).unwrap();
}

#[test]
fn a_cleaned_log_is_looked_at_whole_and_its_damage_is_found() {
    let load = run_cleaned(5, 300);
    load.shard.mark_synced();
    load.drive();
    let verify = |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let owner = LogOwner { shard: 1, cluster_id: [5; 16] };
        inspect::verify(&disk, Path::new(DIR), owner, Depth::Records).unwrap()
    };
    let report = verify(&load.disk.clone_image());
    assert!(report.damage.is_none(), "{:?}", report.damage);
    assert_eq!(report.last.unwrap().index + 1, load.models.len() as u64);
    // What was replaced, and is not removed yet, nobody reads.
    let read: Vec<_> = report.segments.iter().filter(|it| it.is_read).map(|it| &it.path).collect();
    let mut flips = 0;
    for (name, bytes) in files_of(&load.disk) {
        let path = Path::new(DIR).join(&name);
        if !name.ends_with(".history") || !read.contains(&&path) {
            continue;
        }
        for position in (4096..bytes.len()).step_by(37) {
            let disk = load.disk.clone_image();
            disk.flip_bit(&path, position as u64, u8::try_from(position % 8).unwrap()).unwrap();
            let damage = verify(&disk).damage;
            assert!(damage.is_some_and(|damage| damage.path == path), "{name} at {position}");
            flips += 1;
        }
    }
    say(&format!("cleaned logs: {flips} bits of history flipped, each found"));
    assert!(flips > 100, "{flips} flips");
}

#[test]
fn a_cleaned_log_is_cut_behind_its_checkpoint_and_nowhere_else() {
    let mut load = run_cleaned(5, 300);
    let owner = LogOwner { shard: 1, cluster_id: [5; 16] };
    let verify = |disk: &SimDisk, dir: &Path| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        inspect::verify(&disk, dir, owner, Depth::Records).unwrap()
    };
    // Until there is something behind the last checkpoint.
    let (sound, resume, end) = loop {
        load.shard.mark_synced();
        load.drive();
        let sound = verify(&load.disk.clone_image(), Path::new(DIR));
        let (resume, end) = (sound.resume.unwrap(), sound.end.unwrap());
        if end.0 > resume.0 || end.1 > resume.1 + 3000 {
            break (sound, resume, end);
        }
        load.go_on(load.models.len() + 1);
    };
    let (mut cuts, mut refused) = (0, 0);
    for segment in sound.segments.iter().filter(|segment| segment.is_read) {
        for position in (4096..segment.end).step_by(41) {
            let disk = load.disk.clone_image();
            disk.flip_bit(&segment.path, position, u8::try_from(position % 8).unwrap()).unwrap();
            let report = verify(&disk, Path::new(DIR));
            // Damage of the last entry may be a tail that was torn.
            let Some(damage) = &report.damage else { continue };
            let plan = CutPlan::at_end(&report);
            let is_behind = (segment.number, damage.position) >= resume && segment.number <= end.0;
            assert_eq!(plan.loses_history(&report), !is_behind, "{:?}", report.damage);
            if !is_behind {
                refused += 1;
                continue;
            }
            let to = Path::new("/copy");
            disk.create_dir(to).unwrap();
            inspect::copy_log(&disk, (Path::new(DIR), to), &report, Some(&plan), 77).unwrap();
            inspect::cut_in_place(&disk, Path::new(DIR), &report, &plan, 78).unwrap();
            for dir in [DIR, "/copy"] {
                let again = verify(&disk, Path::new(dir));
                assert!(again.damage.is_none(), "{dir}: {:?}", again.damage);
                assert_eq!(again.last, report.last);
            }
            let count = usize::try_from(report.last.unwrap().index + 1).unwrap();
            let shard = open_with(&disk, CHECKPOINT_BYTES);
            apply_rest(&shard).unwrap();
            check_shard(&shard, &load, (count, count)).unwrap();
            cuts += 1;
        }
    }
    say(&format!("cleaned logs: {cuts} cut behind the checkpoint, {refused} refused"));
    assert!(cuts > 10 && refused > 100, "{cuts} cut, {refused} refused");
}

#[test]
fn a_cleaned_log_that_misses_a_segment_is_cut_there_and_nowhere_before() {
    let mut load = run_cleaned(5, 300);
    load.takes_checkpoints = false;
    let owner = LogOwner { shard: 1, cluster_id: [5; 16] };
    let verify = |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        inspect::verify(&disk, Path::new(DIR), owner, Depth::Records).unwrap()
    };
    let from_checkpoint = |report: &LogReport| -> Vec<(u64, u64, PathBuf)> {
        let first = report.resume.unwrap().0;
        let segments = report.segments.iter().filter(|it| it.is_read && it.number >= first);
        let segments = segments.map(|it| (it.number, it.end, it.path.clone()));
        segments.filter(|(_, _, path)| path.extension().is_some_and(|it| it == "log")).collect()
    };
    let segments = loop {
        load.shard.mark_synced();
        load.drive();
        let segments = from_checkpoint(&verify(&load.disk.clone_image()));
        if segments.len() > 4 {
            break segments;
        }
        load.go_on_without_keys(load.models.len() + 5);
    };
    // The loss of the newest cannot be told from one that never was.
    for pair in segments.windows(2).take(segments.len() - 2) {
        let [(before, end, _), (number, _, path)] = pair else { unreachable!() };
        for is_lost in [false, true] {
            let disk = load.disk.clone_image();
            if is_lost {
                disk.lose_file(path).unwrap();
            } else {
                disk.flip_bit(path, 100, 3).unwrap();
            }
            let report = verify(&disk);
            let damage = report.damage.as_ref().unwrap();
            assert_eq!(&damage.path, path, "segment {number}, lost: {is_lost}");
            assert_eq!(report.end, Some((*before, *end)), "segment {number}, lost: {is_lost}");
            let plan = CutPlan::at_end(&report);
            assert!(!plan.loses_history(&report));
            inspect::cut_in_place(&disk, Path::new(DIR), &report, &plan, 78).unwrap();
            let again = verify(&disk);
            assert!(again.damage.is_none(), "{:?}", again.damage);
            let count = usize::try_from(report.last.unwrap().index + 1).unwrap();
            let shard = open_with(&disk, CHECKPOINT_BYTES);
            apply_rest(&shard).unwrap();
            check_shard(&shard, &load, (count, count)).unwrap();
        }
    }
}

#[test]
fn without_its_checkpoint_a_cleaned_log_is_refused_and_not_read_in_part() {
    let load = run_cleaned(5, 300);
    load.shard.mark_synced();
    load.drive();
    let is_ours = |name: &str| name == "MANIFEST" || name.ends_with(".checkpoint");
    for (name, bytes) in files_of(&load.disk).into_iter().filter(|(name, _)| is_ours(name)) {
        let disk = load.disk.clone_image();
        disk.flip_bit(&Path::new(DIR).join(&name), bytes.len() as u64 / 2, 3).unwrap();
        let error = super::shard::try_open_with(&disk, CHECKPOINT_BYTES).unwrap_err();
        say(&format!("{name}: {error}"));
        assert!(error.to_string().contains("corrupt"), "{name}: {error}");
        let disk = load.disk.clone_image();
        disk.lose_file(&Path::new(DIR).join(&name)).unwrap();
        let error = super::shard::try_open_with(&disk, CHECKPOINT_BYTES).unwrap_err();
        say(&format!("{name}, gone: {error}"));
        assert!(error.to_string().contains("corrupt"), "{name}, gone: {error}");
    }
}
