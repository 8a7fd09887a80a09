//! The log on a simulated disk, driven inline.

use std::{path::Path, sync::Arc};

use prkdb_types::batch::{Batch, ProducerStamp};

use super::{
    Log, PrepareMode, Prepared, Recovery,
    entry::{Entry, Frame, LogId, Payload, Vote, Write},
    options::LogOptions,
};
use crate::storage::{
    StorageError,
    clock::SeededRng,
    disk::sim::{Loss, SimDisk},
};

const DIR: &str = "/log";

fn options() -> LogOptions {
    LogOptions {
        shard: 1,
        cluster_id: [5; 16],
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        tail_cache_bytes: 8 << 10,
        group_bytes_max: 4 << 20,
    }
}

fn open(disk: &SimDisk) -> Result<(Log, Recovery), StorageError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options(), &mut SeededRng::new(1), 1000)
}

fn new_disk() -> SimDisk {
    use crate::storage::disk::Disk as _;
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// Runs every job there is.
fn drive(log: &mut Log) {
    loop {
        if let Some(job) = log.next_prepare() {
            let result = job.run(PrepareMode::Allocate);
            log.prepared(job, result).unwrap();
        } else if let Some(job) = log.next_flush() {
            let result = job.run();
            log.flushed(job, result).unwrap();
        } else {
            return;
        }
    }
}

fn entry(index: u64, sequence: u64, base_offset: u64, value: &[u8]) -> Entry {
    let mut batch = Batch::single(ProducerStamp::NONE, 5, Some(b"key"), Some(value), &[]).unwrap();
    batch.set_base_offset(base_offset);
    let frame = Frame { partition: 7, record_count: 1, base_offset, batch };
    let write = Write { sequencer_term: 1, sequence, append_time_ms: 9, frames: vec![frame] };
    let id = LogId { term: 1, index };
    Entry { id, is_void: false, payload: Payload::Normal(Arc::new(write)) }
}

#[test]
fn what_was_appended_reads_back_after_a_clean_stop() {
    let disk = new_disk();
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery, Recovery::default());
    log.save_vote(Vote { term: 1, replica: 1, is_committed: true }).unwrap();
    let entries: Vec<Entry> =
        (0..200).map(|n| entry(n, n + 1, n, &vec![u8::try_from(n).unwrap(); 300])).collect();
    for one in &entries {
        log.append(vec![one.clone()]).unwrap();
        log.applied(one.id.index);
        drive(&mut log);
    }
    log.mark_synced().unwrap();
    drive(&mut log);
    assert!(log.segments().count() > 2);
    assert_eq!(log.plan_read(0..200, u64::MAX).run().unwrap(), entries);
    drop(log);
    let before = disk.hash();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(disk.hash(), before, "a clean log is not changed by opening it");
    assert_eq!((recovery.cut_bytes, recovery.copied_entries), (0, 0));
    assert_eq!(log.vote(), Some(Vote { term: 1, replica: 1, is_committed: true }));
    assert_eq!(log.state().last, Some(entries[199].id));
    assert_eq!(log.plan_read(0..200, u64::MAX).run().unwrap(), entries);
}

#[test]
fn acknowledged_entries_survive_a_power_cut_at_every_boundary() {
    let disk = new_disk();
    disk.record();
    let (mut log, _) = open(&disk).unwrap();
    // After this many boundaries, so many entries were acknowledged.
    let mut acknowledged = vec![(disk.boundary_count(), 0)];
    let entries: Vec<Entry> =
        (0..50).map(|n| entry(n, n + 1, n, &vec![7; 200 * usize::try_from(n).unwrap()])).collect();
    for chunk in entries.chunks(3) {
        log.append(chunk.to_vec()).unwrap();
        drive(&mut log);
        acknowledged.push((disk.boundary_count(), chunk[chunk.len() - 1].id.index + 1));
    }
    let mut images = 0;
    for image in disk.take_recording() {
        let acked = acknowledged
            .iter()
            .rev()
            .find(|(boundary, _)| *boundary <= image.boundary())
            .map_or(0, |(_, count)| *count);
        for loss in Loss::every(image.unsynced_count(), 0..4) {
            let crashed = image.crash(loss);
            let (log, _) = match open(&crashed) {
                Ok(opened) => opened,
                Err(error) if acked == 0 && image.boundary() < 2 => {
                    assert!(matches!(error, StorageError::Io { .. }), "{error}");
                    continue;
                }
                Err(error) => panic!("boundary {} {loss:?}: {error}", image.boundary()),
            };
            let read = log.plan_read(0..50, u64::MAX).run().unwrap();
            assert!(read.len() as u64 >= acked, "{} of {acked}, {loss:?}", read.len());
            assert_eq!(read, entries[..read.len()]);
            drop(log);
            let settled = crashed.hash();
            let (log, second) = open(&crashed).unwrap();
            assert_eq!(second.copied_entries, 0);
            assert_eq!(log.plan_read(0..50, u64::MAX).run().unwrap(), read);
            drop(log);
            assert_eq!(crashed.hash(), settled, "a second recovery changes nothing");
            images += 1;
        }
    }
    assert!(images > 500, "{images} images");
}

#[test]
fn a_log_is_full_when_no_ready_segment_holds_the_entry_that_waits() {
    use crate::storage::disk::Disk as _;
    let disk = new_disk();
    let (mut log, _) = open(&disk).unwrap();
    let small: Vec<Entry> = (0..100).map(|n| entry(n, n + 1, n, &[3; 300])).collect();
    for one in &small {
        log.append(vec![one.clone()]).unwrap();
        drive(&mut log);
    }
    let space = disk.space(Path::new(DIR)).unwrap();
    disk.set_capacity(Some(space.total - space.free));
    // Small segments are ready, with more room together than the entry takes.
    let large = entry(100, 101, 100, &vec![4; 40 << 10]);
    assert!(log.prepared_bytes() > 48 << 10, "{} bytes", log.prepared_bytes());
    log.append(vec![large.clone()]).unwrap();
    assert!(log.next_flush().is_none(), "no segment has room for it");
    let job = log.next_prepare().unwrap();
    let result = job.run(PrepareMode::Allocate);
    assert_eq!(log.prepared(job, result).unwrap(), Prepared::DiskFull);
    assert!(log.disk_is_full(), "writes behind it are refused, for they would wait");

    disk.set_capacity(None);
    drive(&mut log);
    assert!(!log.disk_is_full() && !log.has_unflushed(), "it goes on by itself");
    assert_eq!(log.plan_read(100..101, u64::MAX).run().unwrap(), [large]);
}

#[test]
fn two_small_segments_are_ready_and_one_large() {
    for (mib, expected) in [(16, 2), (256, 1)] {
        let disk = new_disk();
        let bytes = mib << 20;
        let options =
            LogOptions { segment_bytes_first: bytes, segment_bytes_max: bytes, ..options() };
        let rng = &mut SeededRng::new(1);
        let (mut log, _) =
            Log::open(Arc::new(disk.clone()), Path::new(DIR), options, rng, 1000).unwrap();
        // One that takes most of a segment, so that the next one rolls.
        for n in 0..mib.div_ceil(8) {
            log.append(vec![entry(n, n + 1, n, &vec![1; 8 << 20])]).unwrap();
            log.applied(n);
            drive(&mut log);
        }
        log.applied(u64::MAX);
        assert_eq!(log.segments().count(), 2, "{mib} MiB: it has rolled");
        assert_eq!(log.prepared_bytes() >> 20, expected * mib - 1, "{mib} MiB");
    }
}
