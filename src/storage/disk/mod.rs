//! The disk as storage sees it: files that are written at a position and synced by name.
//!
//! Everything the engine does to a file goes through [`Disk`] and [`DiskFile`]. [`RealDisk`] is a
//! directory of the operating system; the simulated disk loses what was not synced and fails when it
//! is told to. Both keep the same contract:
//!
//! - What a file *contains* is durable after [`DiskFile::sync_data`]; that it has a *name* is durable
//!   after [`Disk::sync_dir`] of its directory. Neither implies the other.
//! - A write is complete or an error. After an error nobody knows which part arrived; after a failed
//!   sync nobody knows what is durable. Nothing here repeats a failed write or sync.
//! - A handle stays valid when its file is renamed or removed.

mod read_only;
mod real;
#[doc(hidden)]
pub mod sim;

use std::{
    ffi::OsString,
    fmt::Debug,
    fs::File,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

pub use read_only::ReadOnlyDisk;
pub use real::{RealDisk, is_disk_full, is_out_of_files};

/// What a handle to an existing file may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading, writing and syncing.
    ReadWrite,
}

/// Who could enter a directory before [`Disk::make_private`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Its owner alone.
    WasPrivate,
    /// Its group or others too; not any more.
    Tightened,
}

/// The room of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What an unprivileged process may still use.
    pub free: u64,
}

/// Directories and names.
///
/// Every method returns the operating system's error unchanged; the caller knows the path and adds
/// it. A missing file or directory is [`io::ErrorKind::NotFound`].
pub trait Disk: Send + Sync + Debug {
    /// Creates one directory with mode 0700. Its name is durable after `sync_dir` of its parent.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; `NotFound` if the parent is missing.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns the names in a directory, sorted by their bytes, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound` or `NotADirectory`.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Creates a file with mode 0600 and opens it for reading and writing. A symbolic link is not
    /// followed. Its name is durable after `sync_dir` of its directory.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file. A symbolic link is not followed.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing the file that had it, in one step. Durable after
    /// `sync_dir` of the directory.
    ///
    /// # Errors
    /// `NotFound` if `from` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after `sync_dir` of its directory.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns whether the name is taken, by whatever it is.
    ///
    /// # Errors
    /// Any failure but a missing name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes all rights to a directory from its group and from others.
    ///
    /// # Errors
    /// `PermissionDenied` if it belongs to somebody else.
    fn make_private(&self, dir: &Path) -> io::Result<Privacy>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Whatever the operating system says; the names are then of unknown durability.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Returns the room of the file system that holds the directory.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// One open file. Positions and lengths are bytes from its start.
#[expect(clippy::len_without_is_empty, reason = "the length is a system call; nobody asks for 0")]
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all slices, end to end, at a position. Not durable before a sync.
    ///
    /// # Errors
    /// `WriteZero` if the disk takes nothing more; on any error an unknown part was written. A full
    /// disk or quota is told by [`is_disk_full`].
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads until `into` is full or the file ends, and returns how many bytes were read.
    ///
    /// # Errors
    /// Whatever the operating system says; `into` then has unknown content.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Returns the length.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file to a length, or extends it with zeros that have no blocks.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Gives blocks to `len` bytes from `from`, extending the file if it is shorter: writing there
    /// later cannot meet a full disk. Bytes that were written keep their content.
    ///
    /// # Errors
    /// A full disk or quota is told by [`is_disk_full`].
    fn allocate(&self, from: u64, len: u64) -> io::Result<()>;

    /// Makes content and length durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the operating system says; what was written since the last sync is then of unknown
    /// durability, and a second sync that succeeds proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content, length and attributes durable (`fsync`).
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Says that bytes will be read soon, so that the disk may fetch them meanwhile. Only a hint.
    fn will_need(&self, position: u64, len: u64);

    /// Returns the file to map into memory; `None` where there is no file of the operating system.
    fn map_source(&self) -> Option<&File>;
}
