//! Looking at a log agrees with opening it, changes nothing, and finds where it could be cut.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use crc_fast::{CrcAlgorithm, checksum};
use prkdb::storage::{
    StorageError,
    bug::{Bug, plant},
    disk::{Access, Disk, ReadOnlyDisk, sim::SimDisk},
    log::{
        Recovery,
        entry::{Entry, Frame, Item, LogId, Payload, Write},
        inspect::{
            self, CutPlan, Damage, Depth, LogOwner, LogReport, Problem, SegmentState, Visited,
        },
    },
};

use prkdb_types::batch::{Batch, BatchBuilder, Compression, HEAD_LEN, HEADER_LEN, ProducerStamp};

use super::{
    damage::{Specimen, files_of},
    decoder::reseal_entry,
    load,
    model::{LogModel, Op},
    power::{clear, say},
    rig::{DIR, Rig, new_disk, open, options},
};

fn owner() -> LogOwner {
    LogOwner { shard: options().shard, cluster_id: options().cluster_id }
}

fn read_only(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(ReadOnlyDisk::new(Arc::new(disk.clone())))
}

fn look_each(
    disk: &SimDisk,
    visit: &mut dyn FnMut(&Visited<'_>) -> ControlFlow<()>,
) -> Result<LogReport, StorageError> {
    let disk = read_only(disk);
    inspect::inspect(&disk, Path::new(DIR), owner(), Depth::Records, visit)
}

fn look(disk: &SimDisk) -> Result<LogReport, StorageError> {
    let before = disk.hash();
    let report = look_each(disk, &mut |_| ControlFlow::Continue(()));
    assert_eq!(disk.hash(), before, "looking changes nothing");
    report
}

/// What opening says of a log.
type Opened = Result<Recovery, StorageError>;

/// Compares what looking and opening say.
fn agree(looked: Result<LogReport, StorageError>, opened: Opened) -> Result<bool, String> {
    match (looked, opened) {
        (
            Ok(LogReport { damage: Some(damage), .. }),
            Err(StorageError::Corrupt { path, position, .. }),
        ) => {
            if (&damage.path, damage.position) != (&path, position) {
                return Err(format!(
                    "{} of {} instead of {position} of {}",
                    damage.position,
                    damage.path.display(),
                    path.display()
                ));
            }
            Ok(true)
        }
        (Ok(report @ LogReport { damage: None, .. }), Ok(recovery)) => {
            let torn: u64 = report.torn.iter().map(|torn| torn.bytes).sum();
            let entries: u64 = report.torn.iter().map(|torn| torn.entries).sum();
            let seen = (report.entries, torn, entries);
            let expected = (recovery.entries, recovery.cut_bytes, recovery.cut_entries);
            (seen == expected).then_some(false).ok_or(format!("{seen:?} instead of {expected:?}"))
        }
        (Err(looked), Err(opened)) if looked.code() == opened.code() => Ok(true),
        (looked, opened) => {
            let looked = looked.map(|report| report.damage.map(|damage| damage.error));
            Err(format!("looking says {looked:?}, opening {opened:?}"))
        }
    }
}

fn opened(disk: &SimDisk) -> Opened {
    open(&disk.clone_image()).map(|(_, recovery)| recovery)
}

/// Flips a bit of every `step`-th byte; returns how many flips there were and how many were refused.
fn check_flips(step: usize) -> Result<(usize, usize), String> {
    let specimen = Specimen::new();
    let (mut flips, mut refused) = (0, 0);
    for (name, bytes) in files_of(&specimen.disk) {
        for position in (0..bytes.len()).step_by(step) {
            let disk = specimen.disk.clone_image();
            let bit = u8::try_from(position % 8).unwrap();
            disk.flip_bit(&Path::new(DIR).join(&name), position as u64, bit).unwrap();
            let is_refused = agree(look(&disk), opened(&disk))
                .map_err(|error| format!("bit {bit} of byte {position} of {name}: {error}"))?;
            flips += 1;
            refused += usize::from(is_refused);
        }
    }
    Ok((flips, refused))
}

#[test]
fn looking_agrees_with_opening_for_every_flipped_byte() {
    let (flips, refused) = check_flips(11).unwrap();
    say(&format!("{flips} flips looked at, {refused} of them damage"));
    assert!(refused > 3000 && flips - refused > 3000, "{flips} flips, {refused} refused");
}

#[test]
fn planted_look_that_does_not_go_behind_the_end_is_caught() {
    assert!(check_flips(301).is_ok());
    let _planted = plant(Bug::BehindNotRead);
    let error = check_flips(301).expect_err("the check must see the defect");
    say(&format!("BehindNotRead: {error}"));
}

#[test]
fn planted_cut_of_damage_is_caught_by_looking() {
    let _planted = plant(Bug::CorruptionCut);
    let error = check_flips(301).expect_err("the check must see the defect");
    say(&format!("CorruptionCut, looking: {error}"));
}

#[test]
fn looking_agrees_with_opening_for_files_that_are_cut_short_or_gone() {
    let specimen = Specimen::new();
    let (mut cuts, mut refused) = (0, 0);
    for (name, bytes) in files_of(&specimen.disk) {
        let path = Path::new(DIR).join(&name);
        for len in (0..bytes.len()).step_by(17) {
            let disk = specimen.disk.clone_image();
            let file = disk.open(&path, Access::ReadWrite).unwrap();
            file.truncate(len as u64).unwrap();
            file.sync_all().unwrap();
            let is_refused = agree(look(&disk), opened(&disk))
                .unwrap_or_else(|error| panic!("{name} cut to {len}: {error}"));
            cuts += 1;
            refused += usize::from(is_refused);
        }
        let disk = specimen.disk.clone_image();
        disk.lose_file(&path).unwrap();
        agree(look(&disk), opened(&disk)).unwrap_or_else(|error| panic!("{name} gone: {error}"));
    }
    say(&format!("{cuts} cuts looked at, {refused} of them damage"));
    assert!(refused > 1000 && cuts - refused > 1000, "{cuts} cuts, {refused} refused");
}

#[test]
fn looking_agrees_with_opening_after_power_cuts() {
    let disk = new_disk();
    disk.record();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    rig.full_count = 1;
    load::run(&mut rig, 4, 60).unwrap();
    let mut crashes = 0;
    for image in disk.take_recording().iter().step_by(3) {
        for loss in [prkdb::storage::disk::sim::Loss::All, prkdb::storage::disk::sim::Loss::None] {
            let disk = image.crash(loss);
            if !disk.exists(Path::new(DIR)).unwrap() {
                continue;
            }
            crashes += 1;
            assert_eq!(agree(look(&disk), opened(&disk)), Ok(false));
        }
    }
    assert!(crashes > 50, "{crashes}");
}

/// A log of several segments that stopped cleanly.
fn stopped() -> (SimDisk, Vec<(String, Vec<u8>)>) {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    load::run(&mut rig, 9, 60).unwrap();
    let files = files_of(&disk);
    (disk, files)
}

/// Every entry: its file, position, index and records.
fn entries(disk: &SimDisk) -> Vec<(u64, u64, Option<u64>)> {
    let mut all = Vec::new();
    look_each(disk, &mut |visited| {
        let index = match visited.item {
            Item::Entry(entry) => Some(entry.id.index),
            Item::Control(_) => None,
        };
        all.push((visited.segment, visited.position, index));
        ControlFlow::Continue(())
    })
    .unwrap();
    all
}

fn damage_of(disk: &SimDisk) -> Damage {
    look(disk).unwrap().damage.expect("it is damaged")
}

#[test]
fn damage_is_told_with_its_index_and_with_what_follows() {
    let (disk, files) = stopped();
    let whole = look(&disk).unwrap();
    assert!(whole.damage.is_none() && whole.torn.is_empty());
    let all = entries(&disk);
    assert_eq!(whole.entries, all.len() as u64);
    let at = all.len() / 2;
    let (segment, position, index) = *all[at..].iter().find(|entry| entry.2.is_some()).unwrap();
    let behind = all.iter().filter(|entry| **entry > (segment, position, index)).count();
    let (name, _) =
        files.iter().find(|(name, _)| name.ends_with(&format!("-{segment:010}.log"))).unwrap();
    let path = Path::new(DIR).join(name);
    // In the body: the header tells the index.
    let body = disk.clone_image();
    body.flip_bit(&path, position + 80, 1).unwrap();
    let damage = damage_of(&body);
    assert_eq!((damage.problem, damage.position, damage.index), (Problem::Crc, position, index));
    assert_eq!(damage.following.entries, behind as u64);
    assert_eq!(damage.following.last_index, whole.last.map(|last| last.index));
    assert!(damage.following.records > 0);
    assert!(damage.following.committed_records <= damage.following.records);
    // A file that is gone: what is older and what is newer is counted all the same.
    let gone = disk.clone_image();
    gone.lose_file(&path).unwrap();
    let damage = damage_of(&gone);
    assert_eq!((damage.problem, damage.path), (Problem::Missing, path));
    let newer = all.iter().filter(|entry| entry.0 > segment).count();
    assert_eq!(damage.following.entries, newer as u64);
}

#[test]
fn a_newer_format_is_no_damage() {
    let (disk, files) = stopped();
    let (segment, position, _) = *entries(&disk).last().unwrap();
    let (name, bytes) =
        files.iter().find(|(name, _)| name.ends_with(&format!("-{segment:010}.log"))).unwrap();
    let mut newer = bytes.clone();
    newer[usize::try_from(position).unwrap() + 4] = 2;
    reseal_entry(name, &mut newer, usize::try_from(position).unwrap());
    let file = disk.open(&Path::new(DIR).join(name), Access::ReadWrite).unwrap();
    file.write_at(0, &[std::io::IoSlice::new(&newer)]).unwrap();
    file.sync_all().unwrap();
    assert!(matches!(look(&disk), Err(StorageError::NewerFormat { found: 2, .. })));
}

/// What is kept of a directory whatever is done to a log: contents by name, quarantined ones by the
/// name they had.
fn kept(disk: &SimDisk) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    // What an interrupted cut leaves are copies.
    let is_copy = |name: &str| [".cut", ".whole"].iter().any(|ending| name.ends_with(ending));
    for (name, bytes) in files_of(disk).into_iter().filter(|(name, _)| !is_copy(name)) {
        let original = name.split(".quarantine-").next().unwrap().to_owned();
        all.entry(original).or_default().push(bytes);
    }
    all
}

