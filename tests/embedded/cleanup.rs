//! What goes by itself: values whose time is over, what is beyond a retention, what was written again; and the
//! room it took.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prkdb::{
    db::{Collection, Durability, Event, PrkDb, adapter::WalStorage},
    storage::{
        clock::ManualClock,
        disk::{Disk as _, sim::SimDisk},
    },
};
use prkdb_types::{
    Cleanup, CollectionChanges, CollectionSettings, ErrorCode, KeyIndex, Retention,
    adapter::{AdapterError, LogLimit, StorageAdapter as _},
};
use tempfile::TempDir;

use super::{fresh, until};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

fn with_clock(dir: &TempDir, clock: &Arc<ManualClock>) -> PrkDb {
    let builder = PrkDb::builder().with_data_dir(dir.path().join("data"));
    builder.with_clock(Arc::clone(clock) as _).build().unwrap()
}

/// A database whose log is in small files, so that there is something to clean soon.
fn with_small_files(dir: &TempDir) -> PrkDb {
    PrkDb::builder()
        .with_data_dir(dir.path().join("data"))
        .with_durability(Durability::Relaxed)
        .with_segment_bytes(4 * MIB)
        .with_checkpoint_bytes(2 * MIB)
        .build()
        .unwrap()
}

/// Puts a hundred keys of 16 KiB, again and again, and returns once they are written.
fn put_again(db: &PrkDb, collection: &Collection, rounds: u8) {
    let kv = db.kv_in(collection);
    for round in 0..rounds {
        let puts: Vec<_> =
            (0..100_u8).map(|key| kv.put(vec![key], vec![round; 16 << 10])).collect();
        for put in puts {
            put.wait().unwrap();
        }
    }
}

#[test]
fn a_value_with_a_time_to_live_is_gone_after_it_and_frees_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_000_000));
    let db = with_clock(&dir, &clock);
    let kv = db.kv();
    kv.put("stays", "1").wait().unwrap();
    kv.put_with_ttl("goes", "2", 10 * SECOND).wait().unwrap();
    kv.put_with_ttl("kept", "3", 10 * SECOND).wait().unwrap();
    kv.put("cut short", "4").wait().unwrap();

    assert_eq!(kv.ttl("stays").wait().unwrap(), None);
    assert_eq!(kv.ttl("goes").wait().unwrap(), Some(10 * SECOND));
    assert_eq!(kv.get("goes").wait().unwrap().unwrap().expires_ms, Some(1_010_000));
    assert!(kv.persist("kept").wait().unwrap());
    assert!(!kv.persist("kept").wait().unwrap(), "it stays already");
    assert!(kv.expire("cut short", 5 * SECOND).wait().unwrap());
    assert!(!kv.expire("nothing", SECOND).wait().unwrap());
    assert_eq!(kv.get("cut short").wait().unwrap().unwrap().value, "4");

    clock.advance(6 * SECOND);
    until("the first is swept", || kv.count() == 3);
    assert_eq!(kv.get("cut short").wait().unwrap(), None);
    assert_eq!(kv.ttl("goes").wait().unwrap(), Some(4 * SECOND));
    clock.advance(5 * SECOND);
    until("the second is swept", || kv.count() == 2);
    assert_eq!(kv.get("goes").wait().unwrap(), None);
    assert_eq!(kv.get("kept").wait().unwrap().unwrap().value, "3");
    assert!(kv.expire("kept", Duration::ZERO).wait().unwrap());
    assert_eq!(kv.get("kept").wait().unwrap(), None, "at once");
    drop(kv);
    db.close().unwrap();

    let db = with_clock(&dir, &clock);
    assert_eq!((db.kv().count(), db.kv().get("goes").wait().unwrap()), (1, None));
}

#[test]
fn a_collection_has_a_time_to_live_for_values_that_state_none() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let db = with_clock(&dir, &clock);
    let settings =
        CollectionSettings { ttl_ms: Some(3_000), ..CollectionSettings::with_partitions(2) };
    let sessions = db.create_collection("sessions", settings).wait().unwrap();
    let kv = db.kv_in(&sessions);
    kv.put("short", "1").wait().unwrap();
    kv.put_with_ttl("long", "2", 60 * SECOND).wait().unwrap();
    clock.advance(4 * SECOND);
    until("what stated nothing is gone", || kv.count() == 1);
    assert_eq!(kv.get("long").wait().unwrap().unwrap().value, "2");
}

