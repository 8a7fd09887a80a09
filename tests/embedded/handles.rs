//! Several handles, and callers side by side: each call is answered, and with what is true.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use prkdb::{
    db::{DbError, Durability, Event, PrkDb, Reply},
    storage::{
        clock::ManualClock,
        disk::{
            Disk as _,
            sim::{Loss, SimDisk},
        },
    },
};
use prkdb_types::{Cleanup, CollectionSettings, ErrorCode, Retention};

use super::{fresh, open, open_relaxed, until};

const DAY_MS: u64 = 24 * 3_600_000;
const MIB: u64 = 1 << 20;

/// Waits, and gives up after a minute.
fn answer<T: Send + 'static>(reply: Reply<T>) -> Result<T, DbError> {
    let (answers, answered) = mpsc::channel();
    thread::spawn(move || answers.send(reply.wait()));
    answered.recv_timeout(Duration::from_secs(60)).expect("an answer")
}

#[test]
fn a_truncation_beside_appends_takes_the_keys_whose_records_go() {
    let (_dir, db) = fresh();
    let (kv, stream) = (db.kv(), db.stream());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    stream.append(0, &[Event::new("event")]).wait().unwrap();
                }
            });
        }
        for round in 0..30 {
            let placed = kv.put("key", "value").wait().unwrap();
            let log_start = stream.truncate(0, placed.offset + 1).wait().unwrap();
            assert_eq!(log_start, placed.offset + 1);
            if kv.get("key").wait().unwrap().is_some() || kv.count() > 0 {
                is_over.store(true, Ordering::Relaxed);
                panic!("round {round}: the record went, and the key stays");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_clock_that_is_set_forward_takes_nothing_before_its_retention() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_000_000));
    let builder = PrkDb::builder().with_data_dir(dir.path().join("data"));
    let db = builder.with_clock(Arc::clone(&clock) as _).build().unwrap();
    let settings = CollectionSettings {
        cleanup: Cleanup::Expire,
        retention: Retention { bytes: None, ms: Some(DAY_MS) },
        ..CollectionSettings::with_partitions(1)
    };
    let logs = db.create_collection("logs", settings).wait().unwrap();
    let retention = Retention { bytes: Some(1), ms: None };
    let settings = CollectionSettings { retention, ..settings };
    let probe = db.create_collection("probe", settings).wait().unwrap();
    let (kv, probe) = (db.kv_in(&logs), db.stream_in(&probe));
    for key in 0..10_u8 {
        kv.put(vec![key], "value").wait().unwrap();
        // A mark of its own for each of them.
        clock.advance(Duration::from_secs(3600));
    }
    clock.set_wall_ms(i64::try_from(3650 * DAY_MS).unwrap());
    for _ in 0..3 {
        let (start, _) = probe.bounds(0).unwrap();
        for _ in 0..2 {
            probe.append(0, &[Event::new("event")]).wait().unwrap();
        }
        // It comes behind the other one.
        until("it was looked", || probe.bounds(0).unwrap().0 > start);
    }
    assert_eq!((kv.count(), db.stream_in(&logs).bounds(0).unwrap()), (10, (0, 10)));
}

#[test]
fn a_closed_database_answers_whoever_has_another_handle() {
    let (_dir, db) = fresh();
    let other = db.clone();
    db.kv().put("key", "value").wait().unwrap();
    db.close().unwrap();
    assert_eq!(answer(other.checkpoint()).unwrap_err().code(), ErrorCode::Stopping);
    assert_eq!(answer(other.sync()).unwrap_err().code(), ErrorCode::Stopping);
    assert_eq!(answer(other.kv().put("key", "2")).unwrap_err().code(), ErrorCode::Stopping);
    let found = answer(other.kv().get("key")).unwrap();
    assert_eq!(found.unwrap().value, "value", "what was applied is read");
    other.close().unwrap();
}

#[test]
fn a_second_close_returns_when_everything_is_synced_too() {
    for round in 0..20 {
        let disk = SimDisk::new();
        disk.sync_dir(Path::new("/")).unwrap();
        let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
        let builder = builder.with_durability(Durability::Relaxed);
        let db = builder.on_disk(Arc::new(disk.clone())).build().unwrap();
        for key in 0..100_u8 {
            db.kv().put(vec![key], "value").wait().unwrap();
        }
        let other = db.clone();
        let first = thread::spawn(move || db.close());
        until("it closes", || other.kv().put("late", "value").wait().is_err());
        other.close().unwrap();
        let crashed = disk.crash_image(Loss::All);
        first.join().unwrap().unwrap();
        let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
        let db = builder.on_disk(Arc::new(crashed)).build().unwrap();
        assert!(db.kv().count() >= 100, "round {round}: {}", db.kv().count());
    }
}

#[test]
fn a_directory_is_free_when_the_last_call_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..15 {
        let db = open(&dir);
        let settings = CollectionSettings::with_partitions(1);
        let created = db.create_collection(&format!("c{number}"), settings);
        drop(db);
        created.wait().unwrap();
    }
}

#[test]
fn a_checkpoint_that_was_asked_for_is_there_when_it_is_answered() {
    let has_checkpoint = |dir: &Path| {
        let mut dirs = vec![dir.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with("MANIFEST") {
                    return true;
                }
            }
        }
        false
    };
    let dir = tempfile::tempdir().unwrap();
    let db = open_relaxed(&dir);
    db.kv().put("key", "value").wait().unwrap();
    assert!(!has_checkpoint(dir.path()));
    answer(db.checkpoint()).unwrap();
    assert!(has_checkpoint(dir.path()));
    // Again, beside writes that never cease.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                db.kv().put("key", "again").wait().unwrap();
            }
        });
        for _ in 0..3 {
            answer(db.checkpoint()).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_checkpoint_that_has_no_room_is_refused_for_everybody_who_asked() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(200 * MIB));
    let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
    let db = builder.on_disk(Arc::new(disk.clone())).build().unwrap();
    db.kv().put("key", "value").wait().unwrap();
    disk.set_capacity(Some(MIB));
    for asked in [db.checkpoint(), db.checkpoint()] {
        assert_eq!(answer(asked).unwrap_err().code(), ErrorCode::DiskFull);
    }
    disk.set_capacity(None);
    answer(db.checkpoint()).unwrap();
}

#[test]
fn a_sync_of_what_a_full_disk_holds_up_is_answered_when_the_database_closes() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(100 * MIB));
    let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
    let db = builder.on_disk(Arc::new(disk.clone())).build().unwrap();
    disk.set_capacity(Some(MIB));
    // It is larger than any segment that is ready.
    let put = db.kv().put("key", vec![1; 16 << 20]);
    let (synced, _other) = (db.sync(), db.clone());
    db.close().unwrap();
    for unknown in [answer(put).map(drop), answer(synced)] {
        assert!(matches!(unknown, Err(DbError::Unknown)), "{unknown:?}");
    }
}

#[test]
fn partitions_of_a_dropped_collection_are_refused() {
    let (_dir, db) = fresh();
    let gone = db.create_collection("gone", CollectionSettings::with_partitions(1)).wait().unwrap();
    let stream = db.stream_in(&gone);
    stream.append(0, &[Event::new("event")]).wait().unwrap();
    db.drop_collection("gone").wait().unwrap();
    for refused in [
        stream.bounds(0).map(drop),
        stream.read(0, 0, 1000).map(drop),
        stream.offset_at_time(0, 0).map(drop),
        stream.truncate(0, 1).wait().map(drop),
        stream.append(0, &[Event::new("event")]).wait().map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), ErrorCode::PartitionNotFound);
    }
}
