//! Snapshots of another replica that are refused, meet a failing disk or other work, or travel on.

use std::{io::IoSlice, ops::ControlFlow, path::Path, sync::Arc};

use prkdb::storage::{
    CleanStep, Install, Shard, ShardCopy, ShardOptions, StorageError,
    clock::SeededRng,
    disk::{
        Disk,
        sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
    },
    log::{
        entry::Vote,
        inspect::{self, Depth, LogOwner},
    },
};

use super::{
    installing::{OWN, Own, Replicated, VOTE, check_replica, install, prepare},
    oracle::check_shard,
    power::say,
    rig::DIR,
    shard::{drive, open_with, options, try_open_in},
};

#[test]
fn an_installed_snapshot_is_copied_and_installed_again() {
    for seed in 1..=2 {
        let log = Replicated::new(seed);
        for own in OWN {
            let (disk, shard) = log.replica(own);
            install(&shard, &log.copy).unwrap();
            let copy = shard.copy().unwrap().unwrap();
            assert_eq!(copy.version.applied, log.copy.version.applied);
            let (_disk, third) = log.replica(Own::Nothing);
            install(&third, &copy).unwrap();
            check_shard(&third, &log.load, (log.taken(), log.taken())).unwrap();
            assert_eq!(third.vote(), Some(VOTE));
            shard.mark_synced();
            drive(&shard);
            drop(shard);
            verify(&disk, own);
        }
    }
}

#[test]
fn what_is_appended_behind_the_mark_is_waited_for() {
    let log = Replicated::new(2);
    let (disk, shard) = log.replica(Own::Less);
    let prepared = prepare(&shard, &log.copy).unwrap();
    let mark = shard.mark().unwrap();
    let later = Vote { term: 12, ..VOTE };
    shard.save_vote(later).unwrap();
    let Install::NotYet(prepared) = shard.install(prepared, mark).unwrap() else {
        panic!("the vote is not synced");
    };
    drive(&shard);
    let Install::NotYet(prepared) = shard.install(*prepared, mark).unwrap() else {
        panic!("the mark is not the last");
    };
    let mark = shard.mark().unwrap();
    drive(&shard);
    assert!(matches!(shard.install(*prepared, mark).unwrap(), Install::Done(_)));
    drop(shard);
    let shard = open_with(&disk, u64::MAX);
    assert_eq!(shard.vote(), Some(later));
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
}

fn checkpoint_now(shard: &Shard) {
    shard.mark_synced();
    drive(shard);
    while let Some(job) = shard.next_sidecar() {
        let result = job.run();
        shard.sidecar_done(&job, result);
    }
    if let Some(job) = shard.checkpoint_now() {
        let (finished, result) = job.run();
        shard.checkpointed(finished, &result);
        result.unwrap();
    }
}

/// Does all cleaning that is worth it; returns how often something was replaced.
fn clean(shard: &Shard) -> usize {
    let mut count = 0;
    checkpoint_now(shard);
    while let Some(step) = shard.next_cleaning() {
        match step {
            CleanStep::Purge(up_to) => {
                shard.purge(up_to).unwrap();
                drive(shard);
            }
            CleanStep::Clean(job) => {
                let done = job.run(&mut |_| {}).unwrap();
                shard.cleaned(job, done, &mut || {}).unwrap();
                count += 1;
                checkpoint_now(shard);
            }
        }
    }
    count
}

#[test]
fn an_installed_log_is_cleaned_like_any_other() {
    let mut count = 0;
    for seed in 1..=2 {
        let log = Replicated::new(seed);
        for own in OWN {
            let (disk, shard) = log.replica(own);
            install(&shard, &log.copy).unwrap();
            count += clean(&shard);
            log.go_on(&shard).unwrap();
            count += clean(&shard);
            let all = log.load.models.len();
            check_shard(&shard, &log.load, (all, all)).unwrap();
            drop(shard);
            verify(&disk, own);
            check_shard(&open_with(&disk, u64::MAX), &log.load, (all, all)).unwrap();
        }
    }
    say(&format!("installing: {count} cleanings of what was installed"));
    assert!(count > 6, "{count} cleanings");
}

