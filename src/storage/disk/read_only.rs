//! A disk through which nothing can be changed, whatever the caller asks for.

use std::{ffi::OsString, io, path::Path, sync::Arc};

use super::{Access, Disk, DiskFile, Privacy, Space};

/// Passes on what reads, and refuses the rest. Files are opened for reading alone: a write through a
/// handle fails by the rules of the disk behind it.
#[derive(Clone, Debug)]
pub struct ReadOnlyDisk {
    inner: Arc<dyn Disk>,
}

impl ReadOnlyDisk {
    /// Returns a view of a disk.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(path, Access::Read)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn make_private(&self, _: &Path) -> io::Result<Privacy> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.inner.space(dir)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::storage::disk::sim::SimDisk;

    #[test]
    fn what_changes_is_refused_and_what_reads_is_not() {
        let disk = SimDisk::new();
        let path = Path::new("/a");
        disk.create(path).unwrap().write_at(0, &[IoSlice::new(b"abc")]).unwrap();
        let before = disk.hash();
        let view = ReadOnlyDisk::new(Arc::new(disk.clone()));
        let other = Path::new("/b");
        assert!(view.create(other).is_err() && view.create_dir(other).is_err());
        assert!(view.rename(path, other).is_err() && view.remove(path).is_err());
        assert!(view.make_private(Path::new("/")).is_err());
        assert!(view.sync_dir(Path::new("/")).is_err());
        let file = view.open(path, Access::ReadWrite).unwrap();
        assert!(file.write_at(0, &[IoSlice::new(b"x")]).is_err());
        assert!(file.truncate(0).is_err() && file.allocate(0, 9).is_err());
        let mut bytes = [0; 3];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 3);
        assert_eq!((&bytes, disk.hash()), (b"abc", before));
    }
}
