//! The data directory: locked by one process, named by its `IDENTITY`, with a `BALLAST` to drop.
//!
//! | name | content |
//! |---|---|
//! | `LOCK` | see `lock.rs` |
//! | `IDENTITY` | see `identity.rs` |
//! | `BALLAST` | zeros: room that is freed when the disk is full |
//!
//! A directory that is not ours is left as it is. One is ours when it has an `IDENTITY`, or when it
//! is empty but for what a process that died while creating it leaves behind. What lies in it
//! besides is not looked at.

mod identity;
mod lock;
mod offline;
#[cfg(test)]
mod tests;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use prkdb_types::ErrorCode;

use self::identity::IDENTITY_TEMP;
pub use self::{
    identity::{ClusterId, FORMAT, IDENTITY, Identity, Kind},
    lock::{Holder, LOCK},
    offline::{OfflineDir, Use},
};
use super::{
    clock::{Clock, Rng},
    disk::{Access, Disk, DiskFile, Privacy},
};

/// The name of the file that keeps room for a full disk.
pub const BALLAST: &str = "BALLAST";

/// The room it keeps: votes and control entries of many hours.
pub const BALLAST_BYTES: u64 = 64 << 20;

/// What may lie in a directory that we take for empty.
const HARMLESS: [&str; 3] = ["lost+found", LOCK, IDENTITY_TEMP];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// The operating system refused.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("data directory {} is in use by {}", .path.display(), describe(.holder))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who, as far as is known.
        holder: Holder,
    },
    /// It holds something and is not one of ours.
    #[error("{} is not a data directory: it has no {IDENTITY} and holds {}", .path.display(), .found.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: OsString,
    },
    /// It is for another use.
    #[error("data directory {} is of kind {found}, not {wanted}", .path.display())]
    WrongKind {
        /// The directory.
        path: PathBuf,
        /// What it is for.
        found: Kind,
        /// What it was opened for.
        wanted: Kind,
    },
    /// It belongs to another node.
    #[error("data directory {} belongs to node {found}, not node {wanted}", .path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The node it belongs to.
        found: u64,
        /// The node it was opened for.
        wanted: u64,
    },
    /// It belongs to another cluster.
    #[error("data directory {} belongs to cluster {found}, not cluster {wanted}", .path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The cluster it was opened for.
        wanted: ClusterId,
    },
    /// A newer version wrote it.
    #[error("{} has format {format}: it needs a newer prkdb, this one knows formats up to {FORMAT}", .path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        format: u32,
    },
    /// A file does not hold what was written.
    #[error("{} is damaged at {position}: expected {expected}, found {found}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its start.
        position: usize,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
    },
    /// The identity could not be put into JSON.
    #[error("encode identity")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
}

impl DirError {
    /// Returns its row in the table of errors.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } => ErrorCode::Io,
            Self::Locked { .. } => ErrorCode::Locked,
            Self::NotOurs { .. } | Self::WrongKind { .. } => ErrorCode::WrongDirectory,
            Self::OtherNode { .. } | Self::OtherCluster { .. } => ErrorCode::IdentityMismatch,
            Self::NewerFormat { .. } => ErrorCode::NewerFormat,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::Encode { .. } => ErrorCode::Internal,
        }
    }
}

fn describe(holder: &Holder) -> String {
    match (holder.pid, &holder.host) {
        (Some(pid), Some(host)) => format!("process {pid} on {host}"),
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => "another process".to_owned(),
    }
}

/// What a directory is opened for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The use.
    pub kind: Kind,
    /// The node.
    pub node_id: u64,
    /// The cluster, where it is known. Without it a new directory starts a new cluster, and an
    /// existing one keeps its own.
    pub cluster_id: Option<ClusterId>,
}

/// Whether a directory was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It got its identity now.
    New,
    /// It had one.
    Existing,
}

/// A directory that is to become a data directory, locked until this is dropped.
#[derive(Debug)]
pub struct Reserved(
    /// Never read: the lock ends when the file is closed.
    #[expect(dead_code, reason = "held, not read")]
    Arc<dyn DiskFile>,
);

/// A data directory that this process has locked, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    age: Age,
    privacy: Privacy,
    /// There was no room for the ballast at the start.
    lacks_ballast: AtomicBool,
    /// Never read: the lock ends when the file is closed.
    _lock: Arc<dyn DiskFile>,
}