fn cut_in_place(disk: &SimDisk, report: &LogReport, plan: &CutPlan, now_ms: i64) {
    inspect::cut_in_place(disk, Path::new(DIR), report, plan, now_ms).unwrap();
}

/// Checks that a log that is cut where it breaks can be opened, holds what was read before the break,
/// and that every byte of what it was is still there.
fn check_repair(damaged: &SimDisk) {
    let report = look(damaged).unwrap();
    let plan = CutPlan::at_end(&report);
    let before = kept(damaged);
    let repaired = damaged.clone_image();
    cut_in_place(&repaired, &report, &plan, 78);
    let after = kept(&repaired);
    for (name, contents) in &before {
        assert!(contents.iter().all(|bytes| after[name].contains(bytes)), "{name} is kept");
    }
    let again = look(&repaired).unwrap();
    assert!(again.damage.is_none() && again.torn.is_empty(), "{:?}", again.damage);
    assert_eq!((again.entries, again.last), (report.entries, report.last));
    let (log, recovery) = open(&repaired).unwrap();
    assert_eq!((recovery.entries, recovery.cut_bytes), (report.entries, 0));
    LogModel::of(&log).unwrap();
    drop(log);
    // The copy says the same, in a directory of its own.
    let to = Path::new("/copy");
    let copied = damaged.clone_image();
    copied.create_dir(to).unwrap();
    inspect::copy_log(&copied, (Path::new(DIR), to), &report, Some(&plan), 77).unwrap();
    let mut visit = |_: &Visited<'_>| ControlFlow::Continue(());
    let on: Arc<dyn Disk> = Arc::new(copied.clone());
    let copy = inspect::inspect(&on, to, owner(), Depth::Records, &mut visit).unwrap();
    assert!(copy.damage.is_none() && copy.torn.is_empty(), "{:?}", copy.damage);
    assert_eq!((copy.entries, copy.last), (report.entries, report.last));
    let largest = |report: &LogReport| {
        let taken = report.segments.iter().filter(|s| s.state != SegmentState::Prepared);
        taken.map(|segment| segment.number).max()
    };
    assert_eq!(largest(&copy), largest(&report), "no number is given out again");
    assert_eq!(kept(&copied), before, "the original is left as it is");
}

