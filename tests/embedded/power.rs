//! A machine that loses its power: what was acknowledged is there, if that was promised.

use std::{path::Path, sync::Arc, thread};

use prkdb::{
    db::{Durability, PrkDb},
    storage::disk::{
        Disk as _,
        sim::{Loss, SimDisk},
    },
};

const WRITERS: u8 = 4;

fn open(disk: &SimDisk, durability: Durability) -> PrkDb {
    let builder = PrkDb::builder().with_data_dir("/data").with_durability(durability);
    builder.with_segment_bytes(4 << 20).on_disk(Arc::new(disk.clone())).build().unwrap()
}

/// Writes on several threads, and cuts the power when each has been told of some writes; returns the disk
/// and what was told.
fn run(durability: Durability, loss: Loss) -> (SimDisk, Vec<u32>) {
    let disk = written(durability, 0);
    (disk.crash_image(loss), vec![19; usize::from(WRITERS)])
}

/// Writes on several threads, values with so many bytes more; returns the disk as it is then.
fn written(durability: Durability, padding: usize) -> SimDisk {
    let disk = SimDisk::new();
    disk.sync_dir(Path::new("/")).unwrap();
    let db = open(&disk, durability);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..20u32 {
                        let mut tx = db.begin();
                        for part in *b"nm" {
                            let mut value = number.to_be_bytes().to_vec();
                            value.resize(4 + padding, 7);
                            tx.put(vec![writer, part], value).unwrap();
                        }
                        tx.commit().wait().unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    disk.clone_image()
}

/// Returns whether everything that was told is there; demands that transactions are whole.
fn has_all(disk: &SimDisk, durability: Durability, told: &[u32]) -> bool {
    let db = open(disk, durability);
    let number = |key: Vec<u8>| {
        let found = db.kv().get(key).wait().unwrap();
        found.map(|found| u32::from_be_bytes(found.value[..4].try_into().unwrap()))
    };
    let mut is_there = true;
    for (writer, told) in (0u8..).zip(told) {
        let (one, other) = (number(vec![writer, b'n']), number(vec![writer, b'm']));
        assert_eq!(one, other, "half of a transaction");
        is_there &= one == Some(*told);
    }
    is_there
}

#[test]
fn what_was_acknowledged_outlives_the_power() {
    for loss in [Loss::All, Loss::None] {
        let (disk, told) = run(Durability::Sync, loss);
        assert!(has_all(&disk, Durability::Sync, &told), "{loss:?}");
    }
}

#[test]
fn what_is_relaxed_may_be_lost_and_leaves_whole_transactions() {
    // The same check sees the loss that the promise of the other durability excludes.
    let lost = (0..10).any(|_| {
        let (disk, told) = run(Durability::Relaxed, Loss::All);
        !has_all(&disk, Durability::Relaxed, &told)
    });
    assert!(lost, "an acknowledgement before the sync must be seen by this check");
}

#[test]
fn a_relaxed_log_opens_whatever_the_power_took_of_it() {
    // Large enough for several segments.
    let disk = written(Durability::Relaxed, 60_000);
    for seed in 0..40 {
        let crashed = disk.crash_image(Loss::Coins(seed));
        // It demands that no transaction is there in part.
        has_all(&crashed, Durability::Relaxed, &[19; WRITERS as usize]);
    }
}

#[test]
fn what_is_relaxed_is_there_when_it_was_synced() {
    let disk = SimDisk::new();
    disk.sync_dir(Path::new("/")).unwrap();
    let db = open(&disk, Durability::Relaxed);
    db.kv().put("a", "1").wait().unwrap();
    db.sync().wait().unwrap();
    let crashed = disk.crash_image(Loss::All);
    let found = open(&crashed, Durability::Sync).kv().get("a").wait().unwrap();
    assert_eq!(found.map(|found| found.value), Some("1".into()));
}
