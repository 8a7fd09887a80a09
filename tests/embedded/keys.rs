//! Keys, events and collections.

use std::{ops::Bound, thread};

use bytes::Bytes;
use prkdb::db::{DbError, Event};
use prkdb_types::{CollectionSettings, ErrorCode, KeyIndex, transaction::Order};

use super::{fresh, open};

fn unkeyed(partitions: u32) -> CollectionSettings {
    let key_index = KeyIndex::Off;
    CollectionSettings { key_index, ..CollectionSettings::with_partitions(partitions) }
}

#[test]
fn keys_are_written_read_and_deleted() {
    let (_dir, db) = fresh();
    let kv = db.kv();
    let first = kv.put("a", "1").wait().unwrap();
    assert_eq!((first.partition, first.offset, first.existed), (0, 0, false));
    let second = kv.put("a", "2").wait().unwrap();
    assert_eq!((second.offset, second.existed), (1, true));
    assert!(second.revision > first.revision);
    let found = kv.get("a").wait().unwrap().unwrap();
    assert_eq!((found.value, found.version), (Bytes::from("2"), 1));
    assert!(kv.delete("a").wait().unwrap().existed);
    assert!(!kv.delete("a").wait().unwrap().existed);
    assert_eq!(kv.get("a").wait().unwrap(), None);
}

#[test]
fn a_condition_that_does_not_hold_is_refused_with_the_version_there_is() {
    let (_dir, db) = fresh();
    let kv = db.kv();
    let version = kv.put_if_absent("a", "1").wait().unwrap().offset;
    let refused = kv.put_if_absent("a", "2").wait().unwrap_err();
    let DbError::Refused { code, current_version, .. } = refused else { panic!("{refused}") };
    assert_eq!((code, current_version), (ErrorCode::VersionMismatch, Some(version)));
    kv.put_if_version("a", "2", version).wait().unwrap();
    assert_eq!(
        kv.delete_if_version("a", version).wait().unwrap_err().code(),
        ErrorCode::VersionMismatch
    );
    assert_eq!(kv.put("", "1").wait().unwrap_err().code(), ErrorCode::KeyEmpty);
    let long = vec![0; 64 * 1024 + 1];
    assert_eq!(kv.put(long, "1").wait().unwrap_err().code(), ErrorCode::KeyTooLarge);
}

#[test]
fn a_scan_is_of_one_moment_and_goes_both_ways() {
    let (_dir, db) = fresh();
    let kv = db.kv();
    for key in ["a", "b", "c", "d"] {
        kv.put(key, key).wait().unwrap();
    }
    let (from, to) = (Bound::Included(&b"b"[..]), Bound::Unbounded);
    let scan = kv.scan(from, to, Order::Forward).unwrap();
    kv.delete("c").wait().unwrap();
    let keys: Vec<Bytes> = scan.map(|row| row.unwrap().0).collect();
    assert_eq!(keys, ["b", "c", "d"]);
    let back = kv.scan(from, to, Order::Reverse).unwrap();
    assert_eq!(back.map(|row| row.unwrap().0).collect::<Vec<_>>(), ["d", "b"]);
    assert_eq!(kv.count(), 3);
}

#[tokio::test]
async fn the_same_calls_are_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let writes: Vec<_> = (0..100u8).map(|key| db.kv().put(vec![key], "v")).collect();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(db.kv().get([7]).await.unwrap().unwrap().value, "v");
    let orders = db.create_collection("orders", CollectionSettings::default()).await.unwrap();
    assert_eq!(orders.partitions(), 3);
    let (sum, revision) = db
        .transact(prkdb_types::Isolation::Serializable, async |tx| {
            tx.put_in(&orders, "k", "v")?;
            Ok(tx.get([7])?.map_or(0, |value| value.len()))
        })
        .await
        .unwrap();
    assert_eq!((sum, revision), (1, db.stats().revision));
    db.close().unwrap();
}

#[test]
fn many_callers_share_a_sync() {
    let (_dir, db) = fresh();
    let before = db.stats().groups_written;
    thread::scope(|scope| {
        for caller in 0..16u8 {
            let kv = db.kv();
            scope.spawn(move || {
                let writes: Vec<_> = (0..100u8).map(|key| kv.put(vec![caller, key], "v")).collect();
                for write in writes {
                    write.wait().unwrap();
                }
            });
        }
    });
    let groups = db.stats().groups_written - before;
    assert_eq!(db.kv().count(), 1600);
    assert!(groups < 400, "{groups} groups for 1600 writes");
}

