//! Directories to begin with, made once: a log with everything in it, and a shard with a checkpoint.
//!
//! They are made by the loads of the crash tests, from fixed seeds, so that an edit of byte 7,000 means the
//! same every time. When the loads change, the corpus still runs: it says other things.

use std::{
    io::IoSlice,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use prkdb::storage::{
    Shard,
    disk::{Access, Disk, sim::SimDisk},
    log::PrepareMode,
};

use super::loads::{load, model::LogModel, rig, shard};

/// Where the files are.
pub const DIR: &str = rig::DIR;

/// A file: its name and its content.
pub type File = (String, Vec<u8>);

/// Puts a file on a disk, in place of what is there.
pub fn put_file(disk: &SimDisk, path: &Path, content: &[u8]) {
    let _gone = disk.remove(path);
    let file = disk.create(path).expect("nothing is there");
    file.write_at(0, &[IoSlice::new(content)]).expect("memory does not fail");
    file.sync_all().expect("memory does not fail");
    let parent = path.parent().expect("it is in a directory");
    disk.sync_dir(parent).expect("memory does not fail");
}

/// Returns the files of the directory.
pub fn files(disk: &SimDisk) -> Vec<File> {
    let names = disk.list(Path::new(DIR)).expect("the directory is there");
    names
        .iter()
        .map(|name| {
            let name = name.to_str().expect("names are ASCII");
            (name.to_owned(), content(disk, &Path::new(DIR).join(name)))
        })
        .collect()
}

fn content(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Access::Read).expect("the name was listed");
    let len = file.len().expect("memory does not fail");
    let mut bytes = vec![0; usize::try_from(len).expect("it is in memory")];
    let read = file.read_at(0, &mut bytes).expect("memory does not fail");
    bytes.truncate(read);
    bytes
}

/// Returns a disk with these files.
pub fn disk_with<'a>(files: impl IntoIterator<Item = &'a File>) -> SimDisk {
    let disk = rig::new_disk();
    for (name, content) in files {
        put_file(&disk, &PathBuf::from(DIR).join(name), content);
    }
    disk
}

/// Cuts off the zeros at the end, but for a few.
fn trim((name, mut content): File) -> File {
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let kept = used.next_multiple_of(8) + 80;
    // A page of zeros is a prepared segment.
    content.truncate(kept.max(4096));
    (name, content)
}

/// The files of a log: entries of every kind, in several segments, the last group not spoken for.
pub fn log_files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = rig::new_disk();
        let as_seen = std::sync::Arc::new(disk.clone());
        let mut rig = rig::Rig::open(&disk, as_seen, LogModel::default()).expect("it is empty");
        rig.full_count = 1;
        load::run(&mut rig, 3, 60).expect("nothing fails");
        let all = files(&disk).into_iter().filter(|(name, _)| !name.contains("quarantine"));
        all.map(trim).collect()
    })
}

/// The files of a shard with a checkpoint, sidecars, and a tail of log behind them.
pub fn shard_files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let load = shard::run_with(5, 70, shard::CHECKPOINT_BYTES);
        let files: Vec<File> = files(&load.disk).into_iter().map(trim_log).collect();
        for wanted in ["MANIFEST", ".checkpoint", ".index"] {
            assert!(files.iter().any(|(name, _)| name.ends_with(wanted)), "{wanted}");
        }
        files
    })
}

/// Writes and syncs all that a shard was given.
pub fn drive(shard: &Shard) {
    loop {
        // In this order: a group that finds no room asks for a segment that has it.
        if let Some(job) = shard.next_flush() {
            let result = job.run();
            shard.flushed(job, result).expect("memory does not fail");
        } else if let Some(job) = shard.next_prepare() {
            let result = job.run(PrepareMode::Allocate);
            shard.prepared(job, result).expect("memory does not fail");
        } else {
            return;
        }
    }
}

fn trim_log(file: File) -> File {
    if file.0.ends_with(".log") { trim(file) } else { file }
}
