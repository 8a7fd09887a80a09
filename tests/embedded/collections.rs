//! Collections that are changed while they are there, and partitions that begin later.

use std::{sync::Arc, time::Duration};

use prkdb::{
    db::{Event, PrkDb},
    storage::clock::ManualClock,
};
use prkdb_types::{
    Cleanup, CollectionChanges, CollectionSettings, ErrorCode, KeyIndex, headers::Ttl,
};

use super::{fresh, until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_collection_is_changed_and_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let open = || {
        let builder = PrkDb::builder().with_data_dir(dir.path().join("data"));
        builder.with_clock(Arc::clone(&clock) as _).build().unwrap()
    };
    let db = open();
    let sessions = db.create_collection("sessions", CollectionSettings::default()).wait().unwrap();
    let kv = db.kv_in(&sessions);
    kv.put("before", "1").wait().unwrap();
    let changes = CollectionChanges { ttl: Some(Ttl::Ms(3_000)), ..Default::default() };
    let altered = db.alter_collection("sessions", changes).wait().unwrap();
    assert_eq!(altered.settings().ttl_ms, Some(3_000));
    kv.put("after", "2").wait().unwrap();
    clock.advance(4 * SECOND);
    until("what was written since is gone", || kv.count() == 1);
    assert_eq!(kv.get("before").wait().unwrap().unwrap().value, "1");
    drop(kv);
    db.close().unwrap();

    let db = open();
    let sessions = db.collection("sessions").unwrap();
    assert_eq!(sessions.settings().ttl_ms, Some(3_000));
    let changes = CollectionChanges {
        ttl: Some(Ttl::Never),
        retention_ms: Some(10_000),
        ..Default::default()
    };
    let altered = db.alter_collection("sessions", changes).wait().unwrap();
    assert_eq!((altered.settings().ttl_ms, altered.settings().cleanup), (None, Cleanup::Expire));
    let kv = db.kv_in(&sessions);
    kv.put("later", "3").wait().unwrap();
    clock.advance(9 * SECOND);
    kv.put("last", "4").wait().unwrap();
    // What stands before a record is known to be as old as that at least.
    clock.advance(12 * SECOND);
    until("what is older than its retention is gone", || kv.count() == 1);
    assert_eq!(kv.get("last").wait().unwrap().unwrap().value, "4");
}

#[test]
fn partitions_are_added_where_there_are_no_keys_and_refused_elsewhere() {
    let (_dir, db) = fresh();
    let to = |partitions| CollectionChanges { partitions: Some(partitions), ..Default::default() };
    let settings =
        CollectionSettings { key_index: KeyIndex::Off, ..CollectionSettings::with_partitions(2) };
    let events = db.create_collection("events", settings).wait().unwrap();
    db.stream_in(&events).append(1, &[Event::new("a")]).wait().unwrap();
    let refused = db.stream_in(&events).append(3, &[Event::new("b")]).wait().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PartitionNotFound);
    let events = db.alter_collection("events", to(4)).wait().unwrap();
    let stream = db.stream_in(&events);
    stream.append(3, &[Event::new("b")]).wait().unwrap();
    assert_eq!((stream.bounds(1).unwrap(), stream.bounds(3).unwrap()), ((0, 1), (0, 1)));
    assert_eq!(db.collection("events").unwrap().partitions(), 4);
    // What is made later has numbers of its own.
    let other = db.create_collection("other", settings).wait().unwrap();
    assert_eq!(db.stream_in(&other).bounds(0).unwrap(), (0, 0));

    let fewer = db.alter_collection("events", to(3)).wait().unwrap_err();
    assert_eq!(fewer.code(), ErrorCode::AlterRefused);
    let keyed = db.alter_collection("default", to(2)).wait().unwrap_err();
    assert_eq!(keyed.code(), ErrorCode::AlterRefused);
    assert!(keyed.to_string().contains("collection 'default'"), "{keyed}");
    let nothing = CollectionChanges { ttl: Some(Ttl::Ms(0)), ..Default::default() };
    let nothing = db.alter_collection("default", nothing).wait().unwrap_err();
    assert_eq!(nothing.code(), ErrorCode::InvalidArgument);
    let absent = db.alter_collection("absent", to(2)).wait().unwrap_err();
    assert_eq!(absent.code(), ErrorCode::CollectionNotFound);
}

#[test]
fn a_partition_that_is_truncated_begins_later_without_the_keys_before() {
    let (_dir, db) = fresh();
    let (kv, stream) = (db.kv(), db.stream());
    for (key, value) in [("goes", "1"), ("again", "1"), ("stays", "1"), ("again", "2")] {
        kv.put(key, value).wait().unwrap();
    }
    assert_eq!(stream.bounds(0).unwrap(), (0, 4));
    assert_eq!(stream.truncate(0, 2).wait().unwrap(), 2);
    assert_eq!(kv.get("goes").wait().unwrap(), None);
    assert_eq!(kv.get("again").wait().unwrap().unwrap().value, "2");
    assert_eq!(kv.get("stays").wait().unwrap().unwrap().value, "1");
    assert_eq!(kv.count(), 2);
    assert_eq!(stream.truncate(0, 1).wait().unwrap(), 2, "it begins no earlier");
    assert_eq!(stream.read(0, 2, 1 << 20).unwrap().events[0].0, 2);
    let refused = stream.truncate(7, 1).wait().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PartitionNotFound);

    let end = stream.bounds(0).unwrap().1;
    assert_eq!(stream.truncate(0, u64::MAX).wait().unwrap(), end, "not behind what was written");
    assert_eq!(kv.count(), 0);
    kv.put("new", "1").wait().unwrap();
    assert_eq!(kv.get("new").wait().unwrap().unwrap().value, "1");
}

#[test]
fn an_offset_is_found_by_the_time_of_its_record() {
    let (_dir, db) = fresh();
    let stream = db.stream();
    for time_ms in [1_000, 2_000, 3_000] {
        let event = Event { timestamp_ms: Some(time_ms), ..Event::new("e") };
        stream.append(0, &[event]).wait().unwrap();
    }
    let found: Vec<_> =
        [0, 1_001, 3_000, 3_001].map(|time_ms| stream.offset_at_time(0, time_ms).unwrap()).into();
    assert_eq!(found, [Some(0), Some(1), Some(2), None]);
    assert_eq!(stream.offset_at_time(9, 0).unwrap_err().code(), ErrorCode::PartitionNotFound);
}
