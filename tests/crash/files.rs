//! Files that are missing, foreign, newer, older, empty, or not the log's at all.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use prkdb::storage::{
    StorageError,
    clock::SeededRng,
    disk::{Access, Disk, sim::SimDisk},
    log::{Log, entry::Vote, options::LogOptions},
};
use prkdb_types::ErrorCode;

use super::{
    damage::files_of,
    decoder::{Segment, reseal_entry, reseal_page},
    load,
    model::{LogModel, Op},
    power::clear,
    rig::{DIR, Rig, new_disk, open, options},
};

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A log of several segments that stopped cleanly, what it holds, and the names of its segments.
fn stopped() -> (SimDisk, LogModel, Vec<String>) {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    load::run(&mut rig, 9, 60).unwrap();
    let names = files_of(&disk)
        .into_iter()
        .filter(|(name, bytes)| Segment::decode(name, bytes).unwrap().page.is_some());
    let names: Vec<String> = names.map(|(name, _)| name).collect();
    assert!(names.len() >= 4);
    (disk, rig.history.last_state().clone(), names)
}

fn put(disk: &SimDisk, name: &str, position: u64, bytes: &[u8]) -> io::Result<()> {
    let file = match disk.open(&path(name), Access::ReadWrite) {
        Ok(file) => file,
        Err(_) => disk.create(&path(name))?,
    };
    file.write_at(position, &[IoSlice::new(bytes)])?;
    file.sync_all()?;
    disk.sync_dir(Path::new(DIR))
}

fn replace(disk: &SimDisk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(&path(name), Access::ReadWrite)?;
    file.truncate(0)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_all()
}

fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    files_of(disk).into_iter().find(|(own, _)| own == name).unwrap().1
}

/// Opens, expects a refusal that changes nothing, and returns it.
fn refused(disk: &SimDisk, options: LogOptions) -> StorageError {
    let before = disk.hash();
    let opened =
        Log::open(Arc::new(disk.clone()), Path::new(DIR), options, &mut SeededRng::new(1), 1000);
    assert_eq!(disk.hash(), before, "a refusal changes nothing");
    opened.expect_err("it must be refused")
}

fn assert_names(error: &StorageError, code: ErrorCode, name: &str) {
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(name), "{error} does not name {name}");
}

fn assert_holds(disk: &SimDisk, state: &LogModel) {
    let (log, _) = open(disk).unwrap();
    assert_eq!(LogModel::of(&log).unwrap(), *state);
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    let (disk, _, names) = stopped();
    for name in &names[..names.len() - 1] {
        let disk = disk.clone_image();
        disk.lose_file(&path(name)).unwrap();
        assert_names(&refused(&disk, options()), ErrorCode::Corrupt, name);
    }
}

#[test]
fn an_empty_file_where_the_next_segment_would_be_is_no_damage() {
    let (disk, state, names) = stopped();
    let (log_id, _) = names[0].split_once('-').unwrap();
    // A crash between the creation of a segment and its first sync leaves these.
    for len in [0, 100, 4096, 5000] {
        let disk = disk.clone_image();
        put(&disk, &format!("{log_id}-0000000999.log"), 0, &vec![0; len]).unwrap();
        assert_holds(&disk, &state);
        let settled = disk.hash();
        assert_holds(&disk, &state);
        assert_eq!(disk.hash(), settled);
        // What was taken over, or removed, is not in the way of what comes.
        let mut rig = Rig::open(&disk, clear(&disk), state.clone()).unwrap();
        rig.full_count = 1;
        load::run(&mut rig, 3, 40).unwrap();
        assert_holds(&disk, rig.history.last_state());
    }
}

#[test]
fn a_newest_segment_with_bytes_and_no_page_is_set_aside() {
    let (disk, state, names) = stopped();
    let (log_id, _) = names[0].split_once('-').unwrap();
    let name = format!("{log_id}-0000000999.log");
    put(&disk, &name, 4096, &[0x5a; 600]).unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.quarantined, recovery.cut_bytes), (1, 4696));
    assert_eq!(LogModel::of(&log).unwrap(), state);
    drop(log);
    let kept = bytes_of(&disk, &format!("{name}.quarantine-1000"));
    assert!(kept[4096..].iter().all(|byte| *byte == 0x5a), "what cannot be read is kept");
    let (_, again) = open(&disk).unwrap();
    assert_eq!((again.quarantined, again.cut_bytes), (0, 0));
}

