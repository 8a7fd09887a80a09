//! Power cuts at every boundary, and what the log is after them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    io::Write as _,
    ops::RangeInclusive,
    sync::Arc,
    thread,
    time::Instant,
};

use prkdb::storage::{
    disk::{
        Disk,
        sim::{Image, Loss, SimDisk},
    },
    log::entry::{Entry, Payload},
};

use super::{
    load,
    model::{History, LogModel, Op},
    rig::{Driver, Rig, new_disk, open},
};

/// A disk over the simulated one, with a defect or without.
pub(crate) type Lens = fn(&SimDisk) -> Arc<dyn Disk>;

pub(crate) fn clear(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A load that ran, and the disk after each of its boundaries.
pub(crate) struct Recorded {
    pub(crate) seed: u64,
    pub(crate) history: History,
    pub(crate) images: Vec<Image>,
    pub(crate) segments: usize,
    pub(crate) full_count: usize,
}

/// Runs a load of at least `entries` entries.
pub(crate) fn record(seed: u64, entries: usize, lens: Lens, driver: Driver) -> Recorded {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, lens(&disk), LogModel::default()).unwrap();
    rig.driver = driver;
    disk.record();
    load::run(&mut rig, seed, entries).unwrap();
    Recorded {
        seed,
        images: disk.take_recording(),
        segments: rig.log.segments().count(),
        full_count: rig.full_count,
        history: rig.history,
    }
}

/// What a check has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Crashes made.
    pub(crate) crashes: usize,
    /// Hashes of the different disks among them: each was opened once.
    pub(crate) distinct: HashSet<u64>,
    /// Crashes inside a recovery.
    pub(crate) second: usize,
    /// Recoveries that copied, cut and set aside.
    pub(crate) copied: usize,
    pub(crate) cut: usize,
    pub(crate) quarantined: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crashes, {} distinct disks, {} crashes inside recovery; recovery copied in {}, cut in \
             {}, set aside in {}",
            self.crashes,
            self.distinct.len(),
            self.second,
            self.copied,
            self.cut,
            self.quarantined
        )
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    pub(crate) coins: u64,
    /// Every so manieth disk crashes again inside its recovery; 0 = none.
    pub(crate) second_every: usize,
}

/// Crashes at every boundary from `first` on, `step` apart, and checks what is recovered.
pub(crate) fn check(
    load: &Recorded,
    (first, step): (usize, usize),
    depth: Depth,
) -> Result<Tally, String> {
    let mut tally = Tally::default();
    // The number of operations that a disk was recovered to: an image met again is not opened again.
    let mut seen: HashMap<u64, LogModelRef> = HashMap::new();
    for image in load.images.iter().skip(first).step_by(step) {
        let bounds = load.history.bounds_at(image.boundary());
        for loss in Loss::every(image.unsynced_count(), 0..depth.coins) {
            let context = |error: String| {
                format!("load {}, boundary {}, {loss:?}: {error}", load.seed, image.boundary())
            };
            tally.crashes += 1;
            let crashed = image.crash(loss);
            crashed.set_capacity(None);
            let hash = crashed.hash();
            if let Some(known) = seen.get(&hash) {
                // The same disk recovers to the same log; more may be acknowledged by now.
                if known.count < bounds.0 {
                    load.history.explain(&known.read(load), bounds).map_err(context)?;
                }
                continue;
            }
            tally.distinct.insert(hash);
            let is_sampled =
                depth.second_every > 0 && tally.distinct.len() % depth.second_every == 0;
            if is_sampled {
                crashed.record();
            }
            let count = check_one(&crashed, load, bounds, &mut tally).map_err(context)?;
            if is_sampled {
                crash_again(&crashed.take_recording(), load, bounds, &mut tally)
                    .map_err(context)?;
            }
            seen.insert(hash, LogModelRef { count });
        }
    }
    Ok(tally)
}

/// A state of the history by its number.
struct LogModelRef {
    count: usize,
}

impl LogModelRef {
    fn read(&self, load: &Recorded) -> LogModel {
        load.history.state(self.count).clone()
    }
}

/// Opens a disk, compares, and opens it again. Returns how many operations it holds.
fn check_one(
    disk: &SimDisk,
    load: &Recorded,
    bounds: (usize, usize),
    tally: &mut Tally,
) -> Result<usize, String> {
    let (log, recovery) = open(disk).map_err(|error| format!("not opened: {error}"))?;
    tally.copied += usize::from(recovery.copied_entries > 0);
    tally.cut += usize::from(recovery.cut_bytes > 0);
    tally.quarantined += usize::from(recovery.quarantined > 0);
    let read = LogModel::of(&log)?;
    let count = load.history.explain(&read, bounds)?;
    read.check_offsets()?;
    drop(log);
    let settled = disk.hash();
    let (log, second) = open(disk).map_err(|error| format!("not opened again: {error}"))?;
    if disk.hash() != settled || second.copied_entries > 0 || second.quarantined > 0 {
        return Err("a second recovery changes something".to_owned());
    }
    if log.vote() != read.vote
        || log.state().last != read.last()
        || log.state().purged != read.purged
    {
        return Err("a second recovery finds something else".to_owned());
    }
    Ok(count)
}