impl DataDir {
    /// Locks a directory and checks whose it is; creates it with mode 0700 where it is missing, and
    /// gives it an identity where it is empty. When it returns, the identity is durable.
    ///
    /// # Errors
    /// `WrongDirectory` if it is not ours or of another kind; `IdentityMismatch` if it is another
    /// node's or cluster's; `Locked`, `NewerFormat`, `Corrupt`; `Io` for everything else, a missing
    /// parent directory too. A directory that is not ours is unchanged.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        wanted: &Wanted,
        clock: &dyn Clock,
        rng: &mut dyn Rng,
    ) -> Result<Self, DirError> {
        match disk.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created.map_err(|source| io_error("create", path, source))?,
        }
        check_ours(path, &names(disk, path)?)?;
        let privacy =
            disk.make_private(path).map_err(|source| io_error("make private", path, source))?;
        let lock = lock::lock(disk, path)?;
        // Looked at again: before the lock another process may have created the identity.
        let names = names(disk, path)?;
        check_ours(path, &names)?;
        let (identity, age) = if holds(&names, IDENTITY) {
            let identity = Identity::read(disk, path)?;
            check_wanted(path, &identity, wanted)?;
            // A process may have died between naming the file and syncing the name.
            sync_name(disk, &path.join(IDENTITY))?;
            (identity, Age::Existing)
        } else {
            // First the directory's own name: once there is an identity nobody syncs it again.
            sync_name(disk, path)?;
            remove_leftover(disk, path, &names)?;
            let identity = new_identity(wanted, clock, rng);
            identity.write(disk, path)?;
            (identity, Age::New)
        };
        let lacks_ballast = AtomicBool::new(false);
        Ok(Self { path: path.into(), identity, age, privacy, lacks_ballast, _lock: lock })
    }

    /// Says whose a directory is and changes nothing; `None` where there is nothing in it yet.
    ///
    /// # Errors
    /// As [`DataDir::open`]; `Locked` where a process uses it, which leaves the rest unknown.
    pub fn inspect(
        disk: &dyn Disk,
        path: &Path,
        wanted: &Wanted,
    ) -> Result<Option<Identity>, DirError> {
        let names = match disk.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It would be created, if there is somewhere to create it.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                disk.list(parent).map_err(|source| io_error("create", path, source))?;
                return Ok(None);
            }
            listed => listed.map_err(|source| io_error("read directory", path, source))?,
        };
        check_ours(path, &names)?;
        if !holds(&names, IDENTITY) {
            return Ok(None);
        }
        let identity = Identity::read(disk, path)?;
        check_wanted(path, &identity, wanted)?;
        match lock::holder(disk, path)? {
            Some(holder) => Err(DirError::Locked { path: path.into(), holder }),
            None => Ok(Some(identity)),
        }
    }

    /// Returns the name of something in a directory that is not taken for empty; `None` for one that is, and for
    /// one that does not exist.
    ///
    /// # Errors
    /// `Io`.
    pub fn first_name(disk: &dyn Disk, path: &Path) -> Result<Option<OsString>, DirError> {
        match disk.list(path) {
            Ok(names) => Ok(first_in(&names).cloned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read directory", path, source)),
        }
    }

    /// Locks a directory that is to become a data directory, as long as what it returns lives.
    ///
    /// # Errors
    /// `Locked` if another process has it; `Io`.
    pub fn reserve(disk: &dyn Disk, path: &Path) -> Result<Reserved, DirError> {
        lock::lock(disk, path).map(Reserved)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns whether it was used before.
    pub fn age(&self) -> Age {
        self.age
    }

    /// Returns whether others could enter it until now, which its user should be told.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// Makes sure, at a start, that the ballast is there; remembers that it is not.
    ///
    /// # Errors
    /// As [`DataDir::ensure_ballast`].
    pub fn begin_ballast(&self, disk: &dyn Disk) -> Result<(), DirError> {
        let done = self.ensure_ballast(disk);
        self.lacks_ballast.store(done.is_err(), Ordering::Release);
        done
    }

    /// Returns whether there was no room for the ballast at the start, and it is not there yet.
    pub fn lacks_ballast(&self) -> bool {
        self.lacks_ballast.load(Ordering::Acquire)
    }

    /// Makes sure that the ballast is there, with blocks, and durable.
    ///
    /// # Errors
    /// `Io`; a full disk is told by [`is_disk_full`](super::disk::is_disk_full) on the source.
    pub fn ensure_ballast(&self, disk: &dyn Disk) -> Result<(), DirError> {
        let path = self.path.join(BALLAST);
        let failed = |source| io_error("allocate", &path, source);
        let file = match disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.open(&path, Access::ReadWrite)
            }
            created => created,
        }
        .map_err(failed)?;
        // Also where the file has its length: whether its blocks were synced nobody knows.
        if let Err(source) = file.allocate(0, BALLAST_BYTES).and_then(|()| file.sync_all()) {
            // A part of it is no reserve, and takes the room that others are out of.
            let _removed = disk.remove(&path);
            return Err(failed(source));
        }
        sync_name(disk, &path)?;
        self.lacks_ballast.store(false, Ordering::Release);
        Ok(())
    }

    /// Gives the ballast up where the disk has no more room than that: a log that is opened may need some.
    ///
    /// # Errors
    /// `Io`.
    pub fn make_room(&self, disk: &dyn Disk) -> Result<(), DirError> {
        let space = disk.space(&self.path);
        let space = space.map_err(|source| io_error("ask for room on", &self.path, source))?;
        if space.free >= BALLAST_BYTES {
            return Ok(());
        }
        let path = self.path.join(BALLAST);
        match disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io_error("remove", &path, source)),
            Ok(()) => {
                let synced = disk.sync_dir(&self.path);
                synced.map_err(|source| io_error("sync", &self.path, source))
            }
        }
    }
}

