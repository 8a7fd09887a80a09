//! Transactions of an embedded database.

use std::{ops::Bound, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use prkdb::{
    db::{DbError, PrkDb, TransactionConfig},
    storage::clock::Clock,
};
use prkdb_types::{CollectionSettings, ErrorCode, Isolation, transaction::Order};

use super::fresh;

fn serializable() -> TransactionConfig {
    TransactionConfig { isolation: Isolation::Serializable, ..TransactionConfig::default() }
}

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

#[test]
fn a_transaction_sees_its_writes_and_others_see_them_when_it_commits() {
    let (_dir, db) = fresh();
    let orders =
        db.create_collection("orders", CollectionSettings::with_partitions(3)).wait().unwrap();
    let mut tx = db.begin();
    tx.put("a", "1").unwrap();
    tx.put_in(&orders, "o", "2").unwrap();
    assert_eq!(tx.get("a").unwrap(), Some("1".into()));
    assert_eq!(db.kv().get("a").wait().unwrap(), None);
    let revision = tx.commit().wait().unwrap();
    assert_eq!(db.kv().get("a").wait().unwrap().unwrap().value, "1");
    assert_eq!(db.kv_in(&orders).get("o").wait().unwrap().unwrap().value, "2");
    assert_eq!(db.stats().revision, revision);
    let mut tx = db.begin();
    tx.put("b", "1").unwrap();
    tx.rollback();
    assert_eq!(db.kv().get("b").wait().unwrap(), None);
}

#[test]
fn a_scan_merges_writes_over_the_snapshot() {
    let (_dir, db) = fresh();
    for key in ["a", "b", "c"] {
        db.kv().put(key, "old").wait().unwrap();
    }
    let all = db.collection("default").unwrap();
    let mut tx = db.begin();
    tx.delete("b").unwrap();
    tx.put("bb", "new").unwrap();
    db.kv().put("d", "later").wait().unwrap();
    let range = (Bound::Unbounded, Bound::Unbounded);
    let rows = tx.scan_in(&all, range, Order::Forward, usize::MAX).unwrap();
    let rows: Vec<_> = rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(rows, [(&b"a"[..], &b"old"[..]), (b"bb", b"new"), (b"c", b"old")]);
    let back = tx.scan_in(&all, range, Order::Reverse, 2).unwrap();
    assert_eq!(back.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [&b"c"[..], b"bb"]);
}

#[test]
fn a_page_of_a_range_conflicts_only_with_what_was_read_of_it() {
    let (_dir, db) = fresh();
    for key in ["a", "b", "c", "d"] {
        db.kv().put(key, "v").wait().unwrap();
    }
    let all = db.collection("default").unwrap();
    for (written, conflicts) in [("c", false), ("aa", true)] {
        let mut tx = db.begin_with(serializable());
        let range = (Bound::Unbounded, Bound::Unbounded);
        assert_eq!(tx.scan_in(&all, range, Order::Forward, 2).unwrap().len(), 2);
        tx.put("x", "v").unwrap();
        db.kv().put(written, "w").wait().unwrap();
        let committed = tx.commit().wait();
        assert_eq!(committed.is_err(), conflicts, "{committed:?}");
    }
}

#[test]
fn a_conflict_names_collection_and_key() {
    let (_dir, db) = fresh();
    let mut tx = db.begin();
    tx.put("a", "1").unwrap();
    db.kv().put("a", "2").wait().unwrap();
    let error = tx.commit().wait().unwrap_err();
    assert!(error.is_conflict());
    let DbError::ConflictDetected { collection, key, .. } = error else { panic!("{error}") };
    assert_eq!((collection.as_str(), &key[..]), ("default", &b"a"[..]));
    assert_eq!(db.kv().get("a").wait().unwrap().unwrap().value, "2");
}

#[test]
fn savepoints_nest() {
    let (_dir, db) = fresh();
    let mut tx = db.begin();
    tx.put("order", "pending").unwrap();
    tx.savepoint("outer").unwrap();
    tx.put("payment", "charged").unwrap();
    tx.savepoint("inner").unwrap();
    tx.delete("order").unwrap();
    tx.rollback_to_savepoint("inner").unwrap();
    assert_eq!(tx.get("order").unwrap(), Some("pending".into()));
    tx.rollback_to_savepoint("outer").unwrap();
    assert_eq!(tx.get("payment").unwrap(), None);
    let gone = tx.rollback_to_savepoint("inner").unwrap_err();
    assert!(gone.to_string().contains("no savepoint 'inner'"), "{gone}");
    tx.release_savepoint("outer").unwrap();
    tx.commit().wait().unwrap();
    assert_eq!(db.kv().get("payment").wait().unwrap(), None);
}

#[test]
fn counters_that_many_add_to_lose_nothing() {
    let (_dir, db) = fresh();
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let add = |tx: &mut prkdb::db::Transaction| {
                            let sum = number(tx.get("sum")?) + 1;
                            tx.put("sum", sum.to_be_bytes().to_vec())
                        };
                        let mut added = db.transact_blocking(isolation, add);
                        while added.as_ref().is_err_and(DbError::is_conflict) {
                            added = db.transact_blocking(isolation, add);
                        }
                        added.unwrap();
                    }
                });
            }
        });
    }
    assert_eq!(number(db.kv().get("sum").wait().unwrap().map(|found| found.value)), 400);
}

