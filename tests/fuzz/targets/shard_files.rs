//! A whole shard, opened after whatever happened to one kind of its files, read, and written to.
//!
//! A manifest, a checkpoint or a sidecar is never needed: with any of them damaged the shard opens, unless
//! what they say cannot be true. What opens is read from end to end.

use std::{ops::Bound, path::Path};

use prkdb::storage::{Shard, StorageError, adopt, disk::sim::SimDisk, log::entry::LogId};

use super::{
    base::{self, DIR, File},
    edits,
    loads::shard::{self, COLLECTION},
    seal,
};

const CLUSTER: [u8; 16] = [5; 16];
const EVENTS_PARTITION: u32 = 4;

/// A manifest, given to the shard and to what makes a copy another cluster's.
pub fn manifest(data: &[u8]) {
    let files = edits::edited(base::shard_files(), |name| name == "MANIFEST", data);
    adopted(&files);
    open(&files);
}

/// A checkpoint, whose size the manifest states.
pub fn checkpoint(data: &[u8]) {
    let mut files = edits::edited(base::shard_files(), |name| name.ends_with(".checkpoint"), data);
    let size = files.iter().find(|(name, _)| name.ends_with(".checkpoint"));
    let size = size.map_or(0, |(_, content)| content.len() as u64);
    if let Some((_, manifest)) = files.iter_mut().find(|(name, _)| name == "MANIFEST") {
        state_size(manifest, size);
        seal::manifest(manifest);
    }
    open(&files);
}

/// Sidecars of segments before the checkpoint.
pub fn sidecar(data: &[u8]) {
    let files = edits::edited(base::shard_files(), |name| name.ends_with(".index"), data);
    open(&files);
}

/// Segments, with what a checkpoint spares from being read.
pub fn segments(data: &[u8]) {
    open(&edits::edited(base::shard_files(), |name| name.ends_with(".log"), data));
}

/// Puts another size of the checkpoint into a manifest: it stands behind shard, cluster and log.
fn state_size(manifest: &mut Vec<u8>, mut size: u64) {
    let start = 16 + 1 + 16 + 8;
    let len = manifest.iter().skip(start).position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 1);
    let mut number = Vec::new();
    while size >= 0x80 {
        number.push(size.to_le_bytes()[0] | 0x80);
        size >>= 7;
    }
    number.push(size.to_le_bytes()[0]);
    manifest.splice(start..start + len, number);
}

/// A manifest of another cluster says the same, and back again it is what it was.
fn adopted(files: &[File]) {
    let disk = base::disk_with(files.iter().filter(|(name, _)| name == "MANIFEST"));
    let path = Path::new(DIR).join("MANIFEST");
    let content = || base::files(&disk).remove(0).1;
    let turn = |old, new| adopt(&disk, &path, 1, (old, new));
    if turn(CLUSTER, [6; 16]).is_ok() {
        turn([6; 16], CLUSTER).expect("what is written is read");
        let written = content();
        turn(CLUSTER, [6; 16]).expect("what is written is read");
        turn([6; 16], CLUSTER).expect("what is written is read");
        assert_eq!(content(), written, "a manifest is written as it was read");
    }
}

fn open(files: &[File]) {
    let disk = base::disk_with(files);
    let shard = match shard::try_open_with(&disk, shard::CHECKPOINT_BYTES) {
        Ok(shard) => shard,
        Err(StorageError::Io { source, .. }) => panic!("the disk is whole: {source}"),
        Err(error) => {
            let _code = error.code();
            return;
        }
    };
    if use_shard(&shard).is_some() {
        if let Some(job) = shard.checkpoint_now() {
            let (finished, result) = job.run();
            shard.checkpointed(finished, &result);
        }
        drop(shard);
        reopened(&disk);
    }
}

/// Applies what is left, reads everything, asks for every copy. `None`: an entry cannot be applied.
fn use_shard(shard: &Shard) -> Option<()> {
    let count = shard.log_state().last.map_or(0, |last| last.index.saturating_add(1));
    let applied = shard.applied().0.map_or(0, |id| id.index.saturating_add(1));
    let ids = (applied..count.min(applied.saturating_add(500)))
        .map(|index| shard.log_id_at(index))
        .collect::<Option<Vec<LogId>>>();
    if let Some(ids) = ids {
        shard.apply_all(&ids).ok()?;
    }
    if let Some(snapshot) = shard.scan(COLLECTION) {
        for (key, leaf) in snapshot.range(Bound::Unbounded, Bound::Unbounded).take(100) {
            let _value = shard.leaf_value(leaf);
            let _found = shard.get(COLLECTION, &key);
        }
    }
    for partition in 0..=EVENTS_PARTITION + 1 {
        let bounds = shard.stream_bounds(partition);
        let mut offset = bounds.log_start;
        for _ in 0..100 {
            let Ok(fetched) = shard.fetch(partition, offset, 4096) else { break };
            if fetched.next_offset <= offset {
                break;
            }
            offset = fetched.next_offset;
        }
        let _far = shard.fetch(partition, u64::MAX, 4096);
        for time in [i64::MIN, 0, 700, i64::MAX] {
            let _found = shard.offset_at_time(partition, time);
        }
    }
    let _catalog = (shard.catalog().next_partition(), shard.catalog().next_collection());
    let _stats = shard.stats();
    if let Ok(Some(copy)) = shard.copy() {
        for part in copy.parts {
            let _read = part.read(0, 64);
        }
    }
    while let Some(job) = shard.next_sidecar() {
        let result = job.run();
        shard.sidecar_done(&job, result);
    }
    base::drive(shard);
    Some(())
}

/// What was written behind it opens again.
fn reopened(disk: &SimDisk) {
    if let Ok(shard) = shard::try_open_with(disk, shard::CHECKPOINT_BYTES) {
        let _used = use_shard(&shard);
    }
}

/// An edit of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0, 0, 60, 0, 9],
        vec![0, 1, 20, 0, 255, 255, 255, 255],
        vec![0, 2, 1, 16, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![0, 3, 2, 20, 3, 1, 2, 3],
        vec![1, 4, 200, 0],
        vec![0, 5, 1, 18, 2, 0x80, 0x80],
        vec![0, 6, 1, 20, 1, 0],
        vec![0x80, 8, 60, 0, 20, 0],
        vec![0, 9, 0, 0, 0, 0],
    ]
}