#[test]
fn a_log_that_is_cut_where_it_breaks_opens_with_all_before_it() {
    let (disk, files) = stopped();
    let mut repaired = 0;
    for (name, bytes) in &files {
        let path = Path::new(DIR).join(name);
        for position in (0..bytes.len()).step_by(613) {
            let damaged = disk.clone_image();
            damaged.flip_bit(&path, position as u64, 3).unwrap();
            if look(&damaged).is_ok_and(|report| report.damage.is_some()) {
                check_repair(&damaged);
                repaired += 1;
            }
        }
        let gone = disk.clone_image();
        gone.lose_file(&path).unwrap();
        if look(&gone).unwrap().damage.is_some() {
            check_repair(&gone);
            repaired += 1;
        }
    }
    assert!(repaired > 40, "{repaired}");
}

#[test]
fn an_interrupted_cut_leaves_a_log_that_is_refused_or_cut() {
    let (disk, _) = stopped();
    let all = entries(&disk);
    let (segment, position, _) = all[all.len() / 3];
    let whole = look(&disk).unwrap();
    let path = whole.segments.iter().find(|s| s.number == segment).unwrap().path.clone();
    disk.flip_bit(&path, position + 70, 0).unwrap();
    let report = look(&disk).unwrap();
    let plan = CutPlan::at_end(&report);
    assert!(plan.changes(&report).count() > 2, "{plan:?}");
    disk.record();
    cut_in_place(&disk, &report, &plan, 77);
    for image in disk.take_recording() {
        for loss in [prkdb::storage::disk::sim::Loss::All, prkdb::storage::disk::sim::Loss::None] {
            let crashed = image.crash(loss);
            let now = look(&crashed).unwrap();
            assert_eq!(now.entries, report.entries, "what can be read stays");
            if now.damage.is_some() {
                assert!(opened(&crashed).is_err());
                check_repair(&crashed);
            }
        }
    }
}

