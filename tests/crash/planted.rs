//! Defects planted on purpose: the checks that are green without them must see each.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use prkdb::storage::{
    bug::{Bug, plant},
    disk::{
        Access, Disk, DiskFile, Privacy, Space,
        sim::{Calls, Failure, Fault, Repeat, SimDisk},
    },
};

use super::{
    damage, faults, lives,
    power::{Depth, Lens, check, clear, record, say},
    rig::Driver,
};

/// What a disk makes of a sync that failed.
#[derive(Clone, Copy, Debug)]
enum Excuse {
    /// It says that it worked.
    Ignores,
    /// It syncs again, and believes that.
    Retries,
}

#[derive(Debug)]
struct Excused<D: ?Sized> {
    excuse: Excuse,
    inner: Arc<D>,
}

impl Excused<dyn DiskFile> {
    fn excuse(&self, result: io::Result<()>) -> io::Result<()> {
        match (result, self.excuse) {
            (Ok(()), _) | (Err(_), Excuse::Ignores) => Ok(()),
            (Err(_), Excuse::Retries) => self.inner.sync_data(),
        }
    }
}

impl Excused<SimDisk> {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(Excused { excuse: self.excuse, inner })
    }
}

impl Disk for Excused<SimDisk> {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.create(path).map(|file| self.file(file))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(path, access).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn make_private(&self, dir: &Path) -> io::Result<Privacy> {
        self.inner.make_private(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.inner.space(dir)
    }
}

impl DiskFile for Excused<dyn DiskFile> {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.inner.write_at(position, slices)
    }
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(position, into)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(from, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.excuse(self.inner.sync_data())
    }
    fn sync_all(&self) -> io::Result<()> {
        self.excuse(self.inner.sync_all())
    }
    fn will_need(&self, position: u64, len: u64) {
        self.inner.will_need(position, len);
    }
    fn map_source(&self) -> Option<&File> {
        self.inner.map_source()
    }
}

fn with_fault(disk: &SimDisk, calls: Calls, failure: Failure, repeat: Repeat) {
    disk.fail(Fault { calls, nth: 3, failure, repeat });
}

fn excused(disk: &SimDisk, excuse: Excuse) -> Arc<dyn Disk> {
    with_fault(disk, Calls::DataSyncs, Failure::Io, Repeat::Once);
    Arc::new(Excused { excuse, inner: Arc::new(disk.clone()) })
}

const ENTRIES: usize = 40;
const DEPTH: Depth = Depth { coins: 2, second_every: 5 };

/// The check of the power cuts, on a short load.
fn power_check(lens: Lens, driver: Driver) -> Result<(), String> {
    check(&record(1, ENTRIES, lens, driver), (0, 1), DEPTH).map(drop)
}

/// Shows that a check is green, and that it is not with the defect.
fn assert_caught(name: &str, sound: &Result<(), String>, planted: Result<(), String>) {
    assert_eq!(*sound, Ok(()), "the check is green without the defect");
    let error = planted.expect_err("the check must see the defect");
    say(&format!("{name}: {error}"));
}

fn assert_power_check_catches(name: &str, lens: Lens, driver: Driver) {
    assert_caught(name, &power_check(clear, Driver::Right), power_check(lens, driver));
}

fn with_bug(bug: Bug, check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let _planted = plant(bug);
    check()
}

fn assert_power_check_catches_bug(bug: Bug) {
    let run = || power_check(clear, Driver::Right);
    assert_caught(&format!("{bug:?}"), &run(), with_bug(bug, run));
}

#[test]
fn planted_acknowledgement_before_the_sync_is_caught() {
    assert_power_check_catches("acknowledge before fsync", clear, Driver::AcknowledgesFirst);
}

#[test]
fn planted_vote_that_is_not_synced_is_caught() {
    assert_power_check_catches("vote not synced", clear, Driver::AnswersVotesAtOnce);
}

#[test]
fn planted_skipped_directory_sync_is_caught() {
    let lens: Lens = |disk| {
        with_fault(disk, Calls::DirSyncs, Failure::Ignored, Repeat::Sticky);
        clear(disk)
    };
    assert_power_check_catches("directory sync skipped", lens, Driver::Right);
}

#[test]
fn planted_skipped_sync_is_caught() {
    let lens: Lens = |disk| {
        with_fault(disk, Calls::DataSyncs, Failure::Ignored, Repeat::Sticky);
        clear(disk)
    };
    assert_power_check_catches("sync skipped", lens, Driver::Right);
}

#[test]
fn planted_ignored_error_of_a_sync_is_caught() {
    let lens: Lens = |disk| excused(disk, Excuse::Ignores);
    assert_power_check_catches("error of a sync ignored", lens, Driver::Right);
}

#[test]
fn planted_retried_sync_is_caught() {
    let lens: Lens = |disk| excused(disk, Excuse::Retries);
    assert_power_check_catches("sync retried", lens, Driver::Right);
}

#[test]
fn planted_unchecked_checksums_are_caught() {
    assert_power_check_catches_bug(Bug::CrcNotChecked);
    let run = || damage::check_flips(97).map(drop);
    assert_caught("CrcNotChecked, flips", &run(), with_bug(Bug::CrcNotChecked, run));
}

#[test]
fn planted_watermark_that_is_one_too_high_is_caught() {
    assert_power_check_catches_bug(Bug::WatermarkOffByOne);
}

#[test]
fn planted_page_before_its_copies_is_caught() {
    assert_power_check_catches_bug(Bug::PageFirst);
}

#[test]
fn planted_file_set_aside_before_its_replacement_is_caught() {
    assert_power_check_catches_bug(Bug::SetAsideFirst);
}

#[test]
fn planted_trust_in_what_was_not_synced_is_caught() {
    let run = || (0..20).try_for_each(|seed| lives::live(seed).map(drop));
    assert_caught("CopyNotMade", &run(), with_bug(Bug::CopyNotMade, run));
}

#[test]
fn planted_cut_of_damage_is_caught() {
    let run = || damage::check_flips(97).map(drop);
    assert_caught("CorruptionCut", &run(), with_bug(Bug::CorruptionCut, run));
}

#[test]
fn planted_ignored_error_is_caught_by_the_sweep() {
    let run = |lens: Lens| faults::sweep(1, lens).map(drop);
    let lens: Lens =
        |disk| Arc::new(Excused { excuse: Excuse::Retries, inner: Arc::new(disk.clone()) });
    assert_caught("sync retried, sweep", &run(clear), run(lens));
}
