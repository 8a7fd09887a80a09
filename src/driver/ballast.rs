//! The reserve of a data directory.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Reserve;
use crate::storage::{
    dir::{BALLAST, DataDir, DirError},
    disk::Disk,
};

/// What a full disk is met with: a file, and the right to open some, that can be given up.
#[derive(Debug)]
pub(crate) struct Ballast {
    directory: Arc<DataDir>,
    disk: Arc<dyn Disk>,
    spare: Mutex<Vec<File>>,
}

/// Files that one shard keeps open to be given up: entries under way may need a segment each.
const SPARE_FILES: usize = 32;

impl Ballast {
    /// Returns the reserve of a directory, which has its ballast.
    pub(crate) fn new(directory: &Arc<DataDir>, disk: Arc<dyn Disk>) -> Self {
        let ballast = Self { directory: Arc::clone(directory), disk, spare: Mutex::default() };
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
        let removed = self.disk.remove(&self.directory.path().join(BALLAST));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.disk.sync_dir(self.directory.path()),
        }
    }

    fn restore(&self) -> io::Result<()> {
        if self.spare().is_empty() {
            self.open_spare()?;
        }
        self.directory
            .ensure_ballast(self.disk.as_ref())
            .map_err(|error: DirError| io::Error::other(error))
    }

    fn is_lacking(&self) -> bool {
        self.directory.lacks_ballast()
    }
}
