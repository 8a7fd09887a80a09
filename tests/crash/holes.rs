//! Holes that were found by reading, one test each.

use std::{io::IoSlice, path::Path, sync::Arc};

use prkdb::storage::{
    StorageError,
    disk::{
        Disk,
        sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
    },
    log::{
        PrepareMode,
        entry::{Entry, Frame, LogId, Payload, Write},
    },
};
use prkdb_types::{Batch, ProducerStamp};

use super::{
    damage::files_of,
    decoder::Segment,
    model::{LogModel, Op},
    power::clear,
    rig::{DIR, Rig, new_disk, open},
};

fn new_rig(disk: &SimDisk) -> Rig {
    Rig::open(disk, clear(disk), LogModel::default()).unwrap()
}

fn id(index: u64) -> LogId {
    LogId { term: 1, index }
}

fn entry(index: u64, len: usize) -> Op {
    let mut batch =
        Batch::single(ProducerStamp::NONE, 5, Some(b"key"), Some(&vec![7; len]), &[]).unwrap();
    batch.set_base_offset(index);
    let frame = Frame { partition: 7, record_count: 1, base_offset: index, batch };
    let write =
        Write { sequencer_term: 1, sequence: index + 1, append_time_ms: 9, frames: vec![frame] };
    Op::Entry(Entry { id: id(index), is_void: false, payload: Payload::Normal(Arc::new(write)) })
}

fn give(rig: &mut Rig, ops: impl IntoIterator<Item = Op>) {
    ops.into_iter().for_each(|op| rig.give(op).unwrap());
}

fn assert_reopens(disk: &SimDisk, state: &LogModel) {
    let (log, _) = open(disk).unwrap();
    assert_eq!(LogModel::of(&log).unwrap(), *state);
}

#[test]
fn a_prepared_segment_that_is_too_small_is_passed_over_for_good() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    for op in (0..20).map(|index| entry(index, 2000)) {
        rig.give(op).unwrap();
        rig.drive().unwrap();
    }
    // Two are ready, and neither has room for this one.
    let numbers = |disk: &SimDisk| -> Vec<u64> {
        let files = files_of(disk);
        files.iter().map(|(name, bytes)| Segment::decode(name, bytes).unwrap().number).collect()
    };
    let before = numbers(&disk);
    give(&mut rig, [entry(20, 100_000)]);
    rig.drive().unwrap();
    for op in (21..60).map(|index| entry(index, 2000)) {
        rig.give(op).unwrap();
        rig.drive().unwrap();
    }
    let after = numbers(&disk);
    assert_eq!(
        before.iter().filter(|number| !after.contains(number)).count(),
        2,
        "both are removed"
    );
    assert_reopens(&disk, rig.history.last_state());
}

#[test]
fn a_page_does_not_repeat_a_purge_mark_that_waits_behind_it() {
    for synced_first in [0, 3] {
        let disk = new_disk();
        let mut rig = new_rig(&disk);
        give(&mut rig, (0..synced_first).map(|index| entry(index, 100)));
        rig.drive().unwrap();
        // The next entry begins a segment, and the purge mark waits in the same group.
        give(&mut rig, [entry(synced_first, 14_000), entry(synced_first + 1, 100)]);
        give(&mut rig, [Op::Purge(id(synced_first + 1)), entry(synced_first + 2, 100)]);
        rig.drive().unwrap();
        assert_reopens(&disk, rig.history.last_state());
        // The first start copied the group, whose page must not repeat the mark either.
        assert_reopens(&disk, rig.history.last_state());
    }
}

#[test]
fn a_kill_inside_recovery_and_a_power_cut_after_the_next_lose_nothing() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    for op in (0..3).map(|index| entry(index, 100)) {
        rig.give(op).unwrap();
        rig.drive().unwrap();
    }
    let state = rig.history.last_state().clone();
    drop(rig);
    disk.record();
    assert_eq!(open(&disk).unwrap().1.copied_entries, 1);
    let images = disk.take_recording();
    assert!(images.len() > 6);
    for image in images {
        let killed = image.to_disk();
        let mut rig = Rig::open(&killed, clear(&killed), state.clone()).unwrap();
        give(&mut rig, [entry(3, 100)]);
        rig.drive().unwrap();
        assert_reopens(&killed.crash_image(Loss::All), rig.history.last_state());
    }
}

