//! A snapshot of one replica becomes the state of another. Wherever the power goes, the other is what it was
//! or what the snapshot says, with its own vote, and with its own entries behind the snapshot.

use std::{
    collections::HashSet,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use prkdb::storage::{
    Install, PreparedSnapshot, Shard, ShardCopy, StorageError,
    bug::{self, Bug},
    disk::sim::{Loss, SimDisk},
    log::entry::{Entry, Frame, LogId, Payload, Vote, Write},
};
use prkdb_types::{ProducerStamp, batch::Batch};

use super::{
    oracle::check_shard,
    power::{say, seeds},
    rig::new_disk,
    shard::{
        CHECKPOINT_BYTES, Load, TERM, checkpoint, drive, open_with, run_cleaned, run_with,
        try_open_in,
    },
};

/// Entries of the log that all replicas have, sooner or later.
const ENTRIES: usize = 140;
/// Entries in the snapshot.
const TAKEN: usize = 100;

/// What the replica has that the snapshot is installed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Nothing.
    Nothing,
    /// The beginning of the log.
    Less,
    /// The log up to behind the snapshot, most of it not applied.
    More,
    /// Other entries in the place of some.
    Other,
    /// The beginning of the log, cleaned.
    Cleaned,
    /// An older snapshot, and some entries behind it.
    Installed,
}

pub(crate) const OWN: [Own; 6] =
    [Own::Nothing, Own::Less, Own::More, Own::Other, Own::Cleaned, Own::Installed];

/// Votes of the replica, and the one of the other.
pub(crate) const VOTE: Vote = Vote { term: 9, replica: 2, is_committed: false };
const OTHER_VOTE: Vote = Vote { term: TERM, replica: 1, is_committed: true };

/// The log, and the snapshot of a replica that has the beginning of it.
pub(crate) struct Replicated {
    pub(crate) load: Load,
    seed: u64,
    /// Entries of a replica that is cleaned.
    cleaned: usize,
    entries: Vec<Entry>,
    pub(crate) copy: ShardCopy,
    pub(crate) sender_disk: SimDisk,
    _sender: Shard,
}

fn id(index: usize) -> LogId {
    LogId { term: TERM, index: index as u64 }
}

/// Appends entries and applies those up to one.
fn append(shard: &Shard, entries: &[Entry], applied: usize) {
    for entry in entries {
        shard.append(vec![entry.clone()]).unwrap();
        drive(shard);
        let index = usize::try_from(entry.id.index).unwrap();
        if index < applied {
            shard.set_committed(Some(entry.id));
            shard.apply_all(&[entry.id]).unwrap();
            checkpoint(shard);
        }
        while let Some(job) = shard.next_sidecar() {
            let result = job.run();
            shard.sidecar_done(&job, result);
        }
    }
}

/// Returns what another leader wrote in the place of entries; a record of its own among it.
fn others(entries: &[Entry]) -> Vec<Entry> {
    let term = TERM + 1;
    let other = |(at, entry): (usize, &Entry)| {
        let payload = match &entry.payload {
            Payload::Normal(write) if at == 0 => {
                let (partition, base_offset) =
                    (write.frames[0].partition, write.frames[0].base_offset);
                let batch = Batch::single(ProducerStamp::NONE, 1, Some(b"x"), Some(b"other"), &[]);
                let mut batch = batch.unwrap();
                batch.set_base_offset(base_offset);
                let frames = vec![Frame { partition, record_count: 1, base_offset, batch }];
                let (sequencer_term, append_time_ms) = (term, write.append_time_ms);
                let write = Write { sequencer_term, sequence: 1, append_time_ms, frames };
                Payload::Normal(Arc::new(write))
            }
            _ => Payload::Blank,
        };
        Entry { id: LogId { term, ..entry.id }, is_void: false, payload }
    };
    entries.iter().enumerate().map(other).collect()
}

/// A replica that was led by another for a while, and truncated what that one wrote.
fn run_truncated(entries: &[Entry]) -> (SimDisk, Shard) {
    let disk = new_disk();
    let shard = open_with(&disk, CHECKPOINT_BYTES);
    let mut next = 0;
    for from in [30, 31, 60, 85] {
        append(&shard, &entries[next..from], TAKEN);
        append(&shard, &others(&entries[from..from + 12]), 0);
        shard.truncate_after(Some(id(from - 1))).unwrap();
        drive(&shard);
        next = from;
    }
    append(&shard, &entries[next..TAKEN], TAKEN);
    (disk, shard)
}