/// A batch whose checksum holds and whose first record reaches behind its end.
fn batch_that_cannot_be_read(base_offset: u64) -> Batch {
    let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 0 };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    builder.push(1000, Some(b"k"), Some(b"v"), &[]).unwrap();
    let mut batch = builder.finish().unwrap();
    batch.set_base_offset(base_offset);
    let (mut head, mut tail) = (*batch.head(), batch.tail().to_vec());
    tail[HEADER_LEN - HEAD_LEN] = 0x7e;
    let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, &tail)).unwrap();
    head[HEAD_LEN - 4..].copy_from_slice(&crc.to_be_bytes());
    Batch::from_parts(head, tail.into()).unwrap()
}

#[test]
fn a_record_that_cannot_be_read_is_found_by_reading_them_all() {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    load::run(&mut rig, 5, 10).unwrap();
    load::Source::after(&rig, 8).new_term(&mut rig).unwrap();
    let state = rig.history.last_state();
    let last = state.last().unwrap();
    let base_offset = state.next_offset(1);
    let batch = batch_that_cannot_be_read(base_offset);
    let frame = Frame { partition: 1, record_count: 1, base_offset, batch };
    let write =
        Write { sequencer_term: last.term, sequence: 1, append_time_ms: 1, frames: vec![frame] };
    let id = LogId { term: last.term, index: last.index + 1 };
    let payload = Payload::Normal(Arc::new(write));
    rig.give(Op::Entry(Entry { id, is_void: false, payload })).unwrap();
    rig.drive().unwrap();
    let disk_read = read_only(&disk);
    let verify = |depth| inspect::verify(&disk_read, Path::new(DIR), owner(), depth).unwrap();
    assert!(verify(Depth::Checksums).damage.is_none(), "every checksum holds");
    let damage = verify(Depth::Records).damage.unwrap();
    assert_eq!((damage.problem, damage.index), (Problem::Records, Some(id.index)));
}

