//! The n-th call to the disk fails, for every n: nothing acknowledged is lost, nothing is tried again.

use std::path::Path;

use prkdb::storage::{
    StorageError,
    disk::{
        Disk as _, is_disk_full,
        sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
    },
    log::entry::Vote,
};

use super::{
    load,
    model::{LogModel, Op},
    power::{Lens, clear, say},
    rig::{DIR, Rig, new_disk, open},
};

const FAILURES: [Failure; 4] = [Failure::Io, Failure::Full, Failure::Quota, Failure::ShortWrite];

/// Runs a short load whose n-th call fails. Returns whether the fault struck.
fn run(seed: u64, fault: Fault, lens: Lens) -> Result<bool, String> {
    let disk = new_disk();
    let as_seen = lens(&disk);
    disk.fail(fault);
    let mut rig = match Rig::open(&disk, as_seen, LogModel::default()) {
        Ok(rig) => rig,
        // Nothing was begun.
        Err(StorageError::Io { .. }) => return Ok(true),
        Err(other) => return Err(format!("opening: {other}")),
    };
    rig.full_count = 1;
    let result = load::run(&mut rig, seed, 25);
    let has_struck = disk.struck_count() > 0;
    if let Err(error) = result {
        expect_end(&mut rig, &error, has_struck)?;
    }
    let bounds = rig.history.bounds_at(disk.boundary_count());
    let history = rig.history;
    drop(rig.log);
    disk.heal();
    // The process starts again, with what the system still has in memory, or after a power cut; and
    // the power may go after the start.
    let losses = [Loss::None, Loss::All, Loss::Coins(1), Loss::Coins(2), Loss::Coins(3)];
    let restarted = disk.clone_image();
    let check = |disk: &SimDisk, name: String| -> Result<(), String> {
        disk.set_capacity(None);
        let (log, _) = open(disk).map_err(|error| format!("{name}: {error}"))?;
        let read = LogModel::of(&log).map_err(|error| format!("{name}: {error}"))?;
        history.explain(&read, bounds).map(drop).map_err(|error| format!("{name}: {error}"))
    };
    check(&restarted, "restarted".to_owned())?;
    for loss in losses {
        check(&disk.crash_image(loss), format!("power cut, {loss:?}"))?;
        check(&restarted.crash_image(loss), format!("restarted, then power cut, {loss:?}"))?;
    }
    Ok(has_struck)
}

/// A failed call ends the log: it says which file, and takes and writes nothing any more.
fn expect_end(rig: &mut Rig, error: &StorageError, has_struck: bool) -> Result<(), String> {
    if !has_struck {
        return Err(format!("without a fault: {error}"));
    }
    let StorageError::Io { path, .. } = error else {
        return Err(format!("another error than that of the disk: {error}"));
    };
    if path.as_os_str().is_empty() {
        return Err("no file is named".to_owned());
    }
    let is_write = error.to_string().starts_with("write and sync");
    if is_write {
        let calls = rig.disk.boundary_count();
        let vote = Vote { term: 1 << 40, replica: 9, is_committed: false };
        let refused = matches!(rig.give(Op::Vote(vote)), Err(StorageError::Failed { .. }));
        let is_idle = rig.log.next_flush().is_none() && rig.log.next_prepare().is_none();
        if !refused || !is_idle || rig.disk.boundary_count() != calls {
            return Err("the log goes on after a failed write".to_owned());
        }
    }
    Ok(())
}

/// Fails every n-th call of a load, in all ways. Returns how many runs that were.
pub(crate) fn sweep(seed: u64, lens: Lens) -> Result<usize, String> {
    let mut runs = 0;
    for failure in FAILURES {
        for repeat in [Repeat::Once, Repeat::Sticky] {
            for nth in 1.. {
                let fault = Fault { calls: Calls::All, nth, failure, repeat };
                runs += 1;
                let struck = run(seed, fault, lens).map_err(|error| {
                    format!("load {seed}, call {nth}, {failure:?} {repeat:?}: {error}")
                })?;
                if !struck {
                    break;
                }
            }
        }
    }
    Ok(runs)
}

/// Fails every n-th call of a recovery.
fn sweep_recovery(seed: u64) -> Result<usize, String> {
    let load = super::power::record(seed, 30, clear, super::rig::Driver::Right);
    let mut runs = 0;
    for image in load.images.iter().skip(20).step_by(9) {
        let bounds = load.history.bounds_at(image.boundary());
        for (failure, repeat) in [(Failure::Io, Repeat::Once), (Failure::Full, Repeat::Sticky)] {
            for nth in 1.. {
                let disk = image.crash(Loss::Coins(nth));
                disk.set_capacity(None);
                disk.fail(Fault { calls: Calls::All, nth, failure, repeat });
                let opened = open(&disk);
                let struck = disk.struck_count() > 0;
                disk.heal();
                runs += 1;
                let context = |error: String| {
                    format!(
                        "load {seed}, boundary {}, call {nth}, {failure:?}: {error}",
                        image.boundary()
                    )
                };
                match opened {
                    Err(StorageError::Io { .. }) if struck => {}
                    Err(other) => return Err(context(other.to_string())),
                    Ok(_) => {}
                }
                for again in [disk.clone_image(), disk.crash_image(Loss::All)] {
                    let (log, _) = open(&again).map_err(|error| context(error.to_string()))?;
                    let read = LogModel::of(&log).map_err(context)?;
                    load.history.explain(&read, bounds).map_err(context)?;
                }
                if !struck {
                    break;
                }
            }
        }
    }
    Ok(runs)
}

#[test]
fn no_failing_call_loses_what_was_acknowledged_or_is_tried_again() {
    let runs: usize =
        (0..32).map(|seed| sweep(seed, clear).unwrap_or_else(|error| panic!("{error}"))).sum();
    say(&format!("{runs} loads with a failing call"));
}

#[test]
fn no_failing_call_of_a_recovery_loses_anything() {
    let runs: usize =
        (1..3).map(|seed| sweep_recovery(seed).unwrap_or_else(|error| panic!("{error}"))).sum();
    say(&format!("{runs} recoveries with a failing call"));
}

#[test]
fn a_start_that_finds_no_room_leaves_nothing_behind_and_may_take_what_was_prepared() {
    let (mut refused, mut copied) = (0, 0);
    for seed in 1..=2 {
        let load = super::power::record(seed, 60, clear, super::rig::Driver::Right);
        for image in load.images.iter().step_by(3) {
            let bounds = load.history.bounds_at(image.boundary());
            let disk = image.crash(Loss::None);
            let used = |disk: &SimDisk| {
                let space = disk.space(Path::new(DIR)).unwrap();
                space.total - space.free
            };
            // Not a whole segment, and ext4 gives what there is.
            disk.set_capacity(Some(used(&disk) + (8 << 10)));
            match open(&disk) {
                Ok((_, recovery)) => copied += usize::from(recovery.copied_entries > 0),
                Err(StorageError::Io { source, .. }) if is_disk_full(&source) => {
                    let (then, hash) = (used(&disk), disk.hash());
                    assert!(open(&disk).is_err());
                    assert_eq!((used(&disk), disk.hash()), (then, hash), "load {seed}");
                    refused += 1;
                }
                Err(other) => panic!("load {seed}: {other}"),
            }
            disk.set_capacity(None);
            let read = LogModel::of(&open(&disk).unwrap().0).unwrap();
            load.history.explain(&read, bounds).unwrap();
        }
    }
    say(&format!("starts without room: {refused} refused, {copied} had what was prepared"));
    assert!(refused > 20 && copied > 20, "{refused} refused, {copied} copied");
}
