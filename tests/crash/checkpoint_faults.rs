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
/// power goes in the second one. Returns how many disks there are then, `None` where nothing failed.
fn after_a_commit_that_failed(sync: u64) -> Option<Result<usize, String>> {
    let mut load = run_cleaned(5, 150);
    load.takes_checkpoints = false;
    let take = |load: &mut Load| {
        load.go_on(load.models.len() + 20);
        load.shard.mark_synced();
        load.drive();
        load.shard.checkpoint_now().unwrap()
    };
    let job = take(&mut load);
    let (nth, repeat) = (sync, Repeat::Once);
    load.disk.fail(Fault { calls: Calls::DirSyncs, nth, failure: Failure::Io, repeat });
    let (finished, result) = job.run();
    load.disk.heal();
    load.shard.checkpointed(finished, &result);
    result.err()?;
    let job = take(&mut load);
    load.disk.record();
    let (finished, result) = job.run();
    let images = load.disk.take_recording();
    load.shard.checkpointed(finished, &result);
    let checked = images.iter().enumerate().try_for_each(|(at, image)| {
        let seed = at as u64;
        [Loss::None, Loss::All, Loss::Coins(seed)].into_iter().try_for_each(|loss| {
            let found = check(&image.crash(loss), &load);
            found.map_err(|error| format!("sync {sync}, image {at}, {loss:?}: {error}"))
        })
    });
    Some(checked.map(|()| 3 * images.len()))
}

#[test]
fn a_checkpoint_after_one_whose_commit_failed_leaves_that_one_whole() {
    let all = || (1..).map_while(after_a_commit_that_failed).sum::<Result<usize, String>>();
    let disks = all().unwrap();
    say(&format!("checkpoints after one whose commit failed: {disks} disks"));
    assert!(disks > 50, "{disks} disks");
    let planted = bug::plant(Bug::GenerationTriedTwice);
    let found = all();
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