/// Cuts the power at three places inside a recovery, and kills it there.
fn crash_again(
    images: &[Image],
    load: &Recorded,
    bounds: (usize, usize),
    tally: &mut Tally,
) -> Result<(), String> {
    let last = images.len() - 1;
    for at in [last / 3, last / 2, last.saturating_sub(1)] {
        let image = &images[at];
        for loss in [Loss::None, Loss::All, Loss::Coins(1), Loss::Coins(2)] {
            tally.second += 1;
            check_one(&image.crash(loss), load, bounds, tally)
                .map_err(|error| format!("then boundary {at} of recovery, {loss:?}: {error}"))?;
        }
        // A kill keeps what was written; the power goes after the next recovery.
        tally.second += 1;
        let killed = image.to_disk();
        check_one(&killed, load, bounds, tally)
            .and_then(|_| check_one(&killed.crash_image(Loss::All), load, bounds, tally))
            .map_err(|error| format!("then a kill at boundary {at} of recovery: {error}"))?;
    }
    Ok(())
}

/// Returns seeds, and in the long run as many more for each of its rounds.
pub(crate) fn seeds(once: RangeInclusive<u64>) -> impl Iterator<Item = u64> {
    let rounds = std::env::var("PRKDB_CRASH_ROUNDS").map_or(1, |number| number.parse().unwrap());
    (0..rounds).flat_map(move |round: u64| once.clone().map(move |seed| 1000 * round + seed))
}

/// Says a figure where `cargo test -- --nocapture` shows it.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn check_load(seed: u64) -> Result<Tally, String> {
    let load = record(seed, 220, clear, Driver::Right);
    let count = |is: fn(&Op) -> bool| load.history.ops().filter(|op| is(op)).count();
    assert!(count(|op| matches!(op, Op::Entry(_))) >= 200);
    assert!(load.segments >= 6, "{} segments", load.segments);
    assert!(load.images.len() >= 400, "{} boundaries", load.images.len());
    assert!(load.full_count > 0, "the disk was full once");
    for is in [
        |op: &Op| matches!(op, Op::Vote(_)),
        |op: &Op| matches!(op, Op::Truncate(_)),
        |op: &Op| matches!(op, Op::Purge(_)),
        |op: &Op| matches!(op, Op::Sync),
        |op: &Op| matches!(op, Op::Entry(entry) if entry.is_void),
        |op: &Op| matches!(op, Op::Entry(entry) if entry.payload == Payload::Blank),
        |op: &Op| matches!(op, Op::Entry(entry) if matches!(entry.payload, Payload::Membership(_))),
        |op: &Op| matches!(op, Op::Entry(Entry { payload: Payload::Normal(write), .. }) if write.frames.len() > 1),
    ] {
        assert!(count(is) > 0, "load {seed} has every kind of entry");
    }
    let tally = check(&load, (0, 1), Depth { coins: 8, second_every: 40 })?;
    say(&format!(
        "load {seed}: {} operations, {} segments, {} boundaries: {tally}",
        load.history.ops().count(),
        load.segments,
        load.images.len()
    ));
    Ok(tally)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time a check takes is one of its figures")]
fn acknowledged_is_within_recovered_is_within_attempted_after_any_power_cut() {
    let started = Instant::now();
    let tallies = thread::scope(|scope| {
        let threads = [1, 2].map(|first| {
            let check_some = move || seeds(first..=first + 2).step_by(2).map(check_load).collect();
            scope.spawn(check_some)
        });
        threads.map(|thread| -> Vec<Tally> {
            let tallies: Result<_, String> = thread.join().unwrap();
            tallies.unwrap_or_else(|error| panic!("{error}"))
        })
    });
    let sum = |figure: fn(&Tally) -> usize| tallies.iter().flatten().map(figure).sum::<usize>();
    let second = sum(|tally| tally.second);
    let crashes = sum(|tally| tally.crashes);
    let all: HashSet<u64> =
        tallies.iter().flatten().flat_map(|tally| tally.distinct.clone()).collect();
    let distinct = all.len();
    say(&format!(
        "logs: {crashes} crashes, {distinct} distinct disks and {second} crashes inside recovery in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    assert!(distinct >= 20_000, "{distinct} distinct disks");
}