/// The rest of the log would open as one that is nearly empty.
#[test]
fn an_installed_log_whose_manifest_or_checkpoint_is_damaged_or_gone_is_refused() {
    let log = Replicated::new(1);
    for own in OWN {
        let (disk, shard) = log.replica(own);
        install(&shard, &log.copy).unwrap();
        // As Raft does.
        shard.purge(log.copy.version.applied).unwrap();
        shard.mark_synced();
        drive(&shard);
        drop(shard);
        let files = names(&disk);
        let vital = |name: &&String| *name == "MANIFEST" || name.contains(".checkpoint");
        for name in files.iter().filter(vital) {
            let damaged = disk.clone_image();
            damaged.flip_bit(&Path::new(DIR).join(name), 60, 3).unwrap();
            let opened = try_open_in(&damaged, DIR, u64::MAX).map(drop);
            assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{own:?}, {name}");
            let gone = disk.clone_image();
            gone.lose_file(&Path::new(DIR).join(name)).unwrap();
            let opened = try_open_in(&gone, DIR, u64::MAX).map(drop);
            let is_corrupt = matches!(opened, Err(StorageError::Corrupt { .. }));
            assert!(is_corrupt, "{own:?}, {name}: {opened:?}");
        }
    }
}

/// Whoever looks at a stopped log finds nothing wrong.
fn verify(disk: &SimDisk, own: Own) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let owner = LogOwner { shard: 1, cluster_id: [5; 16] };
    let report = inspect::verify(&disk, Path::new(DIR), owner, Depth::Records).unwrap();
    assert!(report.damage.is_none(), "{own:?}: {:?}", report.damage);
}

fn names(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(Path::new(DIR)).unwrap().into_iter();
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| !name.contains(".log")).collect()
}

#[test]
fn one_that_is_given_up_or_meets_a_failing_disk_leaves_nothing() {
    let log = Replicated::new(1);
    let (disk, shard) = log.replica(Own::Less);
    let had = names(&disk);
    drop(prepare(&shard, &log.copy).unwrap());
    assert_eq!(names(&disk), had);
    for entries in [0, 1, 50] {
        let mut left = entries;
        let given_up = shard.prepare_snapshot(&log.copy, &mut |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(given_up, Err(StorageError::Snapshot { .. })), "{entries}");
        assert_eq!(names(&disk), had, "given up at entry {entries}");
    }
    let mut failures = 0;
    for calls in [Calls::Writes, Calls::DataSyncs, Calls::DirSyncs, Calls::Names, Calls::Reads] {
        for nth in 1.. {
            let struck = disk.struck_count();
            disk.fail(Fault { calls, nth, failure: Failure::Io, repeat: Repeat::Once });
            let prepared = prepare(&shard, &log.copy);
            disk.heal();
            if disk.struck_count() == struck {
                break;
            }
            // A sidecar need not be written.
            failures += usize::from(prepared.is_err());
            drop(prepared);
            assert_eq!(names(&disk), had, "{calls:?} {nth}");
        }
    }
    assert!(failures > 20, "{failures} failures");
    install(&shard, &log.copy).unwrap();
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
}

#[test]
fn what_stands_behind_a_snapshot_can_be_truncated() {
    let log = Replicated::new(1);
    let (disk, shard) = log.replica(Own::More);
    install(&shard, &log.copy).unwrap();
    shard.truncate_after(Some(log.copy.version.applied)).unwrap();
    drive(&shard);
    assert_eq!(shard.log_state().last, Some(log.copy.version.applied));
    log.go_on(&shard).unwrap();
    let all = log.load.models.len();
    check_shard(&shard, &log.load, (all, all)).unwrap();
    drop(shard);
    check_shard(&open_with(&disk, u64::MAX), &log.load, (all, all)).unwrap();
}

#[test]
fn a_copy_in_a_directory_is_installed() {
    let log = Replicated::new(2);
    let dir = Path::new("/copy");
    log.sender_disk.create_dir(dir).unwrap();
    for part in &log.copy.parts {
        let file = log.sender_disk.create(&dir.join(&part.name)).unwrap();
        file.write_at(0, &[IoSlice::new(&part.read(0, usize::MAX).unwrap())]).unwrap();
    }
    let foreign = ShardCopy::open(&log.sender_disk, dir, 2, [5; 16]);
    assert!(matches!(foreign, Err(StorageError::Foreign { .. })), "{foreign:?}");
    let copy = ShardCopy::open(&log.sender_disk, dir, 1, [5; 16]).unwrap().unwrap();
    let (_disk, shard) = log.replica(Own::Less);
    install(&shard, &copy).unwrap();
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
    // Without one of its files it is none.
    let name = &log.copy.parts.last().unwrap().name;
    log.sender_disk.remove(&dir.join(name)).unwrap();
    let missing = ShardCopy::open(&log.sender_disk, dir, 1, [5; 16]);
    assert!(matches!(missing, Err(StorageError::Io { .. })), "{missing:?}");
}