#[test]
fn files_of_others_are_left_alone() {
    let (disk, state, names) = stopped();
    let first = &names[0];
    let strays = [
        "notes.txt".to_owned(),
        format!("{first}~"),
        format!(".{first}.swp"),
        format!("{first}.tmp"),
        format!("{first}.bak"),
        format!("#{first}#"),
        first.to_uppercase(),
        "LOCK".to_owned(),
        "0000000000000000-1.log".to_owned(),
    ];
    for stray in &strays {
        put(&disk, stray, 0, b"not the log's").unwrap();
    }
    disk.create_dir(&path("lost+found")).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    let before = disk.hash();
    assert_holds(&disk, &state);
    assert_eq!(disk.hash(), before);
}

#[test]
fn a_log_of_another_cluster_or_shard_is_refused() {
    let (disk, _, names) = stopped();
    let foreign = LogOptions { cluster_id: [6; 16], ..options() };
    assert_names(&refused(&disk, foreign), ErrorCode::IdentityMismatch, &names[0]);
    let foreign = LogOptions { shard: 2, ..options() };
    assert_names(&refused(&disk, foreign), ErrorCode::IdentityMismatch, "shard 1");
}

#[test]
fn two_logs_in_one_directory_are_refused() {
    let (disk, _, names) = stopped();
    let other = "f000000000000000-0000000001.log";
    put(&disk, other, 0, &[0; 4096]).unwrap();
    assert_names(&refused(&disk, options()), ErrorCode::IdentityMismatch, other);
    // With the bytes of this log it is a file under a wrong name.
    let bytes = bytes_of(&disk, &names[0]);
    put(&disk, other, 0, &bytes).unwrap();
    assert_eq!(refused(&disk, options()).code(), ErrorCode::IdentityMismatch);
    let copy = names[0].replace("-0000000001", "-0000000777");
    disk.lose_file(&path(other)).unwrap();
    put(&disk, &copy, 0, &bytes).unwrap();
    assert_names(&refused(&disk, options()), ErrorCode::Corrupt, &copy);
}

#[test]
fn a_newer_format_is_refused_wherever_it_stands() {
    let (disk, _, names) = stopped();
    for name in &names {
        let bytes = bytes_of(&disk, name);
        let disk = disk.clone_image();
        let mut newer = bytes.clone();
        newer[4] = 2;
        reseal_page(name, &mut newer);
        replace(&disk, name, &newer).unwrap();
        assert_names(&refused(&disk, options()), ErrorCode::NewerFormat, name);
        // An entry of a newer version, even as the last one, is not a torn tail.
        let last = Segment::decode(name, &bytes).unwrap().entries.pop().unwrap();
        for (at, value, code) in [(4, 2, ErrorCode::NewerFormat), (5, 99, ErrorCode::Corrupt)] {
            let mut newer = bytes.clone();
            newer[last.position + at] = value;
            reseal_entry(name, &mut newer, last.position);
            replace(&disk, name, &newer).unwrap();
            assert_names(&refused(&disk, options()), code, name);
        }
    }
}

#[test]
fn an_entry_of_a_newer_version_behind_a_torn_one_is_refused_too() {
    let (disk, _, names) = stopped();
    let name = names.last().unwrap();
    let mut bytes = bytes_of(&disk, name);
    let mut entries = Segment::decode(name, &bytes).unwrap().entries;
    let (last, before) = (entries.pop().unwrap(), entries.pop().unwrap());
    bytes[last.position + 4] = 2;
    reseal_entry(name, &mut bytes, last.position);
    bytes[before.position + 20] ^= 1;
    replace(&disk, name, &bytes).unwrap();
    assert_names(&refused(&disk, options()), ErrorCode::NewerFormat, name);
}

