//! The adapters of this engine keep what their tiers promise.

use std::sync::Arc;

use prkdb::db::adapter::{SegmentedLog, WalStorage};
use prkdb_types::adapter::{
    AdapterError, LogLimit, ReadSet, StorageAdapter, WriteBatch,
    conformance::{self, Fixture, wait},
};
use tempfile::TempDir;

struct Wal(TempDir);

impl Fixture for Wal {
    fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError> {
        Ok(Arc::new(WalStorage::open(self.0.path().join("data")).unwrap()))
    }
}

struct Log(TempDir);

impl Fixture for Log {
    fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError> {
        Ok(Arc::new(SegmentedLog::open(self.0.path().join("data")).unwrap()))
    }
}

#[test]
fn the_wal_keeps_what_its_tiers_promise() {
    let failures = conformance::failures(|| Wal(tempfile::tempdir().unwrap()));
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_log_keeps_what_its_tier_promises() {
    let failures = conformance::failures(|| Log(tempfile::tempdir().unwrap()));
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_read_set_of_a_snapshot_that_nobody_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = WalStorage::open(dir.path().join("data")).unwrap();
    let revision = wal.snapshot().unwrap().revision();
    let read_set = ReadSet { revision, ..ReadSet::default() };
    let batch = WriteBatch::new().put("a", "1").resting_on(read_set);
    let refused = wait(wal.apply(batch)).unwrap_err();
    assert!(matches!(refused, AdapterError::SnapshotGone { .. }), "{refused}");
}

#[test]
fn what_other_collections_hold_is_no_commit_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = prkdb::PrkDb::builder().with_data_dir(dir.path().join("data")).build().unwrap();
    let log = SegmentedLog::new(db.clone()).unwrap();
    db.kv().put("a", "1").wait().unwrap();
    let revision = wait(log.apply(WriteBatch::new().put("b", "2"))).unwrap().revision;
    let commits = log.log(0, LogLimit { commits: 10, bytes: 1000 }).unwrap();
    assert_eq!(commits.iter().map(|commit| commit.revision).collect::<Vec<_>>(), [revision]);
}
