//! The disk of the simulation keeps its own promises.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use super::*;
use crate::storage::disk::is_disk_full;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn put(file: &dyn DiskFile, position: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_at(position, &[IoSlice::new(bytes)])
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(path(name), Access::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

/// A disk with one durable file.
fn with_file(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let file = disk.create(path(name)).unwrap();
    put(&*file, 0, bytes).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(disk.unsynced_count(), 0);
    (disk, file)
}

fn crashes(disk: &SimDisk) -> Vec<SimDisk> {
    let image = disk.image();
    Loss::every(image.unsynced_count(), 0..200).map(|loss| image.crash(loss)).collect()
}

#[test]
fn what_is_not_synced_is_lost_by_coin_sector_by_sector() {
    let (disk, file) = with_file("a", &[1; 1024]);
    put(&*file, 0, &[2; 1024]).unwrap();
    let found: BTreeSet<_> = crashes(&disk)
        .iter()
        .map(|disk| content(disk, "a").unwrap())
        .map(|bytes| {
            assert!(bytes.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0])));
            (bytes[0], bytes[512])
        })
        .collect();
    assert_eq!(found, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    file.sync_data().unwrap();
    assert!(crashes(&disk).iter().all(|disk| content(disk, "a").unwrap() == [2; 1024]));
}