fn take(shard: &Shard) -> ShardCopy {
    shard.save_vote(OTHER_VOTE).unwrap();
    shard.mark_synced();
    drive(shard);
    if let Some(job) = shard.checkpoint_now() {
        let (finished, result) = job.run();
        shard.checkpointed(finished, &result);
        result.unwrap();
    }
    shard.copy().unwrap().unwrap()
}

impl Replicated {
    /// The other replica was cleaned, or else has truncated.
    pub(crate) fn new(seed: u64) -> Self {
        let load = run_with(seed, ENTRIES, CHECKPOINT_BYTES);
        let mut entries = Vec::new();
        while entries.len() < load.models.len() {
            let next = entries.len() as u64;
            entries.extend(load.shard.read(next..u64::MAX, 1 << 20).unwrap());
        }
        let (sender_disk, sender) = if seed.is_multiple_of(2) {
            let cleaned = run_cleaned(seed, TAKEN);
            let last = cleaned.models.len() as u64 - 1;
            let own = cleaned.shard.read(last..last + 1, 1).unwrap();
            assert_eq!(own[0], entries[usize::try_from(last).unwrap()], "one log");
            (cleaned.disk, cleaned.shard)
        } else {
            run_truncated(&entries)
        };
        let copy = take(&sender);
        let cleaned = run_cleaned(seed, 50).models.len();
        Self { load, seed, cleaned, entries, copy, sender_disk, _sender: sender }
    }

    /// How many entries are in the snapshot.
    pub(crate) fn taken(&self) -> usize {
        usize::try_from(self.copy.version.applied.index).unwrap() + 1
    }

    /// How many entries of the log the replica has.
    fn count(&self, own: Own) -> usize {
        match own {
            Own::Nothing => 0,
            Own::Less | Own::Other => 40,
            Own::More => self.taken() + 15,
            Own::Cleaned => self.cleaned,
            Own::Installed => 70,
        }
    }

    /// Returns a replica that has entries of its own.
    pub(crate) fn replica(&self, own: Own) -> (SimDisk, Shard) {
        if own == Own::Cleaned {
            let load = run_cleaned(self.seed, 50);
            load.shard.save_vote(VOTE).unwrap();
            load.drive();
            return (load.disk, load.shard);
        }
        let disk = new_disk();
        let shard = open_with(&disk, CHECKPOINT_BYTES);
        shard.save_vote(VOTE).unwrap();
        drive(&shard);
        match own {
            Own::Nothing => return (disk, shard),
            Own::Installed => {
                let (_disk, other) = self.replica_of(60);
                install(&shard, &other.copy().unwrap().unwrap()).unwrap();
                append(&shard, &self.entries[60..70], 65);
                return (disk, shard);
            }
            _ => {}
        }
        append(&shard, &self.entries[..self.count(own)], 40);
        if own == Own::Other {
            append(&shard, &others(&self.entries[40..self.taken() + 10]), 0);
        }
        (disk, shard)
    }

    /// Returns a replica that has applied so many entries, and has a checkpoint of them.
    pub(crate) fn replica_of(&self, entries: usize) -> (SimDisk, Shard) {
        let disk = new_disk();
        let shard = open_with(&disk, CHECKPOINT_BYTES);
        append(&shard, &self.entries[..entries], entries);
        drop(take(&shard));
        (disk, shard)
    }

    /// Goes on with the log, to its end.
    pub(crate) fn go_on(&self, shard: &Shard) -> Result<(), String> {
        let count = |id: Option<LogId>| id.map_or(0, |id| usize::try_from(id.index).unwrap() + 1);
        let has = count(shard.log_state().last);
        for index in count(shard.applied().0)..has {
            shard.apply_all(&[id(index)]).map_err(|error| error.to_string())?;
        }
        append(shard, &self.entries[has..], self.entries.len());
        Ok(())
    }
}

/// Installs a snapshot and removes what it replaced.
pub(crate) fn install(shard: &Shard, copy: &ShardCopy) -> Result<(), StorageError> {
    let mut prepared = prepare(shard, copy)?;
    loop {
        let mark = shard.mark()?;
        drive(shard);
        match shard.install(prepared, mark)? {
            Install::Done(installed) => {
                shard.clear_away(*installed);
                return Ok(());
            }
            Install::NotYet(again) => prepared = *again,
        }
    }
}

/// Verifies a snapshot and makes it ready.
pub(crate) fn prepare(shard: &Shard, copy: &ShardCopy) -> Result<PreparedSnapshot, StorageError> {
    shard.prepare_snapshot(copy, &mut |_| ControlFlow::Continue(()))
}