#[test]
fn starts_after_a_crash_inside_recovery_settle() {
    for has_witness in [false, true] {
        let disk = new_disk();
        let mut rig = new_rig(&disk);
        give(&mut rig, [entry(0, 100)]);
        rig.drive().unwrap();
        if has_witness {
            // Nothing is to be copied, and a file that nobody can read is to be set aside.
            give(&mut rig, [Op::Sync]);
            rig.drive().unwrap();
            let name = files_of(&disk)[0].0.replace("-0000000001", "-0000000009");
            let file = disk.create(&Path::new(DIR).join(name)).unwrap();
            file.write_at(5000, &[IoSlice::new(b"torn")]).unwrap();
            file.sync_all().unwrap();
            disk.sync_dir(Path::new(DIR)).unwrap();
        }
        let state = rig.history.last_state().clone();
        drop(rig);
        disk.record();
        assert_eq!(open(&disk).unwrap().1.quarantined, 1);
        for image in disk.take_recording() {
            let crashed = image.crash(Loss::None);
            assert_reopens(&crashed, &state);
            let settled = crashed.hash();
            for _ in 0..3 {
                assert_reopens(&crashed, &state);
                assert_eq!(crashed.hash(), settled, "each start would leave a segment behind");
            }
        }
    }
}

#[test]
fn a_sync_speaks_for_what_waited_before_it() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    give(&mut rig, [entry(0, 100), Op::Sync]);
    rig.drive().unwrap();
    let (name, bytes) = files_of(&disk).into_iter().next().unwrap();
    let segment = Segment::decode(&name, &bytes).unwrap();
    let [first, sync] = &segment.entries[..] else { panic!("two entries") };
    assert_eq!((sync.kind, sync.synced_lsn), (7, first.lsn));
    assert_eq!(rig.log.mark_synced(), None, "nothing is left to be said");
}

#[test]
fn an_entry_that_replaces_one_in_flight_is_kept_until_it_is_synced_itself() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    give(&mut rig, (0..4).map(|index| entry(index, 3000)));
    assert!(rig.log.next_prepare().is_some_and(|job| {
        let result = job.run(PrepareMode::Allocate);
        rig.log.prepared(job, result).is_ok()
    }));
    let job = rig.log.next_flush().unwrap();
    give(&mut rig, [Op::Truncate(Some(id(0))), entry(1, 3000), entry(2, 3000), entry(3, 3000)]);
    let result = job.run();
    rig.log.flushed(job, result).unwrap();
    // Applied elsewhere by a majority, while this replica has not synced it.
    rig.log.applied(3);
    assert_eq!(LogModel::of(&rig.log).unwrap(), *rig.history.last_state());
    rig.drive().unwrap();
    rig.log.applied(3);
    assert!(
        rig.log.tail_cache_bytes() <= super::rig::options().tail_cache_bytes,
        "it can be evicted"
    );
    assert_reopens(&disk, rig.history.last_state());
}

#[test]
fn a_truncation_that_cannot_read_ends_the_log() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    for op in (0..8).map(|index| entry(index, 3000)) {
        rig.give(op).unwrap();
        rig.drive().unwrap();
    }
    rig.log.applied(7);
    let state = rig.history.last_state().clone();
    disk.fail(Fault { calls: Calls::Reads, nth: 1, failure: Failure::Io, repeat: Repeat::Sticky });
    assert!(matches!(rig.log.truncate_after(Some(id(0))), Err(StorageError::Io { .. })));
    disk.heal();
    assert!(matches!(rig.give(entry(1, 10)), Err(StorageError::Failed { .. })));
    drop(rig);
    assert_reopens(&disk, &state);
}

#[test]
fn a_start_on_a_full_disk_fails_without_harm_and_works_when_there_is_room() {
    let disk = new_disk();
    let mut rig = new_rig(&disk);
    for op in (0..3).map(|index| entry(index, 100)) {
        rig.give(op).unwrap();
        rig.drive().unwrap();
    }
    let state = rig.history.last_state().clone();
    drop(rig);
    let space = disk.space(Path::new(DIR)).unwrap();
    disk.set_capacity(Some(space.total - space.free));
    for _ in 0..2 {
        assert!(
            matches!(open(&disk), Err(StorageError::Io { .. })),
            "there is no room for the copy"
        );
    }
    disk.set_capacity(None);
    assert_reopens(&disk, &state);
}
