//! The data directory that is looked at or mended.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use prkdb_types::ErrorCode;
use rustix::process::geteuid;

use crate::{
    commands::{
        failure::{Failure, Result, without_numbers},
        session::Session,
    },
    storage::{
        StorageError,
        dir::{DirError, OfflineDir, Use},
        disk::{Disk, ReadOnlyDisk, RealDisk},
        log::inspect::{self, Depth, LogOwner, LogReport, Visited},
    },
};

/// Where to look.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    /// Data directory of a stopped node
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR", hide_env_values = true)]
    data_dir: PathBuf,
    /// Read also while a node runs on it: what is read may be older than what the node has
    #[arg(long)]
    allow_live: bool,
}

/// How often a log that is written to meanwhile is read until it says the same twice.
const LIVE_TRIES: u32 = 8;

/// What reading a log gives.
type LogRead = std::result::Result<LogReport, StorageError>;

/// A directory that is open, and the disk it is read through.
pub(super) struct Place {
    dir: OfflineDir,
    disk: Arc<dyn Disk>,
}

impl Place {
    /// Opens a directory to be read.
    ///
    /// # Errors
    /// 15 where a node runs on it; those of a directory that is not ours.
    pub(super) fn read(session: &Session, args: &ReadArgs) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::new(RealDisk)));
        let usage = if args.allow_live { Use::ReadLive } else { Use::Read };
        let dir = OfflineDir::open(disk.as_ref(), &args.data_dir, usage)
            .map_err(|error| opening(&error, "stop the node, or pass --allow-live"))?;
        if dir.holder().is_some() {
            session
                .talk
                .warning("a node runs on the directory: its logs change while they are read");
        }
        Ok(Self { dir, disk })
    }

    /// Opens a directory to be copied: nobody may change it meanwhile.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub(super) fn copy(path: &Path) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::new(RealDisk)));
        let dir = OfflineDir::open(disk.as_ref(), path, Use::Read);
        Ok(Self { dir: dir.map_err(|error| opening(&error, "stop the node"))?, disk })
    }

    /// Opens a directory to be changed.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub(super) fn change(session: &Session, path: &Path) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        if let Some(owner) = fs::metadata(path).ok().map(|metadata| metadata.uid())
            && owner != geteuid().as_raw()
        {
            let path = path.display();
            session.talk.warning(&format!(
                "{path} belongs to user {owner}, and new files will not: run it as that user"
            ));
        }
        let dir = OfflineDir::open(disk.as_ref(), path, Use::Change);
        Ok(Self { dir: dir.map_err(|error| opening(&error, "stop the node"))?, disk })
    }

    /// Returns the directory.
    pub(super) fn dir(&self) -> &OfflineDir {
        &self.dir
    }

    /// Returns the disk that it is read through.
    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Returns the shard asked for, or all of them.
    ///
    /// # Errors
    /// 2 where there is no such shard.
    pub(super) fn shards(&self, asked: Option<u32>) -> Result<Vec<u32>> {
        let all = self.dir.shards(self.disk()).map_err(|error| of_dir(&error))?;
        let Some(shard) = asked else { return Ok(all) };
        if all.contains(&shard) {
            return Ok(vec![shard]);
        }
        let names: Vec<String> = all.iter().map(u32::to_string).collect();
        let path = self.dir.path().display();
        Err(Failure::usage(format!("--shard {shard}: there is no such shard in {path}"))
            .hint(format!("it has: {}", names.join(", ")))
            .into())
    }

    fn owner(&self, shard: u32) -> LogOwner {
        LogOwner { shard, cluster_id: self.dir.identity().cluster_id.0 }
    }

    /// Reads a log, entry by entry.
    ///
    /// # Errors
    /// What keeps it from being read at all.
    pub(super) fn walk(
        &self,
        shard: u32,
        mut visit: impl FnMut(&Visited<'_>) -> ControlFlow<()>,
    ) -> LogRead {
        let (path, owner) = (self.dir.shard_path(shard), self.owner(shard));
        inspect::inspect(&self.disk, &path, owner, Depth::Checksums, &mut visit)
    }

    /// Reads a log and says whether it is sound.
    ///
    /// # Errors
    /// As [`Place::walk`].
    pub(super) fn verify(&self, shard: u32, depth: Depth) -> LogRead {
        let path = self.dir.shard_path(shard);
        self.settled(|| inspect::verify(&self.disk, &path, self.owner(shard), depth))
    }

    /// Looks again at a log that was called damaged while a node may have written to it.
    ///
    /// # Errors
    /// As [`Place::walk`].
    pub(super) fn confirmed(&self, shard: u32, report: LogReport) -> LogRead {
        match (self.dir.holder(), &report.damage) {
            (Some(_), Some(_)) => self.verify(shard, Depth::Checksums),
            _ => Ok(report),
        }
    }

    /// Reads once, or, where a node writes meanwhile, until the same is wrong twice: what was read
    /// half written is another place the next time.
    fn settled(&self, mut read: impl FnMut() -> LogRead) -> LogRead {
        let mut last = read();
        if self.dir.holder().is_none() {
            return last;
        }
        let wrong = |read: &LogRead| match read {
            Ok(report) => {
                report.damage.as_ref().map(|damage| (damage.path.clone(), damage.position))
            }
            Err(error) => Some((error.to_string().into(), 0)),
        };
        for _ in 0..LIVE_TRIES {
            let Some(before) = wrong(&last) else { break };
            last = read();
            if wrong(&last) == Some(before) {
                break;
            }
        }
        last
    }
}

fn opening(error: &DirError, hint: &str) -> Failure {
    let failure = of_dir(error);
    if error.code() == ErrorCode::Locked { failure.hint(hint) } else { failure }
}

/// Turns an error of the directory into one of a command.
pub(super) fn of_dir(error: &DirError) -> Failure {
    Failure::of(error.code(), without_numbers(&error.to_string()))
}

/// Turns an error of a shard's log into one of a command.
pub(super) fn of_log(shard: u32, error: &StorageError) -> Failure {
    let message = without_numbers(&error.to_string());
    Failure::of(error.code(), format!("shard {shard}: {message}"))
}

/// Returns whether a path lies in a directory or would, whatever it is written like.
pub(super) fn lies_in(path: &Path, dir: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize();
    matches!((parent, dir.canonicalize()), (Ok(parent), Ok(dir)) if parent.starts_with(&dir))
}
