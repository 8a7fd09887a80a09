//! Every call to the disk fails in turn while a checkpoint is taken, and while a shard opens with one.

use prkdb::storage::disk::sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk};

use super::{
    oracle::check_shard,
    power::say,
    shard::{CHECKPOINT_BYTES, Load, open_with, run_with, try_open},
};

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
