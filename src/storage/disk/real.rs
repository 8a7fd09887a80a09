//! The disk of the operating system.
//!
//! Owns the flags files are opened with and the loops that make a write or a read complete. An
//! interrupted read or write goes on; a sync is called once. Knows nothing of what is stored.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, IoSlice},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{Access, Disk, DiskFile, Privacy, Space};

/// What Linux takes in one vectored call (`IOV_MAX`).
const SLICES_PER_CALL_MAX: usize = 1024;

/// How much the fall-back for file systems without `fallocate` writes at once.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// Returns whether the error says that the disk, or the quota on it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns whether the error says that the process, or the system, may open no more files.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    fn open_with(path: &Path, flags: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = retry_on_intr(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(Arc::new(RealFile { file: File::from(file) }))
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Self::open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Self::open_with(
            path,
            match access {
                Access::Read => OFlags::RDONLY,
                Access::ReadWrite => OFlags::RDWR,
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn make_private(&self, dir: &Path) -> io::Result<Privacy> {
        let mut permissions = fs::metadata(dir)?.permissions();
        let mode = Mode::from_raw_mode(permissions.mode());
        if !mode.intersects(Mode::RWXG | Mode::RWXO) {
            return Ok(Privacy::WasPrivate);
        }
        permissions.set_mode((mode & Mode::RWXU).as_raw_mode());
        fs::set_permissions(dir, permissions)?;
        Ok(Privacy::Tightened)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| rustix::fs::open(dir, flags, Mode::empty()))?;
        Ok(rustix::fs::fsync(dir)?)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = retry_on_intr(|| rustix::fs::statvfs(dir))?;
        Ok(Space {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl RealFile {
    /// Extends the file by written zeros: what `fallocate` does, for file systems that lack it.
    /// What lies within its length stays as it is; a hole there stays one.
    fn write_zeros_to(&self, end: u64) -> io::Result<()> {
        let mut position = self.len()?;
        while position < end {
            let count = usize::try_from(end - position).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            let zeros = ZEROS.get(..count).unwrap_or(ZEROS);
            self.write_at(position, &[IoSlice::new(zeros)])?;
            position += byte_count(zeros.len());
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut position = position;
        let mut owned = slices.to_vec();
        let mut rest = owned.as_mut_slice();
        // An advance by nothing drops empty slices in front, so that "nothing left" is "empty".
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = rest.get(..SLICES_PER_CALL_MAX).unwrap_or(rest);
            let written = retry_on_intr(|| rustix::io::pwritev(&self.file, now, position))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            position += byte_count(written);
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = into.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let at = position + byte_count(read);
            let count = retry_on_intr(|| rustix::io::pread(&self.file, &mut *rest, at))?;
            if count == 0 {
                break;
            }
            read += count;
        }
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let done =
            retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, len));
        match done {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros_to(from.saturating_add(len)),
            done => Ok(done?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.file)?)
    }

    fn will_need(&self, position: u64, len: u64) {
        let len = std::num::NonZeroU64::new(len);
        let advice = rustix::fs::Advice::WillNeed;
        // A hint that is refused changes nothing.
        let _heard = rustix::fs::fadvise(&self.file, position, len, advice);
    }

    fn map_source(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// Converts a count of bytes in memory to one in a file.
fn byte_count(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(file: &dyn DiskFile) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn more_slices_than_one_call_takes_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        let numbers: Vec<[u8; 2]> = (0..2_500_u16).map(u16::to_le_bytes).collect();
        let mut slices: Vec<_> = numbers.iter().map(|n| IoSlice::new(n)).collect();
        slices.insert(0, IoSlice::new(&[]));
        file.write_at(3, &slices).unwrap();
        let bytes = read_all(&*file);
        assert_eq!(bytes[..3], [0; 3]);
        assert_eq!(bytes[3..], numbers.concat());
    }

    #[test]
    fn a_read_stops_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.write_at(0, &[IoSlice::new(b"abcdef")]).unwrap();
        let mut into = [0; 8];
        assert_eq!(file.read_at(2, &mut into).unwrap(), 4);
        assert_eq!(&into[..4], b"cdef");
        assert_eq!(file.read_at(6, &mut into).unwrap(), 0);
    }

    #[test]
    fn allocation_extends_and_keeps_content_with_and_without_the_system_call() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let file = RealFile {
                file: File::options()
                    .create_new(true)
                    .read(true)
                    .write(true)
                    .open(dir.path().join(name))
                    .unwrap(),
            };
            file.write_at(0, &[IoSlice::new(b"kept")]).unwrap();
            match name {
                "a" => file.allocate(0, 200_000).unwrap(),
                _ => file.write_zeros_to(200_000).unwrap(),
            }
            let bytes = read_all(&file);
            assert_eq!(bytes.len(), 200_000);
            assert_eq!(&bytes[..4], b"kept");
            assert!(bytes[4..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn created_names_are_private_new_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        RealDisk.create_dir(&sub).unwrap();
        assert_eq!(RealDisk.create_dir(&sub).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for name in ["b", "a", "c"] {
            drop(RealDisk.create(&sub.join(name)).unwrap());
        }
        assert_eq!(
            RealDisk.create(&sub.join("a")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        RealDisk.rename(&sub.join("c"), &sub.join("a")).unwrap();
        RealDisk.sync_dir(&sub).unwrap();
        assert_eq!(RealDisk.list(&sub).unwrap(), ["a", "b"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&sub), mode(&sub.join("a"))), (0o700, 0o600));
        assert!(RealDisk.exists(&sub.join("a")).unwrap());
        assert!(!RealDisk.exists(&sub.join("c")).unwrap());
        assert!(RealDisk.space(&sub).unwrap().free > 0);
    }

    #[test]
    fn a_symbolic_link_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        drop(RealDisk.create(&target).unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(RealDisk.open(&target, Access::Read).is_ok());
        assert!(RealDisk.open(&link, Access::Read).is_err());
    }

    #[test]
    fn a_full_disk_and_a_full_quota_are_the_same() {
        for (errno, full) in [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::IO, false)] {
            assert_eq!(is_disk_full(&errno.into()), full);
        }
    }
}