fn new_identity(wanted: &Wanted, clock: &dyn Clock, rng: &mut dyn Rng) -> Identity {
    let cluster_id = wanted.cluster_id.unwrap_or_else(|| {
        let mut id = [0; 16];
        rng.fill(&mut id);
        ClusterId(id)
    });
    Identity {
        cluster_id,
        node_id: wanted.node_id,
        incarnation: rng.next_u64(),
        kind: wanted.kind,
        created_ms: clock.wall_ms(),
    }
}

fn names(disk: &dyn Disk, path: &Path) -> Result<Vec<OsString>, DirError> {
    disk.list(path).map_err(|source| io_error("read directory", path, source))
}

fn holds(names: &[OsString], name: &str) -> bool {
    names.iter().any(|found| found == name)
}

fn first_in(names: &[OsString]) -> Option<&OsString> {
    let is_harmless = |name: &OsStr| HARMLESS.iter().any(|harmless| name == *harmless);
    names.iter().find(|name| !is_harmless(name))
}

fn check_ours(path: &Path, names: &[OsString]) -> Result<(), DirError> {
    match first_in(names) {
        Some(found) if !holds(names, IDENTITY) => {
            Err(DirError::NotOurs { path: path.into(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

fn check_wanted(path: &Path, identity: &Identity, wanted: &Wanted) -> Result<(), DirError> {
    let path = || path.to_path_buf();
    if identity.kind != wanted.kind {
        return Err(DirError::WrongKind {
            path: path(),
            found: identity.kind,
            wanted: wanted.kind,
        });
    }
    if let Some(cluster_id) = wanted.cluster_id.filter(|id| *id != identity.cluster_id) {
        return Err(DirError::OtherCluster {
            path: path(),
            found: identity.cluster_id,
            wanted: cluster_id,
        });
    }
    if identity.node_id != wanted.node_id {
        return Err(DirError::OtherNode {
            path: path(),
            found: identity.node_id,
            wanted: wanted.node_id,
        });
    }
    Ok(())
}

fn remove_leftover(disk: &dyn Disk, path: &Path, names: &[OsString]) -> Result<(), DirError> {
    let temp = path.join(IDENTITY_TEMP);
    if holds(names, IDENTITY_TEMP) {
        disk.remove(&temp).map_err(|source| io_error("remove", &temp, source))?;
    }
    Ok(())
}

/// Makes a name durable in the directory it stands in.
fn sync_name(disk: &dyn Disk, path: &Path) -> Result<(), DirError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    disk.sync_dir(parent).map_err(|source| io_error("sync directory", parent, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> DirError {
    DirError::Io { action, path: path.into(), source }
}