#[test]
fn a_renewal_beside_writes_to_the_key_is_of_the_value_that_is_there() {
    let (_dir, db) = fresh();
    let kv = db.kv();
    kv.put("key", "first").wait().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200_u8 {
                kv.put("key", vec![round]).wait().unwrap();
            }
        });
        for _ in 0..200 {
            // It may be overtaken again and again: then it says so, and nothing is changed.
            let _renewed = kv.expire("key", 600 * SECOND).wait();
        }
    });
    assert_eq!(kv.get("key").wait().unwrap().unwrap().value.as_ref(), [199]);
    assert!(kv.expire("key", 600 * SECOND).wait().unwrap());
    assert_eq!(kv.get("key").wait().unwrap().unwrap().value.as_ref(), [199]);
}

#[test]
fn what_is_beyond_a_retention_goes_and_so_do_its_keys_and_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_small_files(&dir);
    let settings = CollectionSettings {
        cleanup: Cleanup::Expire,
        retention: Retention { bytes: Some(MIB), ms: None },
        ..CollectionSettings::with_partitions(1)
    };
    let events = CollectionSettings { key_index: KeyIndex::Off, ..settings };
    let events = db.create_collection("events", events).wait().unwrap();
    let stream = db.stream_in(&events);
    for number in 0..400_u32 {
        let event = Event::new(number.to_be_bytes().repeat(16 << 10));
        stream.append(0, &[event]).wait().unwrap();
    }
    until("the partition begins later", || stream.bounds(0).unwrap().0 > 350);
    let keyed = db.create_collection("keyed", settings).wait().unwrap();
    let kv = db.kv_in(&keyed);
    for key in 0..400_u32 {
        kv.put(key.to_be_bytes().to_vec(), vec![1; 64 << 10]).wait().unwrap();
    }
    until("the keys go whose records go", || kv.count() < 50);
    assert_eq!(kv.get(0_u32.to_be_bytes()).wait().unwrap(), None);
    assert!(kv.get(399_u32.to_be_bytes()).wait().unwrap().is_some());
    until("the room comes back", || db.stats().log_bytes < 24 * MIB);
    let (start, end) = stream.bounds(0).unwrap();
    assert_eq!(end, 400);
    assert!(stream.read(0, start, 1 << 20).is_ok());
}

#[test]
fn a_compacted_collection_keeps_what_is_alive_and_a_dropped_one_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_small_files(&dir);
    let settings =
        CollectionSettings { cleanup: Cleanup::Compact, ..CollectionSettings::with_partitions(1) };
    let compacted = db.create_collection("compacted", settings).wait().unwrap();
    put_again(&db, &compacted, 30);
    let kept = db.create_collection("kept", CollectionSettings::with_partitions(1)).wait().unwrap();
    put_again(&db, &kept, 10);
    db.drop_collection("kept").wait().unwrap();
    // 48 MB and 16 MB were written; 1.6 MB are alive, beside files that are written to and ready.
    until("the room comes back", || db.stats().log_bytes < 20 * MIB);
    let is_there = |db: &PrkDb| {
        let kv = db.kv_in(&db.collection("compacted").unwrap());
        for key in 0..100_u8 {
            assert_eq!(kv.get([key]).wait().unwrap().unwrap().value, vec![29; 16 << 10]);
        }
    };
    is_there(&db);
    db.close().unwrap();

    let db = with_small_files(&dir);
    is_there(&db);
    assert!(db.collection("kept").is_err());
    // And it goes on.
    put_again(&db, &db.collection("compacted").unwrap(), 30);
    until("the room comes back again", || db.stats().log_bytes < 20 * MIB);
    is_there(&db);
}

/// Nothing is written meanwhile that would move the log on.
#[test]
fn a_log_at_rest_is_cleaned_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_small_files(&dir);
    let settings = CollectionSettings::with_partitions(1);
    let dropped = db.create_collection("dropped", settings).wait().unwrap();
    // The first of it has more records than the rest, so it is cleaned first; something of each stays.
    for (value_bytes, count) in [(1 << 10, 32_u64), (16 << 10, 2), (16 << 10, 2), (16 << 10, 2)] {
        for round in 0..8 {
            db.kv().put(format!("{value_bytes} {round}"), "stays").wait().unwrap();
            let kv = db.kv_in(&dropped);
            let puts: Vec<_> = (0..count * 125)
                .map(|number| kv.put(number.to_be_bytes().to_vec(), vec![1; value_bytes]))
                .collect();
            for put in puts {
                put.wait().unwrap();
            }
        }
    }
    assert!(db.stats().log_bytes > 120 * MIB);
    db.drop_collection("dropped").wait().unwrap();
    until("all of its room comes back", || db.stats().log_bytes < 20 * MIB);
    assert_eq!(db.kv().count(), 16);
}

