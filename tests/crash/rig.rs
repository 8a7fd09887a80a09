//! A log on a simulated disk, driven inline and remembered.

use std::{io, path::Path, sync::Arc};

use prkdb::storage::{
    StorageError,
    clock::SeededRng,
    disk::{Disk, sim::SimDisk},
    log::{FlushJob, Log, PrepareMode, Prepared, Recovery, options::LogOptions},
};

use super::model::{History, LogModel, Op};

/// Where the log is.
pub(crate) const DIR: &str = "/log";

pub(crate) fn options() -> LogOptions {
    LogOptions {
        shard: 1,
        cluster_id: [5; 16],
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        tail_cache_bytes: 8 << 10,
        group_bytes_max: 16 << 10,
    }
}

/// Returns a disk with an empty directory for a log.
pub(crate) fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

pub(crate) fn open_on(disk: Arc<dyn Disk>) -> Result<(Log, Recovery), StorageError> {
    Log::open(disk, Path::new(DIR), options(), &mut SeededRng::new(1), 1000)
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Log, Recovery), StorageError> {
    open_on(Arc::new(disk.clone()))
}

/// How a driver may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Driver {
    #[default]
    Right,
    /// It says that a group is synced before it is written.
    AcknowledgesFirst,
    /// It says that a vote is synced when the log has it in memory.
    AnswersVotesAtOnce,
}

/// A log, what was done to it, and its disk.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) history: History,
    pub(crate) driver: Driver,
    pub(crate) mode: PrepareMode,
    /// How often a preparation met a full disk.
    pub(crate) full_count: usize,
}

impl Rig {
    /// Opens the log that holds `state` through `as_seen`, a disk over `disk`.
    pub(crate) fn open(
        disk: &SimDisk,
        as_seen: Arc<dyn Disk>,
        state: LogModel,
    ) -> Result<Self, StorageError> {
        let (log, _) = open_on(as_seen)?;
        let history = History::from_state(state);
        Ok(Self {
            disk: disk.clone(),
            log,
            history,
            driver: Driver::Right,
            mode: PrepareMode::Allocate,
            full_count: 0,
        })
    }

    pub(crate) fn give(&mut self, op: Op) -> Result<(), StorageError> {
        let at_once = matches!(op, Op::Vote(_)) && self.driver == Driver::AnswersVotesAtOnce;
        if at_once {
            // What is older is synced first: the vote alone is answered too early.
            self.drive()?;
        }
        let lsn = match &op {
            Op::Entry(entry) => self.log.append(vec![entry.clone()])?,
            Op::Vote(vote) => self.log.save_vote(*vote)?,
            Op::Truncate(kept) => self.log.truncate_after(*kept)?,
            Op::Purge(mark) => self.log.purge(*mark)?,
            Op::Sync => match self.log.mark_synced() {
                Some(lsn) => lsn,
                None => return Ok(()),
            },
        };
        self.history.push(lsn, op, self.disk.boundary_count());
        if at_once {
            self.history.acknowledge(lsn, self.disk.boundary_count());
        }
        Ok(())
    }

    /// Runs jobs until there is none, or only a preparation for which the disk has no room.
    pub(crate) fn drive(&mut self) -> Result<(), StorageError> {
        loop {
            let flushed = self.flush_one()?;
            // A group that finds no room asks for a segment that has it.
            let prepared = self.prepare_one()?;
            if !flushed && prepared != Some(Prepared::Ready) {
                return Ok(());
            }
        }
    }

    /// Runs one job on segments.
    pub(crate) fn prepare_one(&mut self) -> Result<Option<Prepared>, StorageError> {
        let Some(job) = self.log.next_prepare() else { return Ok(None) };
        let result = job.run(self.mode);
        let prepared = self.log.prepared(job, result)?;
        self.full_count += usize::from(prepared == Prepared::DiskFull);
        Ok(Some(prepared))
    }

    /// Writes and syncs one group.
    pub(crate) fn flush_one(&mut self) -> Result<bool, StorageError> {
        let Some(job) = self.log.next_flush() else { return Ok(false) };
        if self.driver == Driver::AcknowledgesFirst {
            return self.acknowledge_first(job);
        }
        let result = job.run();
        let synced = self.log.flushed(job, result)?;
        self.history.acknowledge(synced, self.disk.boundary_count());
        Ok(true)
    }

    fn acknowledge_first(&mut self, job: FlushJob) -> Result<bool, StorageError> {
        let before = self.disk.boundary_count();
        let result: io::Result<()> = job.run();
        let synced = self.log.flushed(job, result)?;
        self.history.acknowledge_at(synced, before);
        Ok(true)
    }
}
