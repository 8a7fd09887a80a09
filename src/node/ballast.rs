//! What is given up when the disk is full, so that what was admitted can still be written.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::driver::Reserve;
use crate::storage::{
    dir::{BALLAST, DataDir, DirError},
    disk::{Disk, RealDisk},
};

/// What a full disk is met with: a file, and the right to open some, that can be given up.
#[derive(Debug)]
pub(super) struct Ballast {
    directory: Arc<DataDir>,
    spare: Mutex<Vec<File>>,
}

/// Files that one shard keeps open to be given up: entries under way may need a segment each.
const SPARE_FILES: usize = 32;

impl Ballast {
    pub(super) fn new(directory: &Arc<DataDir>) -> Self {
        let ballast = Self { directory: Arc::clone(directory), spare: Mutex::default() };
        // Without them the node serves as well, until files run out.
        let _later = ballast.open_spare();
        ballast
    }

    fn open_spare(&self) -> io::Result<()> {
        let files: io::Result<Vec<File>> =
            (0..SPARE_FILES).map(|_| File::open("/dev/null")).collect();
        *self.spare() = files?;
        Ok(())
    }

    fn spare(&self) -> MutexGuard<'_, Vec<File>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserve for Ballast {
    fn release(&self) -> io::Result<()> {
        self.spare().clear();
        let removed = RealDisk.remove(&self.directory.path().join(BALLAST));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => RealDisk.sync_dir(self.directory.path()),
        }
    }

    fn restore(&self) -> io::Result<()> {
        if self.spare().is_empty() {
            self.open_spare()?;
        }
        self.directory.ensure_ballast(&RealDisk).map_err(|error: DirError| io::Error::other(error))
    }
}
