//! Which snapshot a manifest is.
//!
//! A snapshot is a version of the manifest with the files that it names: the checkpoint, and the segments up
//! to its entry.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{
    codec::Take,
    file::{FORMAT, Fault, Kind, Reader},
    manifest::{self, Found, Manifest, checkpoint_name},
};
use crate::storage::{
    StorageError,
    disk::{Access, Disk},
    kv::state::Head,
    log::{entry::LogId, segment},
};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotVersion {
    /// Counts the manifests of a shard.
    pub generation: u64,
    /// The last entry in it.
    pub applied: LogId,
    /// The membership there, with the entry that set it.
    pub membership: Option<(LogId, Bytes)>,
    /// Bytes of its files.
    pub bytes: u64,
    /// The manifest.
    pub manifest: Bytes,
}

/// A snapshot that was looked at as files.
#[derive(Debug)]
pub struct SnapshotReport {
    /// Which it is.
    pub version: SnapshotVersion,
    /// The shard.
    pub shard: u32,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Its files; the manifest comes first.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Where it is.
    pub path: PathBuf,
    /// How many of its bytes belong to the snapshot.
    pub len: u64,
}

impl Manifest {
    /// Returns the names of the files that it names, and how many bytes of each count.
    pub(in crate::storage) fn files(&self) -> Vec<(String, u64)> {
        let resume = &self.resume;
        let checkpoint = (checkpoint_name(resume.log_id, self.generation), self.checkpoint_bytes);
        let segments = resume.sealed.iter().copied().chain([(resume.segment, resume.position)]);
        let named =
            segments.map(|(number, len)| (segment::any_file_name(resume.log_id, number), len));
        [checkpoint].into_iter().chain(named).collect()
    }

    /// Returns which snapshot this is; `bytes` is the manifest itself.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Corrupt`] for a checkpoint whose state cannot be read.
    pub(in crate::storage) fn version(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        bytes: Vec<u8>,
    ) -> Result<SnapshotVersion, StorageError> {
        let mut reader = self.checkpoint(disk, dir)?;
        let path = dir.join(checkpoint_name(self.resume.log_id, self.generation));
        let mut content = Vec::new();
        let head = reader.next_of(Kind::State, &mut content);
        let head = head.and_then(|()| Ok(Head::load(&mut Take(&content))?));
        let head = head.map_err(|fault| fault.at(&path))?;
        if head.applied != self.resume.applied {
            return Err(Fault::Damaged.at(&path));
        }
        let files: u64 = self.files().iter().map(|(_, len)| *len).sum();
        Ok(SnapshotVersion {
            generation: self.generation,
            applied: head.applied,
            membership: head.membership,
            bytes: files + bytes.len() as u64,
            manifest: bytes.into(),
        })
    }

    fn checkpoint(&self, disk: &dyn Disk, dir: &Path) -> Result<Reader, StorageError> {
        let path = dir.join(checkpoint_name(self.resume.log_id, self.generation));
        let file = disk.open(&path, Access::Read);
        let file = file.map_err(StorageError::io("read checkpoint", &path))?;
        let len = file.len().map_err(StorageError::io("read checkpoint", &path))?;
        if len != self.checkpoint_bytes {
            return Err(Fault::Damaged.at(&path));
        }
        Reader::begin(file, len, self.resume.log_id, self.resume.applied)
            .map_err(|fault| fault.at(&path))
    }
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> StorageError {
        match self {
            Self::Io(error) => StorageError::io("read checkpoint", path)(error),
            Self::Damaged => StorageError::Corrupt {
                path: path.to_path_buf(),
                position: 0,
                expected: "a checkpoint".to_owned(),
                found: "one that does not verify".to_owned(),
            },
            Self::Format(found) => {
                StorageError::NewerFormat { path: path.to_path_buf(), found, known: FORMAT }
            }
        }
    }
}

/// Looks at the snapshot that a manifest is, without changing anything: the manifest and every section of the
/// checkpoint are checked, and that the segments are there and long enough.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::NewerFormat`], [`StorageError::Io`].
pub fn inspect_snapshot(disk: &dyn Disk, path: &Path) -> Result<SnapshotReport, StorageError> {
    let manifest = match manifest::read_any(disk, path)? {
        Found::Whole(manifest) => manifest,
        Found::Damaged => return Err(manifest::damaged(path)),
        Found::Missing => {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StorageError::io("read manifest", path)(missing));
        }
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let bytes = manifest.encode().map_err(StorageError::io("encode manifest", path))?;
    let own = SnapshotFile { path: path.to_path_buf(), len: bytes.len() as u64 };
    let version = manifest.version(disk, dir, bytes)?;
    let mut reader = manifest.checkpoint(disk, dir)?;
    let mut content = Vec::new();
    let checkpoint = dir.join(checkpoint_name(manifest.resume.log_id, manifest.generation));
    while reader.next(&mut content).map_err(|fault| fault.at(&checkpoint))?.is_some() {}
    let mut files = vec![own];
    for (name, len) in manifest.files() {
        let path = dir.join(name);
        let failed = |source| StorageError::io("read file of a snapshot", &path)(source);
        let found = disk.open(&path, Access::Read).and_then(|file| file.len()).map_err(failed)?;
        if found < len {
            return Err(StorageError::Corrupt {
                path,
                position: found,
                expected: format!("{len} bytes"),
                found: "the end of the file".to_owned(),
            });
        }
        files.push(SnapshotFile { path, len });
    }
    let Manifest { shard, cluster_id, .. } = *manifest;
    Ok(SnapshotReport { version, shard, cluster_id, files })
}
