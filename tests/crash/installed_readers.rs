//! Who reads while a snapshot is installed goes on with what he had; and what else a replica does then.

use std::{
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use prkdb::storage::{
    CleanStep, Install, Shard, StorageError,
    disk::{
        Disk,
        sim::{Calls, Failure, Fault, Repeat, SimDisk},
    },
    log::{
        entry::Vote,
        inspect::{self, Depth, LogOwner},
    },
};

use super::{
    installing::{OWN, Own, Replicated, VOTE, install},
    oracle::check_shard,
    power::say,
    rig::DIR,
    shard::{COLLECTION, drive, open_with, run_cleaned},
};

fn values_of(shard: &Shard) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let Some(snapshot) = shard.scan(COLLECTION) else { return Vec::new() };
    let mut values = snapshot.values();
    let keys = snapshot.range(Bound::Unbounded, Bound::Unbounded);
    keys.map(|(key, leaf)| {
        let found = values.read(leaf).unwrap();
        (key, found.value.to_vec(), found.version)
    })
    .collect()
}

#[test]
fn what_was_held_before_a_snapshot_reads_as_it_did() {
    let log = Replicated::new(2);
    let (_disk, shard) = log.replica(Own::Less);
    let own_copy = shard.copy().unwrap().unwrap();
    let read_copy = || -> Vec<Vec<u8>> {
        let parts = own_copy.parts.iter();
        parts.map(|part| part.read(0, usize::MAX).unwrap().to_vec()).collect()
    };
    let snapshot = shard.scan(COLLECTION).unwrap();
    let read_snapshot = || {
        let mut values = snapshot.values();
        let keys = snapshot.range(Bound::Unbounded, Bound::Unbounded);
        keys.map(|(key, leaf)| (key, values.read(leaf).unwrap())).collect::<Vec<_>>()
    };
    let fetched = shard.fetch(1, 0, 1 << 20).unwrap();
    let leaves: Vec<_> = (0..18).filter_map(|key| shard.leaf(COLLECTION, &[key])).collect();
    let of_leaves =
        || leaves.iter().map(|leaf| shard.leaf_value(*leaf).unwrap()).collect::<Vec<_>>();
    let had = (read_copy(), read_snapshot(), fetched.parts.concat(), of_leaves());
    assert!(!had.1.is_empty() && !had.3.is_empty());
    install(&shard, &log.copy).unwrap();
    // Whoever looked a key up before the exchange still finds its record.
    assert_eq!(of_leaves(), had.3);
    shard.forget_removed();
    shard.forget_removed();
    assert_eq!((read_copy(), read_snapshot(), fetched.parts.concat()), (had.0, had.1, had.2));
    // A leaf alone holds nothing: when its segment is gone there is an error, and not another record.
    for (leaf, had) in leaves.iter().zip(had.3) {
        match shard.leaf_value(*leaf) {
            Ok(found) => assert_eq!(found, had),
            Err(error) => assert!(matches!(error, StorageError::Discontinuous { .. }), "{error}"),
        }
    }
}