/// The n-th call of the step that installs fails, and what the disk has not synced is lost then.
#[test]
fn a_call_that_fails_in_the_step_leaves_the_one_state_or_the_other() {
    let log = Replicated::new(1);
    let (mut refused, mut failed) = (0, 0);
    for own in OWN {
        for (nth, repeat) in (1..).flat_map(|nth| [(nth, Repeat::Once), (nth, Repeat::Sticky)]) {
            let (disk, shard) = log.replica(own);
            let prepared = prepare(&shard, &log.copy).unwrap();
            let mark = shard.mark().unwrap();
            drive(&shard);
            disk.fail(Fault { calls: Calls::All, nth, failure: Failure::Io, repeat });
            let installed = shard.install(prepared, mark);
            let struck = disk.struck_count();
            disk.heal();
            if struck == 0 {
                assert!(matches!(installed, Ok(Install::Done(_))));
                break;
            }
            assert!(installed.is_err(), "{own:?}, call {nth}");
            if shard.mark().is_ok() {
                refused += 1;
                assert_eq!(check_replica(&shard, &log, own), Ok(false), "{own:?}, call {nth}");
            } else {
                // The process ends: whichever manifest is there counts.
                failed += 1;
            }
            for loss in [Loss::All, Loss::None] {
                let crashed = disk.crash_image(loss);
                let found = check_replica(&open_with(&crashed, u64::MAX), &log, own);
                assert!(found.is_ok(), "{own:?}, call {nth}, {loss:?}: {found:?}");
            }
        }
    }
    say(&format!("installing: {refused} steps refused by the disk, {failed} ended the log"));
    assert!(refused > 0 && failed > 0);
}

#[test]
fn a_snapshot_with_any_byte_changed_is_refused() {
    let log = Replicated::new(1);
    let (disk, shard) = log.replica(Own::Less);
    let had = names(&disk);
    let mut refused = 0;
    for part in log.copy.parts.iter().filter(|part| part.name != "MANIFEST") {
        let path = Path::new(DIR).join(&part.name);
        for at in 0..40 {
            let position = at * (part.len - 1) / 39;
            log.sender_disk.flip_bit(&path, position, 3).unwrap();
            let prepared = prepare(&shard, &log.copy);
            log.sender_disk.flip_bit(&path, position, 3).unwrap();
            let error = prepared.map(drop).unwrap_err();
            assert!(
                matches!(error, StorageError::Corrupt { .. } | StorageError::NewerFormat { .. }),
                "{}, byte {position}: {error}",
                part.name
            );
            assert_eq!(names(&disk), had);
            refused += 1;
        }
    }
    say(&format!("installing: {refused} snapshots with a byte changed"));
    install(&shard, &log.copy).unwrap();
}

#[test]
fn a_snapshot_of_another_shard_or_cluster_is_refused() {
    let log = Replicated::new(1);
    let disk = super::rig::new_disk();
    for (number, cluster_id) in [(2, [5; 16]), (1, [6; 16])] {
        let options = ShardOptions { shard: number, cluster_id, ..options(u64::MAX) };
        let rng = &mut SeededRng::new(1);
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let (shard, _) = Shard::open(disk, Path::new(DIR), &options, rng, 1000).unwrap();
        let refused = prepare(&shard, &log.copy).map(drop);
        assert!(matches!(refused, Err(StorageError::Foreign { .. })), "{refused:?}");
    }
    let (_disk, shard) = log.replica(Own::Less);
    install(&shard, &log.copy).unwrap();
    let again = install(&shard, &log.copy);
    assert!(matches!(again, Err(StorageError::Snapshot { .. })), "{again:?}");
}

#[test]
fn what_is_committed_is_not_replaced_by_other_entries() {
    let log = Replicated::new(1);
    let (_disk, shard) = log.replica(Own::Other);
    let last = shard.log_state().last;
    shard.set_committed(last);
    let prepared = prepare(&shard, &log.copy).unwrap();
    let mark = shard.mark().unwrap();
    drive(&shard);
    let refused = shard.install(prepared, mark);
    assert!(matches!(refused, Err(StorageError::Snapshot { .. })), "{refused:?}");
    assert_eq!(shard.log_state().last, last);
}

#[test]
fn a_cleaning_that_ends_after_an_installation_changes_nothing() {
    let log = Replicated::new(2);
    let (disk, shard) = log.replica_of(90);
    let job = loop {
        match shard.next_cleaning() {
            Some(CleanStep::Purge(up_to)) => {
                shard.purge(up_to).unwrap();
                drive(&shard);
            }
            Some(CleanStep::Clean(job)) => break job,
            None => panic!("nothing is worth cleaning"),
        }
    };
    let done = job.run(&mut |_| {}).unwrap();
    let prepared = prepare(&shard, &log.copy).unwrap();
    assert!(shard.next_cleaning().is_none() && shard.checkpoint_now().is_none());
    drop(prepared);
    install(&shard, &log.copy).unwrap();
    shard.cleaned(job, done, &mut || {}).unwrap();
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
    drop(shard);
    let shard = open_with(&disk, u64::MAX);
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
}