#[test]
fn a_database_closes_on_a_full_disk_with_a_trim_under_way() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(100 * MIB));
    let open = || {
        let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
        builder.on_disk(Arc::new(disk.clone())).build().unwrap()
    };
    let db = open();
    let settings = CollectionSettings {
        cleanup: Cleanup::Expire,
        retention: Retention { bytes: Some(MIB), ms: None },
        ..CollectionSettings::with_partitions(1)
    };
    let kv = db.kv_in(&db.create_collection("logs", settings).wait().unwrap());
    let mut written = 0_u32;
    let refused = loop {
        match kv.put(written.to_be_bytes().to_vec(), vec![1; 64 << 10]).wait() {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
    // The janitor has looked at it at least once meanwhile.
    let begun = Instant::now();
    until("it had its time", || begun.elapsed() > SECOND);
    drop(kv);
    db.close().unwrap();
    disk.set_capacity(None);
    let db = open();
    let kv = db.kv_in(&db.collection("logs").unwrap());
    assert!(kv.get((written - 1).to_be_bytes()).wait().unwrap().is_some());
}

#[test]
fn retention_goes_on_where_a_full_disk_refuses_tombstones() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(100 * MIB));
    let builder = PrkDb::builder().with_data_dir("/data").with_segment_bytes(4 * MIB);
    let db = builder.on_disk(Arc::new(disk)).build().unwrap();
    // Its tombstone is refused again and again.
    db.kv().put_with_ttl("goes", "v", SECOND).wait().unwrap();
    let settings = CollectionSettings {
        key_index: KeyIndex::Off,
        cleanup: Cleanup::Expire,
        retention: Retention { bytes: Some(25 * MIB), ms: None },
        ..CollectionSettings::with_partitions(1)
    };
    let events = db.stream_in(&db.create_collection("events", settings).wait().unwrap());
    let event = [Event { value: Some(vec![1; 64 << 10].into()), ..Event::default() }];
    let refused = loop {
        if let Err(error) = events.append(0, &event).wait() {
            break error;
        }
    };
    assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
    let begun = Instant::now();
    until("the value is over", || begun.elapsed() > SECOND);
    let changes = CollectionChanges { retention_bytes: Some(MIB), ..CollectionChanges::default() };
    let before = events.bounds(0).unwrap().0;
    db.alter_collection("events", changes).wait().unwrap();
    until("it is trimmed", || events.bounds(0).unwrap().0 > before + 100);
}

#[test]
fn a_start_on_a_full_disk_gives_up_the_reserve_and_has_it_again_when_there_is_room() {
    let disk = SimDisk::new();
    let open = |disk: &SimDisk| {
        PrkDb::builder().with_data_dir("/data").on_disk(Arc::new(disk.clone())).build().unwrap()
    };
    let db = open(&disk);
    db.kv().put("key", "value").wait().unwrap();
    // As after a kill, before the log said that all of it is synced.
    let killed = disk.clone_image();
    drop(db);
    let ballast = std::path::Path::new("/data/BALLAST");
    let has_ballast = || killed.exists(ballast).unwrap();
    assert!(has_ballast());
    let space = killed.space(ballast.parent().unwrap()).unwrap();
    killed.set_capacity(Some(space.total - space.free + (64 << 10)));
    let db = open(&killed);
    assert_eq!(&db.kv().get("key").wait().unwrap().unwrap().value[..], b"value");
    assert!(!has_ballast(), "there is no room for it");
    db.kv().put("key", "goes on").wait().unwrap();
    killed.set_capacity(None);
    until("the reserve is there again", has_ballast);
}

#[test]
fn a_log_that_was_cleaned_says_from_where_on_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_small_files(&dir);
    db.kv().put("first", "1").wait().unwrap();
    let adapter = WalStorage::new(db.clone()).unwrap();
    let limit = LogLimit { commits: 10, bytes: 1 << 20 };
    assert_eq!(adapter.log(1, limit).unwrap().len(), 1);
    let other =
        db.create_collection("other", CollectionSettings::with_partitions(1)).wait().unwrap();
    put_again(&db, &other, 10);
    db.drop_collection("other").wait().unwrap();
    until(
        "the log is cleaned",
        || matches!(adapter.log(1, limit), Err(AdapterError::Compacted { oldest }) if oldest > 2),
    );
    let Err(AdapterError::Compacted { oldest }) = adapter.log(1, limit) else { unreachable!() };
    assert!(adapter.log(oldest, limit).is_ok());
    assert_eq!(db.kv().get("first").wait().unwrap().unwrap().value, "1");
}