#[test]
fn any_version_of_a_sector_may_survive() {
    let (disk, file) = with_file("a", &[0; 512]);
    for version in 1..=4 {
        put(&*file, 0, &[version; 512]).unwrap();
    }
    let found: BTreeSet<_> =
        crashes(&disk).iter().map(|disk| content(disk, "a").unwrap()[0]).collect();
    assert_eq!(found, BTreeSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn a_synced_file_may_lose_its_name() {
    let disk = SimDisk::new();
    let file = disk.create(path("a")).unwrap();
    put(&*file, 0, b"data").unwrap();
    file.sync_all().unwrap();
    let found: BTreeSet<_> = crashes(&disk).iter().map(|disk| content(disk, "a")).collect();
    assert_eq!(found, BTreeSet::from([None, Some(b"data".to_vec())]));
}

#[test]
fn a_synced_name_may_be_empty_short_or_zeros() {
    let disk = SimDisk::new();
    let file = disk.create(path("a")).unwrap();
    put(&*file, 0, &[7; 1024]).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let found: BTreeSet<_> =
        crashes(&disk).iter().map(|disk| content(disk, "a").unwrap()).collect();
    let both = |first: u8, second: u8| [[first; 512], [second; 512]].concat();
    assert!(found.contains(&Vec::new()));
    for expected in [vec![7; 512], both(0, 0), both(0, 7), both(7, 0), both(7, 7)] {
        assert!(found.contains(&expected));
    }
}

#[test]
fn names_in_a_directory_that_was_not_synced_itself_are_lost_with_it() {
    let disk = SimDisk::new();
    disk.create_dir(path("/d")).unwrap();
    let file = disk.create(path("/d/a")).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path("/d")).unwrap();
    assert!(!disk.crash_image(Loss::All).exists(path("/d")).unwrap());
    disk.sync_dir(path("/")).unwrap();
    assert!(disk.crash_image(Loss::All).exists(path("/d/a")).unwrap());
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let (disk, _) = with_file("old", b"1");
    let file = disk.create(path("new")).unwrap();
    put(&*file, 0, b"2").unwrap();
    file.sync_data().unwrap();
    disk.rename(path("new"), path("old")).unwrap();
    let found: BTreeSet<_> =
        crashes(&disk).iter().map(|disk| (content(disk, "new"), content(disk, "old"))).collect();
    let (one, two) = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    assert_eq!(found, BTreeSet::from([(None, one.clone()), (two.clone(), one), (None, two)]));
}

#[test]
fn changes_of_one_name_survive_in_order() {
    let (disk, _) = with_file("a", b"1");
    disk.remove(path("a")).unwrap();
    let file = disk.create(path("a")).unwrap();
    put(&*file, 0, b"2").unwrap();
    file.sync_data().unwrap();
    // The second creation rests on the removal; were it free, it would find the name taken.
    let only = disk.crash_image(Loss::Only(1));
    assert_eq!(content(&only, "a").unwrap(), b"2");
    let all_but = disk.crash_image(Loss::AllBut(0));
    assert_eq!(content(&all_but, "a").unwrap(), b"1");
}

#[test]
fn a_removed_file_comes_back_until_the_directory_is_synced() {
    let (disk, _) = with_file("a", b"1");
    disk.remove(path("a")).unwrap();
    assert!(!disk.exists(path("a")).unwrap());
    assert_eq!(content(&disk.crash_image(Loss::All), "a").unwrap(), b"1");
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(content(&disk.crash_image(Loss::All), "a"), None);
}

#[test]
fn a_loss_is_the_same_each_time() {
    let (disk, file) = with_file("a", &[1; 9000]);
    put(&*file, 100, &[2; 8000]).unwrap();
    file.truncate(8200).unwrap();
    file.allocate(8200, 9000).unwrap();
    drop(disk.create(path("b")).unwrap());
    let image = disk.image();
    let hashes = || -> Vec<u64> {
        Loss::every(image.unsynced_count(), 0..50).map(|loss| image.crash(loss).hash()).collect()
    };
    assert_eq!(hashes(), hashes());
    assert!(hashes().iter().collect::<BTreeSet<_>>().len() > 40);
    assert_eq!(image.crash(Loss::None).hash(), disk.hash());
}

#[test]
fn the_hash_sees_names_lengths_and_bytes_and_nothing_else() {
    let (one, _) = with_file("a", &[0; 5000]);
    let other = SimDisk::new();
    drop(other.create(path("b")).unwrap());
    let file = other.create(path("a")).unwrap();
    file.truncate(5000).unwrap();
    assert_ne!(one.hash(), other.hash());
    other.remove(path("b")).unwrap();
    assert_eq!(one.hash(), other.hash());
    one.flip_bit(path("a"), 4999, 7).unwrap();
    assert_ne!(one.hash(), other.hash());
    file.truncate(5001).unwrap();
    assert_ne!(one.hash(), other.hash());
}

#[test]
fn the_nth_call_fails_once_or_from_then_on() {
    for (repeat, expected) in
        [(Repeat::Once, [true, false, true]), (Repeat::Sticky, [true, false, false])]
    {
        let (disk, file) = with_file("a", b"");
        disk.fail(Fault { calls: Calls::Writes, nth: 2, failure: Failure::Io, repeat });
        let results = [1, 2, 3].map(|byte| {
            file.len().unwrap();
            put(&*file, 0, &[byte]).is_ok()
        });
        assert_eq!(results, expected);
        disk.heal();
        assert!(put(&*file, 0, &[4]).is_ok());
        assert_eq!(disk.struck_count(), if repeat == Repeat::Once { 1 } else { 2 });
    }
}

#[test]
fn each_failure_is_what_the_system_says() {
    let (disk, file) = with_file("a", b"");
    let strike = |failure| {
        let fault = Fault { calls: Calls::All, nth: 1, failure, repeat: Repeat::Once };
        disk.fail(fault);
        put(&*file, 0, b"abcdef")
    };
    assert_eq!(strike(Failure::Io).unwrap_err().raw_os_error(), Some(5));
    assert!(is_disk_full(&strike(Failure::Full).unwrap_err()));
    assert!(is_disk_full(&strike(Failure::Quota).unwrap_err()));
    assert_eq!(file.len().unwrap(), 0);
    assert_eq!(strike(Failure::ShortWrite).unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(content(&disk, "a").unwrap(), b"abc");
    strike(Failure::Interrupted).unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"abcdef");
}

#[test]
fn an_ignored_sync_reports_success_and_makes_nothing_durable() {
    let (disk, file) = with_file("a", b"1");
    for calls in [Calls::DataSyncs, Calls::DirSyncs] {
        disk.fail(Fault { calls, nth: 1, failure: Failure::Ignored, repeat: Repeat::Sticky });
    }
    put(&*file, 0, b"2").unwrap();
    file.sync_data().unwrap();
    drop(disk.create(path("b")).unwrap());
    disk.sync_dir(path("/")).unwrap();
    let lost = disk.crash_image(Loss::All);
    assert_eq!(content(&lost, "a").unwrap(), b"1");
    assert!(!lost.exists(path("b")).unwrap());
}

#[test]
fn what_a_failed_sync_covered_is_not_saved_by_the_next_one() {
    let (disk, file) = with_file("a", &[1; 1024]);
    put(&*file, 0, &[2; 1024]).unwrap();
    disk.fail(Fault {
        calls: Calls::DataSyncs,
        nth: 1,
        failure: Failure::Io,
        repeat: Repeat::Once,
    });
    file.sync_data().unwrap_err();
    put(&*file, 512, &[3; 512]).unwrap();
    file.sync_data().unwrap();
    let found: BTreeSet<_> = crashes(&disk)
        .iter()
        .map(|disk| content(disk, "a").unwrap())
        .map(|bytes| (bytes[0], bytes[512]))
        .collect();
    assert_eq!(found, BTreeSet::from([(1, 3), (2, 3)]));
}

#[test]
fn beyond_the_capacity_only_allocated_blocks_take_writes() {
    let (disk, file) = with_file("a", b"");
    disk.set_capacity(Some(3 * 4096));
    file.allocate(0, 2 * 4096).unwrap();
    let other = disk.create(path("b")).unwrap();
    put(&*other, 0, b"fits").unwrap();
    assert_eq!(disk.space(path("/")).unwrap(), Space { total: 3 * 4096, free: 0 });
    assert!(is_disk_full(&put(&*other, 4096, b"does not").unwrap_err()));
    assert!(is_disk_full(&other.allocate(0, 8192).unwrap_err()));
    put(&*file, 4096, &[1; 4096]).unwrap();
    disk.remove(path("b")).unwrap();
    assert_eq!(disk.space(path("/")).unwrap().free, 4096);
    file.truncate(100).unwrap();
    assert_eq!(disk.space(path("/")).unwrap().free, 2 * 4096);
    assert!(disk.crash_image(Loss::None).space(path("/")).unwrap().free == 2 * 4096);
}

#[test]
fn a_copy_and_its_source_do_not_see_each_other() {
    let (disk, file) = with_file("a", b"1");
    put(&*file, 1, b"2").unwrap();
    let copy = disk.clone_image();
    assert_eq!(copy.unsynced_count(), disk.unsynced_count());
    put(&*file, 0, b"x").unwrap();
    let copied = copy.open(path("a"), Access::ReadWrite).unwrap();
    put(&*copied, 0, b"y").unwrap();
    copied.sync_data().unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"x2");
    assert_eq!(content(&copy, "a").unwrap(), b"y2");
    assert_eq!(content(&copy.crash_image(Loss::All), "a").unwrap(), b"y2");
    assert_eq!(content(&disk.crash_image(Loss::All), "a").unwrap(), b"1");
}