#[test]
fn a_segment_of_an_older_copy_is_refused_and_a_whole_older_copy_is_not() {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    rig.full_count = 1;
    load::run(&mut rig, 9, 20).unwrap();
    let older = disk.clone_image();
    let old_state = rig.history.last_state().clone();
    load::run(&mut rig, 10, 60).unwrap();
    let names = files_of(&disk)
        .into_iter()
        .filter(|(name, bytes)| Segment::decode(name, bytes).unwrap().page.is_some());
    let newest = names.map(|(name, _)| name).max().unwrap();
    let mut refusals = 0;
    for (name, bytes) in files_of(&older) {
        let segment = Segment::decode(&name, &bytes).unwrap();
        let now = Segment::decode(&name, &bytes_of(&disk, &name)).unwrap();
        // The newest segment holds the only evidence of itself: without it the log is an older one.
        if segment.entries == now.entries || name == newest {
            continue;
        }
        refusals += 1;
        let disk = disk.clone_image();
        replace(&disk, &name, &bytes).unwrap();
        assert_names(&refused(&disk, options()), ErrorCode::Corrupt, &name);
    }
    assert!(refusals > 1, "{refusals} refusals");
    assert_holds(&older, &old_state);
}

#[test]
fn a_segment_under_the_name_of_another_is_refused() {
    let (disk, _, names) = stopped();
    for pair in names.windows(2) {
        let disk = disk.clone_image();
        let (first, second) = (bytes_of(&disk, &pair[0]), bytes_of(&disk, &pair[1]));
        replace(&disk, &pair[0], &second).unwrap();
        replace(&disk, &pair[1], &first).unwrap();
        let error = refused(&disk, options());
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    }
}

#[test]
fn a_sector_that_is_lost_doubled_or_swapped_is_refused_where_it_was_synced() {
    let (disk, _, names) = stopped();
    let mut refusals = 0;
    for name in &names[..names.len() - 1] {
        let bytes = bytes_of(&disk, name);
        let end = Segment::decode(name, &bytes).unwrap().end;
        for sector in (0..end / 512).filter(|sector| *sector == 0 || *sector >= 8) {
            let at = sector * 512;
            let next = if at + 1024 <= end { at + 512 } else { 4096 };
            let mut zeroed = bytes.clone();
            zeroed[at..at + 512].fill(0);
            let mut doubled = bytes.clone();
            doubled.copy_within(at..at + 512, next);
            let mut swapped = doubled.clone();
            swapped[at..at + 512].copy_from_slice(&bytes[next..next + 512]);
            for damaged in [zeroed, doubled, swapped].into_iter().filter(|other| *other != bytes) {
                let disk = disk.clone_image();
                replace(&disk, name, &damaged).unwrap();
                assert_names(&refused(&disk, options()), ErrorCode::Corrupt, name);
                refusals += 1;
            }
        }
    }
    super::power::say(&format!("{refusals} sectors lost, doubled or swapped: all refused"));
}

#[test]
fn the_size_of_a_log_is_that_of_its_files() {
    for seed in 1..=8 {
        let disk = new_disk();
        let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
        load::run(&mut rig, seed, 120).unwrap();
        let of_files = || files_of(&disk).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        assert_eq!(rig.log.log_bytes(), of_files(), "load {seed}");
        drop(rig);
        // Twice: the tail of the last segment is cut off when something stands behind it.
        for term in [1 << 40, 1 << 41] {
            let state = LogModel::of(&open(&disk).unwrap().0).unwrap();
            let mut rig = Rig::open(&disk, clear(&disk), state).unwrap();
            assert_eq!(rig.log.log_bytes(), of_files(), "load {seed}, opened again");
            let vote = Vote { term, replica: 9, is_committed: false };
            for op in [Op::Vote(vote), Op::Sync] {
                rig.give(op).unwrap();
                rig.drive().unwrap();
            }
            assert_eq!(rig.log.log_bytes(), of_files(), "load {seed}, gone on");
        }
    }
}