#[test]
fn readers_beside_an_installation_see_the_one_state_or_the_other() {
    let log = Replicated::new(2);
    let mut looks = 0;
    for own in [Own::Less, Own::More] {
        let (_disk, shard) = log.replica(own);
        let before = values_of(&shard);
        let is_over = AtomicBool::new(false);
        let count = AtomicUsize::new(0);
        let seen = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = Vec::new();
                while !is_over.load(Ordering::Acquire) || seen.len() < 2 {
                    let values = values_of(&shard);
                    if seen.last() != Some(&values) {
                        seen.push(values);
                    }
                    for partition in 1..=4 {
                        let mut next = shard.stream_bounds(partition).log_start;
                        loop {
                            let fetched = shard.fetch(partition, next, 4000).unwrap();
                            if fetched.bytes == 0 {
                                break;
                            }
                            assert_eq!(fetched.bytes, fetched.parts.concat().len());
                            next = fetched.next_offset;
                        }
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                seen
            });
            install(&shard, &log.copy).unwrap();
            is_over.store(true, Ordering::Release);
            reader.join().unwrap()
        });
        let after = values_of(&shard);
        assert_ne!(before, after);
        let known = |values: &Vec<_>| *values == before || *values == after;
        assert!(seen.iter().all(known) && seen.len() <= 2, "{own:?}: {} states", seen.len());
        looks += count.load(Ordering::Relaxed);
    }
    say(&format!("installing: {looks} rounds of reading beside it"));
}

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
            // Whoever looks at the stopped log finds nothing wrong.
            shard.mark_synced();
            drive(&shard);
            drop(shard);
            let disk: Arc<dyn Disk> = Arc::new(disk);
            let owner = LogOwner { shard: 1, cluster_id: [5; 16] };
            let report = inspect::verify(&disk, Path::new(DIR), owner, Depth::Records).unwrap();
            assert!(report.damage.is_none(), "{own:?}: {:?}", report.damage);
        }
    }
}

#[test]
fn what_is_appended_behind_the_mark_is_waited_for() {
    let log = Replicated::new(2);
    let (disk, shard) = log.replica(Own::Less);
    let prepared = shard.prepare_snapshot(&log.copy, &mut |_| {}).unwrap();
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

fn names(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(Path::new(DIR)).unwrap().into_iter();
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| !name.ends_with(".log")).collect()
}

#[test]
fn one_that_is_given_up_or_damaged_leaves_nothing() {
    let log = Replicated::new(1);
    let (disk, shard) = log.replica(Own::Less);
    let had = names(&disk);
    drop(shard.prepare_snapshot(&log.copy, &mut |_| {}).unwrap());
    assert_eq!(names(&disk), had);
    // A disk that fails at some call, whichever it is.
    let mut failures = 0;
    for nth in 1.. {
        let (calls, failure, repeat) = (Calls::Writes, Failure::Io, Repeat::Once);
        disk.fail(Fault { calls, nth, failure, repeat });
        let prepared = shard.prepare_snapshot(&log.copy, &mut |_| {});
        disk.heal();
        if prepared.is_ok() {
            break;
        }
        failures += 1;
        assert_eq!(names(&disk), had, "write {nth}");
    }
    assert!(failures > 3, "{failures} failures");
    // Any byte of it.
    let mut refused = 0;
    let mut copy = shard.copy().unwrap().unwrap();
    copy.version = Arc::clone(&log.copy.version);
    assert!(matches!(
        shard.prepare_snapshot(&copy, &mut |_| {}),
        Err(StorageError::Snapshot { .. } | StorageError::Corrupt { .. })
    ));
    refused += 1;
    assert_eq!(names(&disk), had);
    assert_eq!(refused, 1);
    install(&shard, &log.copy).unwrap();
    check_shard(&shard, &log.load, (log.taken(), log.taken())).unwrap();
}

#[test]
fn a_cleaning_that_ends_after_an_installation_changes_nothing() {
    let log = Replicated::new(2);
    let mut load = run_cleaned(3, 30);
    load.go_on_without_keys(60);
    let cleaned = loop {
        match load.shard.next_cleaning() {
            Some(CleanStep::Purge(up_to)) => {
                load.shard.purge(up_to).unwrap();
                load.drive();
            }
            Some(CleanStep::Clean(job)) => break Some(job),
            None => break None,
        }
    };
    let Some(job) = cleaned else { panic!("nothing is worth cleaning") };
    let done = job.run(&mut |_| {}).unwrap();
    let before = names(&load.disk);
    let prepared = load.shard.prepare_snapshot(&log.copy, &mut |_| {});
    // It is of another log, and would be refused; the cleaning was begun before all the same.
    drop(prepared);
    load.shard.cleaned(job, done, &mut || {}).unwrap();
    let left = names(&load.disk);
    assert!(left.len() < before.len(), "what it wrote is removed: {left:?}");
    assert!(load.shard.next_cleaning().is_some(), "it is begun again");
}
