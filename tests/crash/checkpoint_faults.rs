//! Every call to the disk fails in turn while a checkpoint is taken, and while a shard opens with one.

use prkdb::storage::disk::sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk};

use super::{
    oracle::check_shard,
    power::say,
    shard::{CHECKPOINT_BYTES, Load, open_with, run_cleaned, run_with, try_open},
};
use prkdb::storage::bug::{self, Bug};

const FAILURES: [Failure; 4] =
    [Failure::Io, Failure::Full, Failure::Interrupted, Failure::ShortWrite];
const REPEATS: [Repeat; 2] = [Repeat::Once, Repeat::Sticky];

/// A load that ended cleanly; with a checkpoint before its end or without one.
fn ended(checkpoint_bytes: u64) -> Load {
    let load = run_with(2, 110, checkpoint_bytes);
    load.shard.mark_synced();
    load.drive();
    load
}

fn check(disk: &SimDisk, load: &Load) -> Result<(), String> {
    let bounds = (load.models.len(), load.models.len());
    let shard = try_open(disk).map_err(|error| error.to_string())?;
    check_shard(&shard, load, bounds)
}

#[test]
fn a_checkpoint_that_fails_at_any_call_leaves_the_shard_as_it_was() {
    let (mut runs, mut failed) = (0, 0);
    for load in [ended(u64::MAX), ended(CHECKPOINT_BYTES)] {
        for (failure, repeat) in FAILURES.iter().flat_map(|f| REPEATS.map(|r| (*f, r))) {
            for nth in 1.. {
                let disk = load.disk.clone_image();
                let shard = open_with(&disk, 0);
                let Some(job) = shard.checkpoint_now() else { break };
                disk.fail(Fault { calls: Calls::All, nth, failure, repeat });
                let (finished, result) = job.run();
                let struck = disk.struck_count() > 0;
                disk.heal();
                shard.checkpointed(finished, &result);
                if !struck {
                    break;
                }
                runs += 1;
                failed += usize::from(result.is_err());
                let context = |error| format!("call {nth}, {failure:?} {repeat:?}: {error}");
                let bounds = (load.models.len(), load.models.len());
                check_shard(&shard, &load, bounds).map_err(context).unwrap();
                for loss in [Loss::None, Loss::All, Loss::Coins(nth)] {
                    check(&disk.crash_image(loss), &load).map_err(context).unwrap();
                }
            }
        }
    }
    say(&format!("checkpoints: {runs} runs with a failing call, {failed} failed"));
    assert!(runs > 200 && failed > 100, "{runs} runs, {failed} failed");
}

/// Takes two checkpoints of a cleaned log: the commit of the first fails, though the disk may have it, and the
/// second one is given up at a call. Returns whether it was, and what is wrong with the disk then.
fn after_a_commit_that_failed(sync: u64, call: u64) -> (bool, Result<(), String>) {
    let mut load = run_cleaned(5, 150);
    load.takes_checkpoints = false;
    load.go_on(load.models.len() + 20);
    let failing = |load: &Load, calls, nth, repeat| {
        load.shard.mark_synced();
        load.drive();
        let job = load.shard.checkpoint_now().unwrap();
        load.disk.fail(Fault { calls, nth, failure: Failure::Io, repeat });
        let (finished, result) = job.run();
        let struck = load.disk.struck_count() > 0;
        load.disk.heal();
        load.shard.checkpointed(finished, &result);
        struck
    };
    if !failing(&load, Calls::DirSyncs, sync, Repeat::Once) {
        return (false, Ok(()));
    }
    load.go_on(load.models.len() + 20);
    let struck = failing(&load, Calls::All, call, Repeat::Sticky);
    let found = [Loss::None, Loss::All, Loss::Coins(call)]
        .into_iter()
        .try_for_each(|loss| check(&load.disk.crash_image(loss), &load));
    (struck, found.map_err(|error| format!("sync {sync}, call {call}: {error}")))
}

#[test]
fn a_checkpoint_after_one_whose_commit_failed_leaves_that_one_whole() {
    let all = || -> (usize, Result<(), String>) {
        let mut runs = 0;
        for sync in 1.. {
            for call in 1.. {
                match after_a_commit_that_failed(sync, call) {
                    (_, Err(error)) => return (runs, Err(error)),
                    (true, Ok(())) => runs += 1,
                    (false, Ok(())) if call == 1 => return (runs, Ok(())),
                    (false, Ok(())) => break,
                }
            }
        }
        (runs, Ok(()))
    };
    let (runs, found) = all();
    say(&format!("checkpoints after one whose commit failed: {runs} given up at a call"));
    found.unwrap();
    assert!(runs > 20, "{runs} runs");
    let planted = bug::plant(Bug::GenerationTriedTwice);
    let (_, found) = all();
    drop(planted);
    say(&format!("planted GenerationTriedTwice: {found:?}"));
    assert!(found.is_err());
}

#[test]
fn an_opening_that_fails_at_any_call_says_so_or_is_right() {
    let load = ended(CHECKPOINT_BYTES);
    let (mut runs, mut refused) = (0, 0);
    for (failure, repeat) in FAILURES.iter().flat_map(|f| REPEATS.map(|r| (*f, r))) {
        for nth in 1.. {
            let disk = load.disk.clone_image();
            disk.fail(Fault { calls: Calls::All, nth, failure, repeat });
            let opened = try_open(&disk);
            let struck = disk.struck_count() > 0;
            disk.heal();
            if !struck {
                break;
            }
            runs += 1;
            let context = |error| format!("call {nth}, {failure:?} {repeat:?}: {error}");
            match opened {
                Ok(shard) => {
                    let bounds = (load.models.len(), load.models.len());
                    check_shard(&shard, &load, bounds).map_err(context).unwrap();
                }
                Err(_) => refused += 1,
            }
            for loss in [Loss::None, Loss::All] {
                check(&disk.crash_image(loss), &load).map_err(context).unwrap();
            }
        }
    }
    say(&format!("openings with a checkpoint: {runs} with a failing call, {refused} refused"));
    assert!(runs > 100 && refused > 50, "{runs} runs, {refused} refused");
}
