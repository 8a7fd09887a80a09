//! A shard as files, as it was at one entry: what a backup is made of.
//!
//! The files are those of its checkpoint: the manifest, the checkpoint, and the segments up to the entry.
//! None of them changes any more, and a handle stays valid when a later checkpoint removes the name.

use std::{
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use super::Shard;
use crate::storage::{
    StorageError,
    checkpoint::{MANIFEST, Manifest, adopt as adopt_manifest, checkpoint_name, current},
    disk::{Access, Disk, DiskFile},
    log::{
        entry::LogId,
        segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
};

/// Files that together are a shard.
#[derive(Debug)]
pub struct ShardCopy {
    /// The last entry in it.
    pub applied: LogId,
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

impl Shard {
    /// Returns the shard as its last checkpoint has it; `None` where there is none.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Corrupt`] for a manifest or checkpoint that is damaged.
    pub fn copy(&self) -> Result<Option<ShardCopy>, StorageError> {
        let (disk, dir) = {
            let log = self.log();
            let (disk, dir, _) = log.home();
            (disk, dir.to_path_buf())
        };
        loop {
            let Some((manifest, bytes)) =
                current(disk.as_ref(), &dir, self.number, self.cluster_id)?
            else {
                return Ok(None);
            };
            match self.copy_of(disk.as_ref(), &dir, &manifest, bytes) {
                // A later checkpoint has removed it: there is another manifest.
                Err(StorageError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound
                        && self.checkpoints().generation > manifest.generation => {}
                copy => return copy.map(Some),
            }
        }
    }

    fn copy_of(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        manifest: &Manifest,
        manifest_bytes: Vec<u8>,
    ) -> Result<ShardCopy, StorageError> {
        let resume = &manifest.resume;
        let open = |name: String, len: u64| {
            let path = dir.join(&name);
            let file = disk
                .open(&path, Access::Read)
                .map_err(StorageError::io("open for a copy", &path))?;
            Ok::<_, StorageError>(CopyPart { name, len, path, source: Source::File(file) })
        };
        let name = checkpoint_name(resume.log_id, manifest.generation);
        let mut parts = vec![
            CopyPart {
                name: MANIFEST.to_owned(),
                len: manifest_bytes.len() as u64,
                path: dir.join(MANIFEST),
                source: Source::Memory(manifest_bytes.into()),
            },
            open(name, manifest.checkpoint_bytes)?,
        ];
        let segments = resume.sealed.iter().copied();
        for (number, len) in segments.chain([(resume.segment, resume.position)]) {
            parts.push(open(segment::any_file_name(resume.log_id, number), len)?);
        }
        Ok(ShardCopy { applied: resume.applied, parts })
    }
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