#[test]
fn a_cut_sets_the_manifest_aside_and_a_copy_has_none() {
    let (disk, _) = stopped();
    let all = entries(&disk);
    let (segment, position, _) = all[all.len() / 2];
    let whole = look(&disk).unwrap();
    let path = whole.segments.iter().find(|s| s.number == segment).unwrap().path.clone();
    disk.flip_bit(&path, position + 70, 0).unwrap();
    let manifest = disk.create(&Path::new(DIR).join("MANIFEST")).unwrap();
    manifest.write_at(0, &[std::io::IoSlice::new(b"what it was")]).unwrap();
    check_repair(&disk);
    let report = look(&disk).unwrap();
    cut_in_place(&disk, &report, &CutPlan::at_end(&report), 78);
    let files: BTreeMap<String, Vec<u8>> = files_of(&disk).into_iter().collect();
    assert!(!files.contains_key("MANIFEST"));
    assert_eq!(files["MANIFEST.quarantine-78"], b"what it was");
}

/// Changes the header of the last write in the newest segment that has one, and makes every checksum
/// right again.
fn with_changed_entry(change: impl Fn(&mut [u8])) -> SimDisk {
    let (disk, files) = stopped();
    let at =
        |file: &[u8], place: usize| u64::from_le_bytes(file[place..place + 8].try_into().unwrap());
    let (name, mut file) = files
        .into_iter()
        .rfind(|(_, file)| entries_of(file).iter().any(|position| file[*position + 5] == 2))
        .unwrap();
    let positions = entries_of(&file);
    let position = *positions.iter().rfind(|position| file[**position + 5] == 2).unwrap();
    assert!(at(&file, position + 24) > 1, "a term below it is one");
    change(&mut file[position..position + 72]);
    let mut before: Option<[u8; 4]> = None;
    for position in positions.into_iter().filter(|other| *other >= position) {
        if let Some(before) = before {
            file[position + 56..position + 60].copy_from_slice(&before);
        }
        reseal_entry(&name, &mut file, position);
        before = Some(file[position + 68..position + 72].try_into().unwrap());
    }
    let path = Path::new(DIR).join(name);
    let written = disk.open(&path, Access::ReadWrite).unwrap();
    written.write_at(0, &[std::io::IoSlice::new(&file)]).unwrap();
    written.sync_all().unwrap();
    disk
}

fn entries_of(file: &[u8]) -> Vec<usize> {
    let mut positions = Vec::new();
    let mut position = 4096;
    while file.get(position..position + 4) == Some(b"PrkE") {
        positions.push(position);
        let body = u32::from_le_bytes(file[position + 8..position + 12].try_into().unwrap());
        position += (72 + usize::try_from(body).unwrap()).next_multiple_of(8);
    }
    positions
}

#[test]
fn a_log_whose_terms_go_down_is_refused_by_looking_and_by_opening() {
    let disk = with_changed_entry(|header| header[24..32].copy_from_slice(&1_u64.to_le_bytes()));
    assert_eq!(agree(look(&disk), opened(&disk)), Ok(true));
    assert_eq!(damage_of(&disk).problem, Problem::Order);
}

#[test]
fn numbers_that_leave_no_room_for_another_are_refused() {
    for place in [16, 24, 32, 48] {
        let disk = with_changed_entry(|header| {
            header[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        });
        assert_eq!(agree(look(&disk), opened(&disk)), Ok(true), "the number at {place}");
    }
}