/// Moves money between accounts on many threads; returns the sums that readers saw.
fn transfers(db: &PrkDb) -> Vec<u64> {
    const ACCOUNTS: u8 = 6;
    for account in 0..ACCOUNTS {
        db.kv().put(vec![account], 100u64.to_be_bytes().to_vec()).wait().unwrap();
    }
    let all = db.collection("default").unwrap();
    thread::scope(|scope| {
        for seed in 0..4u8 {
            scope.spawn(move || {
                for round in 0..50u8 {
                    let (from, to) =
                        ((seed + round) % ACCOUNTS, (seed * 2 + round * 5 + 1) % ACCOUNTS);
                    if from == to {
                        continue;
                    }
                    // One that conflicts too often is given up: no money is lost.
                    let _given_up = db.transact_blocking(Isolation::Snapshot, |tx| {
                        let (left, right) = (number(tx.get([from])?), number(tx.get([to])?));
                        tx.put(vec![from], (left - left.min(3)).to_be_bytes().to_vec())?;
                        tx.put(vec![to], (right + left.min(3)).to_be_bytes().to_vec())
                    });
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut sums = Vec::new();
            for _ in 0..100 {
                let mut tx = db.begin();
                let range = (Bound::Unbounded, Bound::Unbounded);
                let rows = tx.scan_in(&all, range, Order::Forward, usize::MAX).unwrap();
                sums.push(rows.into_iter().map(|(_, value)| number(Some(value))).sum());
            }
            sums
        });
        reader.join().unwrap()
    })
}

#[test]
fn money_that_is_moved_is_never_seen_on_the_way() {
    let (_dir, db) = fresh();
    assert!(transfers(&db).into_iter().all(|sum| sum == 600));
}

/// A clock that moves when it is told to.
#[derive(Debug, Default)]
struct ByHand(std::sync::atomic::AtomicU64);

impl Clock for ByHand {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[test]
fn one_that_is_open_for_too_long_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ByHand::default());
    let builder = PrkDb::builder().with_data_dir(dir.path().join("data"));
    let db = builder.with_clock(Arc::clone(&clock) as _).build().unwrap();
    let config = TransactionConfig { timeout: Duration::from_secs(1), ..serializable() };
    let mut tx = db.begin_with(config);
    tx.put("a", "1").unwrap();
    clock.0.store(1001, std::sync::atomic::Ordering::Relaxed);
    let error = tx.commit().wait().unwrap_err();
    assert!(matches!(error, DbError::TransactionTimeout { .. }), "{error}");
    assert_eq!(db.kv().get("a").wait().unwrap(), None);
}

#[test]
fn limits_are_told() {
    let (_dir, db) = fresh();
    let mut tx =
        db.begin_with(TransactionConfig { bytes_max: 1000, ..TransactionConfig::default() });
    let error = tx.put("a", vec![0; 2000]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    assert!(error.to_string().contains("limit 1000 bytes (transaction-bytes)"), "{error}");
}

#[test]
fn a_collection_that_is_dropped_meanwhile_takes_no_part() {
    let (_dir, db) = fresh();
    let settings = CollectionSettings::with_partitions(2);
    let orders = db.create_collection("orders", settings).wait().unwrap();
    let mut reader = db.begin_with(serializable());
    assert_eq!(reader.get_in(&orders, "o").unwrap(), None);
    reader.put("a", "1").unwrap();
    let mut writer = db.begin();
    writer.put("a", "1").unwrap();
    writer.put_in(&orders, "o", "1").unwrap();
    db.drop_collection("orders").wait().unwrap();
    for tx in [reader, writer] {
        assert_eq!(tx.commit().wait().unwrap_err().code(), ErrorCode::PartitionNotFound);
    }
    assert_eq!(db.kv().get("a").wait().unwrap(), None);
}
