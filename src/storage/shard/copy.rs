//! A shard as files, as it was at one entry: a snapshot, and what a backup is made of.
//!
//! The files are those of its checkpoint: the manifest, the checkpoint, and the segments up to the entry.
//! None of them changes any more. Whoever holds a copy pins them: a handle stays valid, and the room taken,
//! when a later checkpoint or a cleaning removes the name.

use std::{
    io::IoSlice,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use bytes::{Bytes, BytesMut};

use super::Shard;
use crate::storage::{
    StorageError,
    checkpoint::{MANIFEST, Manifest, SnapshotVersion, adopt as adopt_manifest, current},
    disk::{Access, Disk, DiskFile},
    log::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader},
};

/// Files that together are a shard.
#[derive(Debug)]
pub struct ShardCopy {
    /// Which snapshot it is. As long as somebody holds this, the shard knows that it is read.
    pub version: Arc<SnapshotVersion>,
    /// The files.
    pub parts: Vec<CopyPart>,
}

/// One of the files.
#[derive(Debug)]
pub struct CopyPart {
    /// Its name.
    pub name: String,
    /// How many of its bytes belong to the copy.
    pub len: u64,
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(Arc<dyn DiskFile>),
    /// The manifest: its name is that of the next one, too.
    Memory(Bytes),
}

impl CopyPart {
    /// Returns the file, and what it is called in messages; `None` for the manifest.
    pub(super) fn file(&self) -> Option<(Arc<dyn DiskFile>, &Path)> {
        match &self.source {
            Source::File(file) => Some((Arc::clone(file), &self.path)),
            Source::Memory(_) => None,
        }
    }

    /// Reads bytes of it, fewer at its end.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Corrupt`] where the file is shorter than it was.
    pub fn read(&self, position: u64, len: usize) -> Result<Bytes, StorageError> {
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let file = match &self.source {
            Source::File(file) => file,
            Source::Memory(bytes) => {
                let start = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(bytes.slice(start..start + len.min(left)));
            }
        };
        let mut bytes = BytesMut::zeroed(len.min(left));
        let read = file
            .read_at(position, &mut bytes)
            .map_err(StorageError::io("read for a copy", &self.path))?;
        if read < bytes.len() {
            return Err(StorageError::Corrupt {
                path: self.path.clone(),
                position: position + read as u64,
                expected: format!("{} bytes", self.len),
                found: "the end of the file".to_owned(),
            });
        }
        Ok(bytes.freeze())
    }
}

impl ShardCopy {
    /// Opens the copy of a shard that was made in a directory; `None` where there is no manifest.
    ///
    /// # Errors
    /// As [`Shard::copy`], and [`StorageError::Foreign`].
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        shard: u32,
        cluster_id: [u8; 16],
    ) -> Result<Option<Self>, StorageError> {
        let found = current(disk, dir, shard, cluster_id)?;
        let copy = |(manifest, bytes)| copy_of((disk, dir), &manifest, bytes, &|_, _| None);
        found.map(copy).transpose()
    }

    /// Returns one of the files.
    pub(super) fn part(&self, name: &str) -> Result<(Arc<dyn DiskFile>, &Path), StorageError> {
        let part = self.parts.iter().find(|part| part.name == name).and_then(CopyPart::file);
        part.ok_or_else(|| StorageError::Snapshot {
            index: self.version.applied.index,
            reason: format!("it has no file {name}"),
        })
    }
}

impl Shard {
    /// Returns the shard as its last checkpoint has it; `None` where there is none.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Corrupt`] for a manifest or checkpoint that is damaged.
    pub fn copy(&self) -> Result<Option<ShardCopy>, StorageError> {
        let opened = |name: &str, path: &Path| self.opened(name, path);
        let copy = self.of_manifest(|disk, dir, manifest, bytes| {
            copy_of((disk, dir), manifest, bytes, &opened)
        })?;
        if let Some(copy) = &copy {
            let mut known = self.checkpoints();
            known.copied.retain(|version| version.strong_count() > 0);
            known.copied.push(Arc::downgrade(&copy.version));
        }
        Ok(copy)
    }

    /// Returns a segment's file, which is open: a log has many, and a process may open so many.
    fn opened(&self, name: &str, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let (_, number) = segment::parse_any_file_name(name)?;
        let segment = self.segments.get(number)?;
        (segment.path == path).then(|| Arc::clone(&segment.file))
    }

