//! Opening a database.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use prkdb_types::{CollectionSettings, Placement};
use tracing::{info, warn};

use super::{
    DbError, PrkDb,
    applier::Applier,
    catalog,
    database::{Inner, Threads},
    engine::{Engine, OwnPurge},
    janitor::Janitor,
};
use crate::{
    driver::{Ballast, Cleaner, CleanerParts, Driver, DriverParts, FlushMode},
    storage::{
        CHECKPOINT_BYTES, Shard, ShardOptions, TOMBSTONE_GRACE_MS,
        clock::{Clock, OsRng, SystemClock},
        dir::{DataDir, Kind, Wanted},
        disk::{Disk, RealDisk},
        kv::window::PRODUCER_BYTES_MAX,
        log::{entry::LogId, options::TAIL_CACHE_BYTES},
    },
};

/// The one shard.
pub(super) const SHARD: u32 = 0;
/// A directory of this kind has no node; every one has this number.
const NODE_ID: u64 = 0;
const SEGMENT_BYTES_FIRST: u64 = 4 << 20;
const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Default for the bytes of the key index.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The write is synced to the disk: it outlives the machine's loss of power.
    #[default]
    Sync,
    /// The write is with the operating system: it outlives the program, killed or not. What was written
    /// in the last tenth of a second or so may be lost with the machine's power. What is left is a
    /// beginning of what was written: no write is there without those before it.
    Relaxed,
}

/// Says what a database is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    data_dir: Option<PathBuf>,
    durability: Durability,
    index_bytes_max: u64,
    segment_bytes_max: u64,
    checkpoint_bytes: u64,
    clock: Option<Arc<dyn Clock>>,
    disk: Option<Arc<dyn Disk>>,
    keeps_log: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            data_dir: None,
            durability: Durability::Sync,
            index_bytes_max: INDEX_BYTES_MAX,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            checkpoint_bytes: CHECKPOINT_BYTES,
            clock: None,
            disk: None,
            keeps_log: false,
        }
    }
}

impl Builder {
    /// Chooses the directory. It is created where it is missing, and is the database's alone.
    #[must_use]
    pub fn with_data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Chooses what an acknowledgement promises. Default [`Durability::Sync`].
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Limits the memory of the key index; beyond it new keys are refused. Default 1 GiB.
    #[must_use]
    pub fn with_index_memory(mut self, bytes: u64) -> Self {
        self.index_bytes_max = bytes;
        self
    }

