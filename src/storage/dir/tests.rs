//! The data directory: what is refused, and what a crash leaves of its creation.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::*;
use crate::storage::{
    clock::{ManualClock, SeededRng},
    disk::{
        RealDisk, is_disk_full,
        sim::{Calls, Failure, Fault, Loss, Repeat, SimDisk},
    },
};

const NODE_1: Wanted = Wanted { kind: Kind::Node, node_id: 1, cluster_id: None };

fn open_on(disk: &dyn Disk, path: &Path, wanted: &Wanted) -> Result<DataDir, DirError> {
    DataDir::open(disk, path, wanted, &ManualClock::new(5_000), &mut SeededRng::new(7))
}

fn open(path: &Path, wanted: &Wanted) -> Result<DataDir, DirError> {
    open_on(&RealDisk, path, wanted)
}

fn refusal(path: &Path, wanted: &Wanted) -> (ErrorCode, String) {
    let error = open(path, wanted).unwrap_err();
    (error.code(), error.to_string())
}

/// A directory that was opened and closed, below a temporary one that goes with the guard.
fn used() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    drop(open(&path, &NODE_1).unwrap());
    (parent, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_missing_directory_is_created_private_and_keeps_its_identity() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let first = open(&path, &NODE_1).unwrap();
    assert_eq!((first.age(), first.privacy()), (Age::New, Privacy::WasPrivate));
    assert_eq!(first.path(), path);
    assert_eq!(first.identity().created_ms, 5_000);
    assert_eq!(
        (mode(&path), mode(&path.join(IDENTITY)), mode(&path.join(LOCK))),
        (0o700, 0o600, 0o600)
    );
    let identity = first.identity().clone();
    drop(first);
    let mut other_rng = SeededRng::new(8);
    let clock = ManualClock::new(9_000);
    let again = DataDir::open(&RealDisk, &path, &NODE_1, &clock, &mut other_rng).unwrap();
    assert_eq!((again.age(), again.identity()), (Age::Existing, &identity));
    assert_eq!(RealDisk.list(&path).unwrap(), [IDENTITY, LOCK]);
}

#[test]
fn a_missing_parent_is_an_error_with_the_path() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("missing").join("data");
    let (code, text) = refusal(&path, &NODE_1);
    assert_eq!(code, ErrorCode::Io);
    assert!(text.starts_with(&format!("create {}: ", path.display())), "{text}");
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_file_in_place_of_the_directory_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::write(&path, "mine").unwrap();
    assert_eq!(refusal(&path, &NODE_1).0, ErrorCode::Io);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn rights_of_group_and_others_are_taken_and_told() {
    let (_parent, path) = used();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(open(&path, &NODE_1).unwrap().privacy(), Privacy::Tightened);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(open(&path, &NODE_1).unwrap().privacy(), Privacy::WasPrivate);
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("thesis.txt"), "text").unwrap();
    let (code, text) = refusal(&path, &NODE_1);
    assert_eq!(code, ErrorCode::WrongDirectory);
    assert!(text.ends_with("it has no IDENTITY and holds thesis.txt"), "{text}");
    assert_eq!(RealDisk.list(&path).unwrap(), ["thesis.txt"]);
    assert_eq!(mode(&path), 0o755);
}

#[test]
fn the_root_of_a_fresh_file_system_counts_as_empty() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    assert_eq!(open(&path, &NODE_1).unwrap().age(), Age::New);
}

#[test]
fn a_directory_of_another_kind_is_refused_with_both_kinds() {
    let (_parent, path) = used();
    let (code, text) = refusal(&path, &Wanted { kind: Kind::Embedded, ..NODE_1 });
    assert_eq!(code, ErrorCode::WrongDirectory);
    assert!(text.ends_with("is of kind node, not embedded"), "{text}");
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused() {
    let (_parent, path) = used();
    let (code, text) = refusal(&path, &Wanted { node_id: 2, ..NODE_1 });
    assert_eq!(code, ErrorCode::IdentityMismatch);
    assert!(text.ends_with("belongs to node 1, not node 2"), "{text}");
    let foreign = Wanted { cluster_id: Some(ClusterId([9; 16])), ..NODE_1 };
    assert_eq!(refusal(&path, &foreign).0, ErrorCode::IdentityMismatch);
    let own = open(&path, &NODE_1).unwrap().identity().cluster_id;
    assert!(open(&path, &Wanted { cluster_id: Some(own), ..NODE_1 }).is_ok());
}

#[test]
fn a_given_cluster_id_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let wanted = Wanted { cluster_id: Some(ClusterId([9; 16])), ..NODE_1 };
    let dir = open(&parent.path().join("data"), &wanted).unwrap();
    assert_eq!(dir.identity().cluster_id.to_string(), "09".repeat(16));
}

