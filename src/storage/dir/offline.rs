//! A data directory that is looked at, or mended, while no node runs on it.
//!
//! Reading takes the lock together with other readers and writes nothing, not even the name of who
//! has it. Changing takes the lock alone, as a node does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{DirError, Holder, Identity, check_ours, io_error, lock, names};
use crate::storage::disk::{Disk, DiskFile};

/// What a directory is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be read; no node may start meanwhile.
    Read,
    /// To be read whether a node runs or not: what is read may change meanwhile.
    ReadLive,
    /// To be changed.
    Change,
}

/// A data directory and whose it is.
#[derive(Debug)]
pub struct OfflineDir {
    path: PathBuf,
    identity: Identity,
    holder: Option<Holder>,
    /// Never read: the lock ends when the file is closed.
    _lock: Option<Arc<dyn DiskFile>>,
}

/// The number is written with so many digits.
const SHARD_DIGITS: usize = 10;
const SHARD_PREFIX: &str = "shard-";

impl OfflineDir {
    /// Opens a directory that has an identity.
    ///
    /// # Errors
    /// `Locked` where a process uses it; `WrongDirectory` if it is not ours; `NewerFormat`,
    /// `Corrupt`; `Io` for everything else, a missing directory or identity too.
    pub fn open(disk: &dyn Disk, path: &Path, usage: Use) -> Result<Self, DirError> {
        check_ours(path, &names(disk, path)?)?;
        let identity = Identity::read(disk, path)?;
        let (lock, holder) = match usage {
            Use::Read => (lock::share(disk, path)?, None),
            Use::ReadLive => (None, lock::holder(disk, path)?),
            Use::Change => (Some(lock::lock(disk, path)?), None),
        };
        Ok(Self { path: path.into(), identity, holder, _lock: lock })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the process that runs on it; only of a directory opened for [`Use::ReadLive`].
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Gives another directory, which has none, the same identity.
    ///
    /// # Errors
    /// `Io`.
    pub fn copy_identity(&self, disk: &dyn Disk, to: &Path) -> Result<(), DirError> {
        self.identity.write(disk, to)
    }

    /// Returns the numbers of the shards that have a directory, in order.
    ///
    /// # Errors
    /// `Io`.
    pub fn shards(&self, disk: &dyn Disk) -> Result<Vec<u32>, DirError> {
        let found = disk.list(&self.path).map_err(|source| io_error("list", &self.path, source))?;
        let number = |name: &str| {
            let digits = name.strip_prefix(SHARD_PREFIX)?;
            let is_number =
                digits.len() == SHARD_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let mut numbers: Vec<u32> =
            found.iter().filter_map(|name| name.to_str().and_then(number)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Returns the directory of a shard's log.
    pub fn shard_path(&self, shard: u32) -> PathBuf {
        shard_path(&self.path, shard)
    }
}

/// Returns the directory of a shard's log in a data directory.
fn shard_path(dir: &Path, shard: u32) -> PathBuf {
    dir.join(format!("{SHARD_PREFIX}{shard:0SHARD_DIGITS$}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::{
        clock::{ManualClock, SeededRng},
        dir::{DataDir, Kind, Wanted},
        disk::RealDisk,
    };

    fn used(path: &Path) -> DataDir {
        let wanted = Wanted { kind: Kind::Node, node_id: 7, cluster_id: None };
        let (clock, mut rng) = (ManualClock::new(5), SeededRng::new(1));
        DataDir::open(&RealDisk, path, &wanted, &clock, &mut rng).unwrap()
    }

    fn is_locked(opened: Result<OfflineDir, DirError>) -> bool {
        matches!(opened, Err(DirError::Locked { holder, .. })
            if holder.pid == Some(std::process::id()))
    }

    #[test]
    fn readers_share_and_keep_others_out() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        let node = used(&path);
        let open = |usage| OfflineDir::open(&RealDisk, &path, usage);
        assert!(is_locked(open(Use::Read)) && is_locked(open(Use::Change)));
        let live = open(Use::ReadLive).unwrap();
        assert_eq!(live.holder().unwrap().pid, Some(std::process::id()));
        drop(node);
        let text = fs::read(path.join("LOCK")).unwrap();
        let first = open(Use::Read).unwrap();
        let second = open(Use::Read).unwrap();
        assert!(is_locked(open(Use::Change)));
        assert_eq!(fs::read(path.join("LOCK")).unwrap(), text, "a reader writes no name");
        drop((first, second));
        let changing = open(Use::Change).unwrap();
        assert!(is_locked(open(Use::Read)));
        assert_eq!(changing.identity().node_id, 7);
    }

    #[test]
    fn a_directory_without_a_lock_is_read_and_nothing_is_made_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        drop(used(&path));
        fs::remove_file(path.join("LOCK")).unwrap();
        for name in ["shard-0000000010", "shard-0000000002", "shard-1", "shard-+000000003"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let dir = OfflineDir::open(&RealDisk, &path, Use::Read).unwrap();
        assert_eq!(dir.shards(&RealDisk).unwrap(), [2, 10]);
        assert_eq!(dir.shard_path(2), path.join("shard-0000000002"));
        assert!(!path.join("LOCK").exists());
    }
}