#[test]
fn a_recording_holds_every_boundary() {
    let (disk, file) = with_file("a", b"");
    let before = disk.boundary_count();
    disk.record();
    put(&*file, 0, b"1").unwrap();
    file.sync_data().unwrap();
    put(&*file, 0, b"2").unwrap();
    let images = disk.take_recording();
    let last: Vec<_> = images
        .iter()
        .map(|image| {
            let survived = |loss| content(&image.crash(loss), "a").unwrap();
            (image.boundary() - before, survived(Loss::All), survived(Loss::None))
        })
        .collect();
    let bytes = |text: &str| text.as_bytes().to_vec();
    assert_eq!(
        last,
        [
            (0, bytes(""), bytes("")),
            (1, bytes(""), bytes("1")),
            (2, bytes("1"), bytes("1")),
            (3, bytes("1"), bytes("2")),
        ]
    );
    assert!(disk.take_recording().is_empty());
}

#[test]
fn a_handle_outlives_its_name_and_reading_ones_do_not_write() {
    let (disk, file) = with_file("a", b"1");
    let reader = disk.open(path("a"), Access::Read).unwrap();
    assert!(put(&*reader, 0, b"2").is_err());
    disk.rename(path("a"), path("b")).unwrap();
    put(&*file, 0, b"3").unwrap();
    assert_eq!(content(&disk, "b").unwrap(), b"3");
    disk.remove(path("b")).unwrap();
    assert_eq!(reader.len().unwrap(), 1);
    assert!(reader.map_source().is_none());
}

#[test]
fn a_lost_file_is_lost_for_good() {
    let (disk, _) = with_file("a", b"1");
    disk.lose_file(path("a")).unwrap();
    assert!(crashes(&disk).iter().all(|disk| !disk.exists(path("a")).unwrap()));
}

#[test]
fn bytes_behind_a_cut_do_not_come_back() {
    let (disk, file) = with_file("a", &[1; 5000]);
    file.truncate(10).unwrap();
    file.truncate(5000).unwrap();
    let bytes = content(&disk, "a").unwrap();
    assert_eq!((bytes.len(), &bytes[..10]), (5000, &[1; 10][..]));
    assert!(bytes[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_synced_cut_buries_what_a_failed_sync_left_in_doubt() {
    let (disk, file) = with_file("a", b"");
    put(&*file, 0, &[2; 1024]).unwrap();
    disk.fail(Fault {
        calls: Calls::DataSyncs,
        nth: 1,
        failure: Failure::Io,
        repeat: Repeat::Once,
    });
    file.sync_data().unwrap_err();
    file.truncate(0).unwrap();
    file.sync_data().unwrap();
    assert!(crashes(&disk).iter().all(|disk| content(disk, "a").unwrap().is_empty()));
}

#[test]
fn half_of_one_byte_is_nothing() {
    let (disk, file) = with_file("a", b"");
    disk.fail(Fault {
        calls: Calls::Writes,
        nth: 1,
        failure: Failure::ShortWrite,
        repeat: Repeat::Once,
    });
    put(&*file, 100, b"x").unwrap_err();
    assert_eq!((file.len().unwrap(), disk.unsynced_count()), (0, 0));
}