#[test]
fn events_are_appended_and_read_by_their_offsets() {
    let (dir, db) = fresh();
    let logs = db.create_collection("logs", unkeyed(2)).wait().unwrap();
    let stream = db.stream_in(&logs);
    let events: Vec<Event> = (0..5u8).map(|number| Event::new(vec![number])).collect();
    assert_eq!(stream.append(1, &events).wait().unwrap().offset, 0);
    let keyed =
        Event { headers: vec![("h".to_owned(), "x".into())], ..Event::new("v").with_key("k") };
    assert_eq!(stream.append(1, std::slice::from_ref(&keyed)).wait().unwrap().offset, 5);
    drop((stream, logs));
    db.close().unwrap();
    let db = open(&dir);
    let stream = db.stream_in(&db.collection("logs").unwrap());
    let read = stream.read(1, 3, 1 << 20).unwrap();
    let offsets: Vec<u64> = read.events.iter().map(|(offset, _)| *offset).collect();
    assert_eq!((offsets, read.next_offset, read.end), (vec![3, 4, 5], 6, 6));
    let (_, last) = &read.events[2];
    assert_eq!((&last.key, &last.value, &last.headers), (&keyed.key, &keyed.value, &keyed.headers));
    assert_eq!(stream.bounds(0).unwrap(), (0, 0));
    assert_eq!(stream.read(1, 6, 100).unwrap().events, []);
    assert_eq!(stream.read(1, 7, 100).unwrap_err().code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(stream.read(2, 0, 100).unwrap_err().code(), ErrorCode::PartitionNotFound);
    let error = db.kv_in(&db.collection("logs").unwrap()).put("k", "v").wait().unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn a_record_of_a_keyed_collection_is_its_keys_next_value() {
    let (_dir, db) = fresh();
    db.stream()
        .append(0, &[Event::new("1").with_key("a"), Event::new("2").with_key("b")])
        .wait()
        .unwrap();
    assert_eq!(db.kv().get("b").wait().unwrap().unwrap().value, "2");
    db.kv().put("a", "3").wait().unwrap();
    assert_eq!(db.stream().read(0, 2, 100).unwrap().events[0].1.value, Some("3".into()));
}

#[test]
fn collections_are_created_once_found_again_and_dropped() {
    let (dir, db) = fresh();
    let settings = CollectionSettings::with_partitions(4);
    let one = db.create_collection("orders", settings).wait().unwrap();
    db.kv_in(&one).put("k", "v").wait().unwrap();
    db.create_collection("orders", settings).wait().unwrap();
    let other = db.create_collection("orders", CollectionSettings::with_partitions(5)).wait();
    assert_eq!(other.unwrap_err().code(), ErrorCode::CollectionExists);
    assert_eq!(
        db.create_collection("no/name", settings).wait().unwrap_err().code(),
        ErrorCode::InvalidArgument
    );
    drop(one);
    db.close().unwrap();
    let db = open(&dir);
    assert_eq!(db.collections(), ["default", "orders"]);
    let orders = db.collection("orders").unwrap();
    assert_eq!(db.kv_in(&orders).get("k").wait().unwrap().unwrap().value, "v");
    db.drop_collection("orders").wait().unwrap();
    assert_eq!(db.collection("orders").unwrap_err().code(), ErrorCode::CollectionNotFound);
    let gone = db.kv_in(&orders).put("k", "v").wait().unwrap_err();
    assert_eq!(gone.code(), ErrorCode::PartitionNotFound);
    let again = db.create_collection("orders", settings).wait().unwrap();
    assert_eq!(db.kv_in(&again).get("k").wait().unwrap(), None);
}

#[test]
fn a_database_that_is_closed_refuses_other_handles() {
    let (dir, db) = fresh();
    let other = db.clone();
    db.kv().put("a", "1").wait().unwrap();
    db.close().unwrap();
    assert!(matches!(other.kv().put("a", "2").wait(), Err(DbError::Closed)));
    drop(other);
    assert_eq!(open(&dir).kv().get("a").wait().unwrap().unwrap().value, "1");
}

#[test]
fn an_opening_from_a_checkpoint_finds_what_was_there() {
    let (dir, db) = fresh();
    for key in 0..200u8 {
        db.kv().put(vec![key], vec![key; 100]).wait().unwrap();
    }
    db.checkpoint().wait().unwrap();
    db.kv().delete(vec![7]).wait().unwrap();
    db.close().unwrap();
    let db = open(&dir);
    assert_eq!(db.kv().count(), 199);
    assert_eq!(db.kv().get([9]).wait().unwrap().unwrap().value, vec![9; 100]);
}