    /// Limits the size of a file of the log, from 4 MiB on. Default 256 MiB.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes.max(SEGMENT_BYTES_FIRST);
        self
    }

    /// Chooses how much the log grows from one checkpoint to the next. Default 256 MiB.
    #[must_use]
    pub fn with_checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// Chooses the clock. Default the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Chooses the disk: for tests, which lose its power.
    #[doc(hidden)]
    #[must_use]
    pub fn on_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Leaves the log as it is until somebody says what of it is read.
    #[must_use]
    pub(super) fn keeping_log(mut self) -> Self {
        self.keeps_log = true;
        self
    }

    /// Opens the database: locks the directory, reads the log, and starts the threads.
    ///
    /// # Errors
    /// `WrongDirectory` if the directory is a node's or none of ours, `Locked` if it is in use, `Corrupt`
    /// and `NewerFormat` as the log says, `Io` for everything else. [`DbError::hint`] says what helps.
    pub fn build(self) -> Result<PrkDb, DbError> {
        let Some(path) = &self.data_dir else {
            let reason = "it needs a directory: with_data_dir".to_owned();
            return Err(DbError::Settings { reason });
        };
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        let disk = match &self.disk {
            Some(disk) => Arc::clone(disk),
            None => {
                create_parent(path)?;
                Arc::new(RealDisk)
            }
        };
        let directory = Arc::new(open_directory(path, &disk, clock.as_ref())?);
        let shard = Arc::new(self.open_shard(&directory, &disk, clock.as_ref())?);
        if let Err(error) = directory.begin_ballast(disk.as_ref()) {
            warn!(%error, "no room for the reserve that a full disk is met with");
        }
        if self.keeps_log {
            shard.keep_from(0);
        }
        let applier = Arc::new(Applier::default());
        let mode = match self.durability {
            Durability::Sync => FlushMode::Synced,
            Durability::Relaxed => FlushMode::Written,
        };
        let driver = Driver::start(DriverParts {
            number: SHARD,
            shard: Arc::clone(&shard),
            clock: Arc::clone(&clock),
            observer: Arc::clone(&applier) as _,
            reserve: Arc::new(Ballast::new(&directory, Arc::clone(&disk))),
            mode,
        })
        .map_err(DbError::io("start threads for", path.clone()))?;
        let engine = Arc::new(Engine::new(
            Arc::clone(&shard),
            Arc::clone(&clock),
            self.durability,
            driver.flusher(),
            Arc::clone(&applier),
            self.index_bytes_max,
        ));
        applier.serve(&engine);
        let threads = Self::start(driver, &engine, &applier, shard, clock)
            .map_err(DbError::io("start threads for", path.clone()))?;
        let inner = Inner::new(engine, applier, threads, directory);
        let db = PrkDb::new(inner);
        let settings = CollectionSettings {
            placement: Placement::Colocated,
            ..CollectionSettings::with_partitions(1)
        };
        catalog::ensure_default(&db, settings)?;
        Ok(db)
    }

    /// Starts the threads beside the driver's.
    fn start(
        driver: Driver,
        engine: &Arc<Engine>,
        applier: &Arc<Applier>,
        shard: Arc<Shard>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Threads> {
        let parts = CleanerParts {
            number: SHARD,
            shard: Arc::clone(&shard),
            checkpointer: driver.checkpointer(),
            clock,
            purge: Box::new(OwnPurge { shard: Arc::clone(&shard), flusher: driver.flusher() }),
            observer: Arc::clone(applier) as _,
        };
        let applying = {
            let applier = Arc::clone(applier);
            move || applier.run(&shard)
        };
        let started = Cleaner::start(parts).and_then(|cleaner| {
            let janitor = match Janitor::start(Arc::clone(engine)) {
                Ok(janitor) => janitor,
                Err(error) => {
                    cleaner.stop();
                    return Err(error);
                }
            };
            match thread::Builder::new().name("apply-0".to_owned()).spawn(applying) {
                Ok(applier) => Ok((cleaner, janitor, applier)),
                Err(error) => {
                    let _ended = janitor.finish().join();
                    cleaner.stop();
                    Err(error)
                }
            }
        });
        match started {
            Ok((cleaner, janitor, applier)) => Ok(Threads { driver, applier, cleaner, janitor }),
            Err(error) => {
                driver.stop();
                Err(error)
            }
        }
    }

    fn open_shard(
        &self,
        directory: &DataDir,
        disk: &Arc<dyn Disk>,
        clock: &dyn Clock,
    ) -> Result<Shard, DbError> {
        let dir = directory.path().join(format!("shard-{SHARD:010}"));
        match disk.create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => {
                created.map_err(DbError::io("create", dir.clone()))?;
                disk.sync_dir(directory.path())
                    .map_err(DbError::io("sync the name of", dir.clone()))?;
            }
        }
        let options = ShardOptions {
            shard: SHARD,
            cluster_id: directory.identity().cluster_id.0,
            segment_bytes_first: SEGMENT_BYTES_FIRST.min(self.segment_bytes_max),
            segment_bytes_max: self.segment_bytes_max,
            tail_cache_bytes: TAIL_CACHE_BYTES,
            producer_bytes_max: PRODUCER_BYTES_MAX,
            checkpoint_bytes: self.checkpoint_bytes,
            tombstone_grace_ms: TOMBSTONE_GRACE_MS,
        };
        let mut rng = random(&dir)?;
        let now_ms = clock.wall_ms();
        let judged = Shard::judge(Arc::clone(disk), &dir, &options, &mut rng, now_ms)?;
        // Only now: a directory that is refused is left as it is.
        if let Err(error) = directory.make_room(disk.as_ref()) {
            warn!(%error, "the reserve stays, whatever room there is");
        }
        let (shard, recovery) = judged.settle()?;
        info!(
            dir = %dir.display(),
            entries = recovery.entries,
            bytes = recovery.read_bytes,
            "log recovered"
        );
        if recovery.cut_bytes > 0 {
            let (bytes, entries) = (recovery.cut_bytes, recovery.cut_entries);
            warn!(bytes, entries, "cut a torn tail: it was never acknowledged as synced");
        }
        apply_rest(&shard)?;
        Ok(shard)
    }
}

/// Applies what the log holds: where there is one replica, what recovery believes is committed.
fn apply_rest(shard: &Shard) -> Result<(), DbError> {
    let Some(last) = shard.log_state().last else { return Ok(()) };
    let applied = shard.revision();
    let rest: Vec<LogId> =
        (applied + 1..=last.index).filter_map(|index| shard.log_id_at(index)).collect();
    for ids in rest.chunks(APPLIED_AT_ONCE) {
        shard.apply_all(ids)?;
    }
    shard.set_committed(Some(last));
    Ok(())
}

/// So many entries are read back before they are applied.
const APPLIED_AT_ONCE: usize = 64;

fn random(path: &Path) -> Result<OsRng, DbError> {
    OsRng::new().map_err(DbError::io("draw random numbers for", path.to_owned()))
}

fn create_parent(path: &Path) -> Result<(), DbError> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => {
            fs::create_dir_all(parent).map_err(DbError::io("create", parent.to_owned()))
        }
        None => Ok(()),
    }
}

fn open_directory(
    path: &Path,
    disk: &Arc<dyn Disk>,
    clock: &dyn Clock,
) -> Result<DataDir, DbError> {
    let wanted = Wanted { kind: Kind::Embedded, node_id: NODE_ID, cluster_id: None };
    Ok(DataDir::open(disk.as_ref(), path, &wanted, clock, &mut random(path)?)?)
}