    /// Returns the snapshots that are there, each with how many hold a copy of it: the last one, and
    /// older ones that are still held.
    ///
    /// # Errors
    /// As [`Shard::copy`].
    pub fn snapshots(&self) -> Result<Vec<(Arc<SnapshotVersion>, usize)>, StorageError> {
        let last = self.of_manifest(|disk, dir, manifest, bytes| {
            manifest.version(disk, dir, bytes).map(Arc::new)
        })?;
        let copied = self.checkpoints().copied.clone();
        let mut found: Vec<(Arc<SnapshotVersion>, usize)> =
            last.into_iter().map(|version| (version, 0)).collect();
        for version in copied.iter().filter_map(Weak::upgrade) {
            match found.iter_mut().find(|(known, _)| known.generation == version.generation) {
                Some((_, holders)) => *holders += 1,
                None => found.push((version, 1)),
            }
        }
        found.sort_by_key(|(version, _)| version.generation);
        Ok(found)
    }

    /// Reads what the last manifest names; again where a later checkpoint has removed it meanwhile.
    fn of_manifest<T>(
        &self,
        read: impl Fn(&dyn Disk, &Path, &Manifest, Vec<u8>) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let (disk, dir) = {
            let log = self.log();
            let (disk, dir, _) = log.home();
            (disk, dir.to_path_buf())
        };
        let mut missed = None;
        loop {
            let Some((manifest, bytes)) =
                current(disk.as_ref(), &dir, self.number, self.cluster_id)?
            else {
                return Ok(None);
            };
            match read(disk.as_ref(), &dir, &manifest, bytes) {
                // There is another manifest by now, or something is wrong.
                Err(StorageError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound
                        && missed != Some(manifest.generation) =>
                {
                    missed = Some(manifest.generation);
                }
                found => return found.map(Some),
            }
        }
    }
}

fn copy_of(
    (disk, dir): (&dyn Disk, &Path),
    manifest: &Manifest,
    manifest_bytes: Vec<u8>,
    opened: &dyn Fn(&str, &Path) -> Option<Arc<dyn DiskFile>>,
) -> Result<ShardCopy, StorageError> {
    let open = |name: String, len: u64| {
        let path = dir.join(&name);
        let file = match opened(&name, &path) {
            Some(file) => file,
            None => disk
                .open(&path, Access::Read)
                .map_err(StorageError::io("open for a copy", &path))?,
        };
        Ok::<_, StorageError>(CopyPart { name, len, path, source: Source::File(file) })
    };
    let version = manifest.version(disk, dir, manifest_bytes)?;
    let mut parts = vec![CopyPart {
        name: MANIFEST.to_owned(),
        len: version.manifest.len() as u64,
        path: dir.join(MANIFEST),
        source: Source::Memory(version.manifest.clone()),
    }];
    for (name, len) in manifest.files() {
        parts.push(open(name, len)?);
    }
    Ok(ShardCopy { version: Arc::new(version), parts })
}

/// Makes a copy's file one of another cluster, where it says whose it is: a segment in its first page,
/// and the manifest. Every other file is left as it is.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Io`].
pub fn adopt(
    disk: &dyn Disk,
    path: &Path,
    shard: u32,
    (old, new): ([u8; 16], [u8; 16]),
) -> Result<(), StorageError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name == MANIFEST {
        return adopt_manifest(disk, path, shard, old, new);
    }
    let Some((log_id, number)) = segment::parse_any_file_name(name) else { return Ok(()) };
    let failed = |source| StorageError::io("rewrite segment header", path)(source);
    let file = disk.open(path, Access::ReadWrite).map_err(failed)?;
    let mut page = Box::new([0; SEGMENT_HEADER_BYTES]);
    file.read_at(0, page.as_mut_slice()).map_err(failed)?;
    let header = SegmentHeader::decode(&page, log_id, number);
    let Some(header) =
        header.ok().filter(|header| (header.shard, header.cluster_id) == (shard, old))
    else {
        return Err(StorageError::Corrupt {
            path: path.to_path_buf(),
            position: 0,
            expected: format!("the header of segment {number} of shard {shard}"),
            found: "another".to_owned(),
        });
    };
    let page = SegmentHeader { cluster_id: new, ..header }.encode();
    file.write_at(0, &[IoSlice::new(page.as_slice())]).map_err(failed)?;
    file.sync_data().map_err(failed)
}