#[test]
fn a_damaged_identity_is_named_with_its_position() {
    let (_parent, path) = used();
    let file = path.join(IDENTITY);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 4;
    fs::write(&file, &bytes).unwrap();
    let (code, text) = refusal(&path, &NODE_1);
    assert_eq!(code, ErrorCode::Corrupt);
    let expected = format!("{} is damaged at {}: ", file.display(), bytes.len() - 10);
    assert!(text.starts_with(&expected), "{text}");
    fs::write(&file, "").unwrap();
    assert_eq!(refusal(&path, &NODE_1).0, ErrorCode::Corrupt);
}

#[test]
fn a_newer_format_is_refused() {
    let (_parent, path) = used();
    let object = r#"{"format":2}"#;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, object.as_bytes());
    fs::write(path.join(IDENTITY), format!("{object} {crc:08x}\n")).unwrap();
    assert_eq!(refusal(&path, &NODE_1).0, ErrorCode::NewerFormat);
}

#[test]
fn a_leftover_of_a_creation_that_died_is_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::write(path.join(LOCK), "").unwrap();
    fs::write(path.join(IDENTITY_TEMP), "{\"for").unwrap();
    assert_eq!(open(&path, &NODE_1).unwrap().age(), Age::New);
    assert_eq!(RealDisk.list(&path).unwrap(), [IDENTITY, LOCK]);
}

#[test]
fn a_second_user_is_refused_with_the_pid_until_the_first_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let first = open(&path, &NODE_1).unwrap();
    match open(&path, &NODE_1).unwrap_err() {
        DirError::Locked { holder, .. } => assert_eq!(holder.pid, Some(std::process::id())),
        other => panic!("{other}"),
    }
    let (code, text) = refusal(&path, &NODE_1);
    assert_eq!(code, ErrorCode::Locked);
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    drop(first);
    // What a process that died left in the file is in nobody's way.
    fs::write(path.join(LOCK), "pid 4194305\nhost elsewhere\nboot none\n".repeat(9)).unwrap();
    drop(open(&path, &NODE_1).unwrap());
    assert_eq!(fs::read_to_string(path.join(LOCK)).unwrap().lines().count(), 3);
}

#[test]
fn the_ballast_has_its_blocks() {
    let (_parent, path) = used();
    let dir = open(&path, &NODE_1).unwrap();
    for _ in 0..2 {
        dir.ensure_ballast(&RealDisk).unwrap();
        let found = fs::metadata(path.join(BALLAST)).unwrap();
        assert_eq!(found.len(), BALLAST_BYTES);
        assert!(found.blocks() * 512 >= BALLAST_BYTES);
    }
}

#[test]
fn the_ballast_is_durable_and_says_when_the_disk_is_full() {
    let disk = SimDisk::new();
    let dir = open_on(&disk, Path::new("/data"), &NODE_1).unwrap();
    disk.set_capacity(Some(BALLAST_BYTES));
    let free = || disk.space(Path::new("/data")).unwrap().free;
    let before = free();
    match dir.ensure_ballast(&disk).unwrap_err() {
        DirError::Io { source, .. } => assert!(is_disk_full(&source)),
        other => panic!("{other}"),
    }
    assert_eq!(free(), before, "a part of it is no reserve");
    disk.set_capacity(Some(2 * BALLAST_BYTES));
    dir.ensure_ballast(&disk).unwrap();
    let lost = disk.crash_image(Loss::All);
    let file = lost.open(Path::new("/data/BALLAST"), Access::Read).unwrap();
    assert_eq!(file.len().unwrap(), BALLAST_BYTES);
    assert!(lost.space(Path::new("/")).unwrap().free < BALLAST_BYTES);
}

