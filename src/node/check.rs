//! Reading a data directory as a start would, without changing anything.
//!
//! Recovery reads and judges a log before it writes its first byte; the disk refuses every change, so
//! that it stays so.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use super::{Config, NodeError, boot};
use crate::storage::{
    Shard,
    clock::{Clock as _, SystemClock},
    dir::{DataDir, DirError, Holder},
    disk::{Access, Disk, DiskFile, Privacy, RealDisk, Space},
};

/// What a check found where nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is no data yet.
    New,
    /// Every log was read.
    Sound,
    /// A running node uses the directory; its logs were not read.
    InUse(Holder),
}

/// Checks configuration and data directory.
///
/// # Errors
/// Those that a start would end with, but for a directory in use.
pub fn check(config: &Config) -> Result<Checked, NodeError> {
    config.check()?;
    let disk = Unchanging(RealDisk);
    let parent = config.data_dir.parent().unwrap_or(Path::new("."));
    if config.creates_parent && !disk.exists(parent).unwrap_or(true) {
        return Ok(Checked::New);
    }
    let identity = match DataDir::inspect(&disk, &config.data_dir, &boot::wanted(config)) {
        Ok(None) => return Ok(Checked::New),
        Ok(Some(identity)) => identity,
        Err(DirError::Locked { holder, .. }) => return Ok(Checked::InUse(holder)),
        Err(error) => return Err(error.into()),
    };
    let now_ms = SystemClock::new().wall_ms();
    for number in boot::existing_shards(&disk, &config.data_dir)? {
        let dir = boot::shard_dir(&config.data_dir, number);
        let options = boot::shard_options(config, identity.cluster_id.0, number);
        Shard::judge(Arc::new(disk), &dir, &options, &mut boot::random(&dir)?, now_ms)
            .map_err(|source| NodeError::Shard { shard: number, source })?;
    }
    Ok(Checked::Sound)
}

/// A disk that can be read; syncs have nothing to do, and everything else is refused.
#[derive(Clone, Copy, Debug)]
struct Unchanging(RealDisk);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Unchanging {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.0.list(dir)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnchangingFile(self.0.open(path, Access::Read)?)))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn make_private(&self, _: &Path) -> io::Result<Privacy> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
}

#[derive(Debug)]
struct UnchangingFile(Arc<dyn DiskFile>);

impl DiskFile for UnchangingFile {
    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<()> {
        refused()
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(position, into)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    // Also for the lock, which is looked at and not taken.
    fn map_source(&self) -> Option<&File> {
        self.0.map_source()
    }
}
