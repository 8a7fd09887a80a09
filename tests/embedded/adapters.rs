//! The adapters of this engine keep what their tiers promise.

use std::{fs, path::PathBuf, sync::Arc};

use prkdb::db::{
    Durability, PrkDb,
    adapter::{SegmentedLog, WalStorage},
};
use prkdb_types::adapter::{
    AdapterError, LogLimit, ReadSet, StorageAdapter, WriteBatch,
    conformance::{self, Fixture, wait},
};
use tempfile::TempDir;

use super::until;

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
fn a_trimmed_log_is_trimmed_when_it_is_opened_again() {
    const ALL: LogLimit = LogLimit { commits: 100, bytes: 1 << 20 };
    let dir = tempfile::tempdir().unwrap();
    let open = || SegmentedLog::open(dir.path().join("data")).unwrap();
    let append = |log: &SegmentedLog, key: String| {
        wait(log.apply(WriteBatch::new().put(key.clone(), "1").put(key, "2"))).unwrap().revision
    };
    let log = open();
    let revisions: Vec<_> = (0..10).map(|number| append(&log, format!("k{number}"))).collect();
    log.trim_log(revisions[4]).unwrap();
    // What has gone already, once more.
    log.trim_log(revisions[2]).unwrap();
    drop(log);
    let log = open();
    let left = |log: &SegmentedLog, from| -> Vec<_> {
        log.log(from, ALL).unwrap().iter().map(|commit| commit.revision).collect()
    };
    let refused = log.log(revisions[1], ALL).unwrap_err();
    assert!(
        matches!(refused, AdapterError::Compacted { oldest } if oldest == revisions[4]),
        "{refused}"
    );
    assert_eq!(left(&log, revisions[4]), revisions[4..]);
    assert_eq!(left(&log, revisions[8]), revisions[8..]);
    log.trim_log(u64::MAX).unwrap();
    let refused = log.log(1, ALL).unwrap_err();
    let AdapterError::Compacted { oldest } = refused else { panic!("{refused}") };
    assert!(oldest > revisions[9]);
    let next = append(&log, "next".to_owned());
    assert!(next >= oldest);
    assert_eq!(left(&log, oldest), [next]);
}

#[test]
fn what_is_not_trimmed_stays_readable_however_much_is_cleaned() {
    const ONE: LogLimit = LogLimit { commits: 1, bytes: 1 << 20 };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let open = || {
        let builder = PrkDb::builder().with_data_dir(&data).with_durability(Durability::Relaxed);
        let builder = builder.with_segment_bytes(4 << 20).with_checkpoint_bytes(2 << 20);
        SegmentedLog::open_with(builder).unwrap()
    };
    let files = || -> u64 {
        let shard = fs::read_dir(data.join("shard-0000000000")).unwrap();
        let files = shard.map(|file| file.unwrap().path());
        let of_log =
            |path: &PathBuf| path.extension().is_some_and(|it| it == "log" || it == "history");
        // One that is removed meanwhile has no size.
        files.filter(of_log).filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
    };
    let log = open();
    let value = vec![7; 256 << 10];
    let append = |number: u32| {
        let batch = WriteBatch::new().put(number.to_string(), value.clone());
        wait(log.apply(batch)).unwrap().revision
    };
    let revisions: Vec<_> = (0..160).map(append).collect();
    let before = files();
    // In the middle of a segment, of about ten.
    log.trim_log(revisions[70]).unwrap();
    let check = |log: &SegmentedLog| {
        for revision in &revisions[70..] {
            assert_eq!(log.log(*revision, ONE).unwrap()[0].revision, *revision);
        }
        let refused = log.log(revisions[69], ONE).unwrap_err();
        assert!(
            matches!(refused, AdapterError::Compacted { oldest } if oldest <= revisions[70]),
            "{refused}"
        );
    };
    until("what is trimmed gives its room back", || files() + (12 << 20) < before);
    check(&log);
    drop(log);
    let log = open();
    check(&log);
    wait(log.apply(WriteBatch::new().put("more", "1"))).unwrap();
    check(&log);
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
    let db = PrkDb::builder().with_data_dir(dir.path().join("data")).build().unwrap();
    let log = SegmentedLog::new(db.clone()).unwrap();
    db.kv().put("a", "1").wait().unwrap();
    let revision = wait(log.apply(WriteBatch::new().put("b", "2"))).unwrap().revision;
    let commits = log.log(0, LogLimit { commits: 10, bytes: 1000 }).unwrap();
    assert_eq!(commits.iter().map(|commit| commit.revision).collect::<Vec<_>>(), [revision]);
}