#[test]
fn the_ballast_makes_room_for_a_start_where_there_is_little() {
    let disk = SimDisk::new();
    let dir = open_on(&disk, Path::new("/data"), &NODE_1).unwrap();
    let path = Path::new("/data").join(BALLAST);
    disk.set_capacity(Some(4 * BALLAST_BYTES));
    dir.ensure_ballast(&disk).unwrap();
    dir.make_room(&disk).unwrap();
    assert!(disk.exists(&path).unwrap(), "there is room");
    disk.set_capacity(Some(2 * BALLAST_BYTES - 1));
    dir.make_room(&disk).unwrap();
    assert!(!disk.exists(&path).unwrap());
    assert!(!disk.crash_image(Loss::All).exists(&path).unwrap());
    dir.make_room(&disk).unwrap();
}

#[test]
fn a_power_cut_while_creating_leaves_the_whole_identity_or_none() {
    let path = Path::new("/data");
    let disk = SimDisk::new();
    disk.record();
    let created = open_on(&disk, path, &NODE_1).unwrap().identity().clone();
    let images = disk.take_recording();
    let last = images.last().unwrap().boundary();
    let mut ages = BTreeSet::new();
    let mut hashes = BTreeSet::new();
    for image in &images {
        for loss in Loss::every(image.unsynced_count(), 0..50) {
            let crashed = image.crash(loss);
            hashes.insert(crashed.hash());
            let had = crashed.exists(&path.join(IDENTITY)).unwrap();
            let found = open_on(&crashed, path, &NODE_1)
                .unwrap_or_else(|error| panic!("{} {loss:?}: {error}", image.boundary()));
            assert_eq!(found.age() == Age::Existing, had);
            // The seed is the same, so a second creation draws the same identity.
            assert_eq!(found.identity(), &created);
            assert!(!crashed.exists(&path.join(IDENTITY_TEMP)).unwrap());
            if image.boundary() == last {
                assert_eq!(found.age(), Age::Existing, "it was created and is gone: {loss:?}");
            }
            ages.insert(had);
            // What was read or created is durable now.
            let again = open_on(&crashed.crash_image(Loss::All), path, &NODE_1).unwrap();
            assert_eq!(again.age(), Age::Existing);
        }
    }
    assert_eq!(ages.len(), 2);
    assert!(hashes.len() > 6, "{} distinct images", hashes.len());
}

#[test]
fn an_identity_named_by_a_process_that_died_is_synced_before_it_is_believed() {
    let path = Path::new("/data");
    let disk = SimDisk::new();
    disk.record();
    drop(open_on(&disk, path, &NODE_1).unwrap());
    for image in disk.take_recording() {
        // The process dies and the machine does not: what was written is there, unsynced.
        let survived = image.to_disk();
        drop(open_on(&survived, path, &NODE_1).unwrap());
        let lost = survived.crash_image(Loss::All);
        assert_eq!(open_on(&lost, path, &NODE_1).unwrap().age(), Age::Existing);
    }
}

/// Opens a new directory on a disk whose syncs of one sort do nothing, and returns how often a power
/// cut at the end, when the caller was told that the identity is durable, leaves another outcome.
fn lies_caught(calls: Calls) -> usize {
    let path = Path::new("/data");
    let disk = SimDisk::new();
    disk.fail(Fault { calls, nth: 1, failure: Failure::Ignored, repeat: Repeat::Sticky });
    drop(open_on(&disk, path, &NODE_1).unwrap());
    let image = disk.image();
    Loss::every(image.unsynced_count(), 0..20)
        .filter(|loss| match open_on(&image.crash(*loss), path, &NODE_1) {
            Ok(dir) => dir.age() == Age::New,
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Corrupt);
                true
            }
        })
        .count()
}

#[test]
fn planted_ignored_syncs_are_caught() {
    assert!(lies_caught(Calls::DataSyncs) > 0);
    assert!(lies_caught(Calls::DirSyncs) > 0);
    assert_eq!(lies_caught(Calls::Allocations), 0);
}

#[test]
fn every_failed_call_is_an_error_and_the_next_start_works() {
    let path = Path::new("/data");
    for failure in [Failure::Io, Failure::Full, Failure::ShortWrite] {
        for nth in 1.. {
            let disk = SimDisk::new();
            disk.fail(Fault { calls: Calls::All, nth, failure, repeat: Repeat::Once });
            let opened = open_on(&disk, path, &NODE_1);
            if disk.struck_count() == 0 {
                assert!(opened.is_ok() && nth > 8);
                break;
            }
            match opened {
                Err(error) => assert_eq!(error.code(), ErrorCode::Io),
                // Only writes can be short.
                Ok(_) => assert_eq!(failure, Failure::ShortWrite),
            }
            drop(open_on(&disk, path, &NODE_1).unwrap());
        }
    }
}
