//! One life after the other: a log goes on after a kill or a power cut, and is cut again.
//!
//! A kill keeps what was written and not synced for the next life to see, and a later power cut may
//! still take it.

use prkdb::storage::{
    clock::{Rng as _, SeededRng},
    disk::sim::{Image, Loss, SimDisk},
};

use super::{
    load,
    model::LogModel,
    power::{Depth, Recorded, Tally, check, clear, say, seeds},
    rig::{Rig, new_disk},
};

const LIVES: u64 = 6;

/// Ends a life at some boundary, one way or another.
fn end(image: &Image, rng: &mut SeededRng) -> SimDisk {
    match rng.next_u64() % 4 {
        0 => image.crash(Loss::All),
        1 => image.crash(Loss::Coins(rng.next_u64())),
        _ => image.to_disk(),
    }
}

/// Runs lives one after the other; every boundary of each is crashed as well.
pub(crate) fn live(seed: u64) -> Result<Tally, String> {
    let mut rng = SeededRng::new(seed);
    let mut disk = new_disk();
    let mut before: Option<(Recorded, (usize, usize))> = None;
    let mut sum = Tally::default();
    for life in 0..LIVES {
        let context = |error: String| format!("walk {seed}, life {life}: {error}");
        let mut rig = Rig::open(&disk, clear(&disk), LogModel::default())
            .map_err(|error| context(error.to_string()))?;
        if let Some((load, bounds)) = &before {
            let read = LogModel::of(&rig.log).map_err(context)?;
            let count = load.history.explain(&read, *bounds).map_err(context)?;
            rig.history = super::model::History::from_state(load.history.state(count).clone());
        }
        // What is recovered is synced: nothing that happens later may take it.
        disk.record();
        rig.full_count = 1;
        load::run(&mut rig, rng.next_u64(), 10).map_err(|error| context(error.to_string()))?;
        let recorded = Recorded {
            seed,
            images: disk.take_recording(),
            segments: rig.log.segments().count(),
            full_count: 0,
            history: rig.history,
        };
        let start = usize::try_from(rng.next_u64() % 3).unwrap();
        let tally = check(&recorded, (start, 3), Depth { coins: 1, second_every: 0 });
        let tally = tally.map_err(context)?;
        sum.distinct.extend(tally.distinct);
        sum.crashes += tally.crashes;
        let at = rng.next_u64() % u64::try_from(recorded.images.len()).unwrap();
        let image = &recorded.images[usize::try_from(at).unwrap()];
        disk = end(image, &mut rng);
        let bounds = recorded.history.bounds_at(image.boundary());
        before = Some((recorded, bounds));
    }
    Ok(sum)
}

#[test]
fn a_log_goes_on_after_kills_and_power_cuts_without_losing_what_it_said() {
    let mut sum = Tally::default();
    for seed in seeds(0..=59) {
        let tally = live(seed).unwrap_or_else(|error| panic!("{error}"));
        sum.distinct.extend(tally.distinct);
    }
    say(&format!("walks of {LIVES} lives: {} distinct disks", sum.distinct.len()));
}