#[derive(Default)]
struct Tally {
    crashes: usize,
    before: usize,
    after: usize,
}

/// Compares a shard with what it was before, or with what the snapshot says; says whether it is the latter.
pub(crate) fn check_replica(shard: &Shard, log: &Replicated, own: Own) -> Result<bool, String> {
    if shard.vote() != Some(VOTE) {
        return Err(format!("the vote is {:?}", shard.vote()));
    }
    let last = usize::try_from(log.copy.version.applied.index).unwrap();
    let checkpoint = shard.last_checkpoint().map(|(applied, _)| applied);
    let is_after = checkpoint >= Some(id(last));
    let count = if is_after && own != Own::More { last + 1 } else { log.count(own) };
    if own == Own::Other && !is_after {
        let read = shard.read(0..u64::MAX, u64::MAX).map_err(|error| error.to_string())?;
        let expected = [&log.entries[..40], &others(&log.entries[40..last + 11])].concat();
        let is_same = read.len() == expected.len()
            && read.iter().zip(&expected).all(|(read, it)| read.payload == it.payload);
        return if is_same { Ok(false) } else { Err("the log is another".to_owned()) };
    }
    check_shard(shard, &log.load, (count, count))?;
    Ok(is_after)
}

fn check_images(
    log: &Replicated,
    own: Own,
    disk: &SimDisk,
    during: &Range<u64>,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut seen = HashSet::new();
    for image in disk.take_recording() {
        let boundary = image.boundary();
        if boundary < during.start {
            continue;
        }
        for loss in Loss::every(image.unsynced_count(), 0..3) {
            tally.crashes += 1;
            let crashed = image.crash(loss);
            if !seen.insert(crashed.hash()) {
                continue;
            }
            let told = |error: String| format!("{own:?}, boundary {boundary}, {loss:?}: {error}");
            let reopen = || {
                try_open_in(&crashed, super::rig::DIR, CHECKPOINT_BYTES)
                    .map_err(|error| told(error.to_string()))
            };
            let is_after = check_replica(&reopen()?, log, own).map_err(told)?;
            if !is_after && boundary >= during.end {
                return Err(told("it was installed, and is not any more".to_owned()));
            }
            let shard = reopen()?;
            if check_replica(&shard, log, own).map_err(told)? != is_after {
                return Err(told("opened again it is the other".to_owned()));
            }
            *(if is_after { &mut tally.after } else { &mut tally.before }) += 1;
            if own == Own::Other && !is_after {
                continue;
            }
            log.go_on(&shard).map_err(told)?;
            drop(shard);
            let all = log.entries.len();
            let shard = reopen()?;
            check_shard(&shard, &log.load, (all, all)).map_err(told)?;
        }
    }
    Ok(())
}

fn check_installing(seed: u64, own: Own, tally: &mut Tally) -> Result<(), String> {
    let log = Replicated::new(seed);
    let (disk, shard) = log.replica(own);
    disk.record();
    let start = disk.boundary_count();
    install(&shard, &log.copy).map_err(|error| error.to_string())?;
    let during = start..disk.boundary_count();
    if !check_replica(&shard, &log, own)? {
        return Err("it is not installed".to_owned());
    }
    check_images(&log, own, &disk, &during, tally)?;
    log.go_on(&shard)?;
    let all = log.entries.len();
    check_shard(&shard, &log.load, (all, all))
}

#[test]
fn a_replica_is_what_it_was_or_what_the_snapshot_says_after_any_power_cut() {
    let mut tally = Tally::default();
    for seed in seeds(1..=2) {
        for own in OWN {
            check_installing(seed, own, &mut tally).unwrap();
        }
    }
    let Tally { crashes, before, after } = tally;
    say(&format!("installing: {crashes} crashes, {before} disks before, {after} after"));
    assert!(before >= 1000 && after >= 100, "{before} disks before, {after} after");
}

#[test]
fn planted_installations_are_caught() {
    for planted in
        [Bug::HistoryNotSynced, Bug::InstallTakesVote, Bug::InstallDropsOwn, Bug::InstallRevives]
    {
        let found = OWN.iter().try_for_each(|own| {
            let run = || {
                let guard = bug::plant(planted);
                let found = check_installing(1, *own, &mut Tally::default());
                drop(guard);
                found
            };
            // What a shard refuses while it goes on is caught as well.
            std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()))
        });
        say(&format!("planted {planted:?}: {found:?}"));
        assert!(found.is_err(), "{planted:?}");
    }
}
