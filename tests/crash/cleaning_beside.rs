//! Cleanings where calls to the disk fail, and of a shard at rest.

use prkdb::storage::{
    CleanJob, CleanStep,
    disk::sim::{Calls, Failure, Fault, Repeat, SimDisk},
};

use super::{
    damage::files_of,
    oracle::{apply_rest, check_shard},
    shard::{CHECKPOINT_BYTES, Load, checkpoint, drive, open_with, run_all},
};

/// Takes the purge mark as far as a cleaning wants it, and returns the cleaning; `None` where nothing is worth it.
fn next_cleaning(load: &Load) -> Option<CleanJob> {
    loop {
        match load.shard.next_cleaning()? {
            CleanStep::Purge(up_to) => {
                load.shard.purge(up_to).unwrap();
                load.drive();
            }
            CleanStep::Clean(job) => return Some(job),
        }
    }
}

fn commit(load: &Load) {
    load.shard.mark_synced();
    load.drive();
    let (finished, result) = load.shard.checkpoint_now().unwrap().run();
    load.shard.checkpointed(finished, &result);
    result.unwrap();
}

fn history(disk: &SimDisk) -> Vec<(String, usize)> {
    let all = files_of(disk).into_iter().filter(|(name, _)| name.ends_with(".history"));
    all.map(|(name, bytes)| (name, bytes.len())).collect()
}

#[test]
fn a_cleaning_that_fails_leaves_no_file() {
    let load = run_all(4, 300, CHECKPOINT_BYTES, false);
    commit(&load);
    let mut failed = 0;
    for nth in 1.. {
        let job = next_cleaning(&load).unwrap();
        load.disk.fail(Fault {
            calls: Calls::Writes,
            nth,
            failure: Failure::Full,
            repeat: Repeat::Once,
        });
        let done = job.run(&mut |_| {});
        load.disk.heal();
        if done.is_ok() {
            break;
        }
        failed += 1;
        assert_eq!(history(&load.disk), [], "write {nth}");
    }
    for calls in [Calls::DataSyncs, Calls::DirSyncs] {
        let job = next_cleaning(&load).unwrap();
        load.disk.fail(Fault { calls, nth: 1, failure: Failure::Io, repeat: Repeat::Once });
        assert!(job.run(&mut |_| {}).is_err());
        load.disk.heal();
        assert_eq!(history(&load.disk).len(), 1, "that of the run that ended well");
    }
    assert!(failed > 1, "{failed} failed");
}

#[test]
fn a_shard_at_rest_commits_a_cleaning_after_an_opening() {
    let load = run_all(6, 300, CHECKPOINT_BYTES, false);
    commit(&load);
    let shard = open_with(&load.disk, CHECKPOINT_BYTES);
    apply_rest(&shard).unwrap();
    let log_bytes = || {
        let of_log = |name: &str| name.ends_with(".log") || name.ends_with(".history");
        let files = files_of(&load.disk).into_iter().filter(|(name, _)| of_log(name));
        files.map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    let before = log_bytes();
    let mut cleanings = 0;
    while let Some(step) = shard.next_cleaning() {
        match step {
            CleanStep::Purge(up_to) => {
                shard.purge(up_to).unwrap();
                drive(&shard);
            }
            CleanStep::Clean(job) => {
                let done = job.run(&mut |_| {}).unwrap();
                shard.cleaned(job, done, &mut || {}).unwrap();
                assert!(checkpoint(&shard), "at the entry where the last one was taken");
                cleanings += 1;
            }
        }
    }
    assert!(cleanings > 0 && log_bytes() < before);
    check_shard(&shard, &load, (load.models.len(), load.models.len())).unwrap();
}
