//! Reads a shard's manifest and the checkpoint it names.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    codec::{Malformed, Take},
    file::{FORMAT, Fault, Kind, Reader},
    job::remove_others,
    keys::Gathered,
    manifest::{self, Found, MANIFEST_NEW, Manifest, checkpoint_name},
    renumber::Renumber,
};
use crate::storage::{
    StorageError,
    disk::{Access, Disk, DiskFile},
    kv::state::State,
    log::{Resume, header::Lsn, is_history, segment::parse_any_file_name},
    stream::StreamIndex,
};

/// A shard as its checkpoint has it.
#[derive(Debug)]
pub(in crate::storage) struct Loaded {
    pub(in crate::storage) state: State,
    pub(in crate::storage) streams: StreamIndex,
    pub(in crate::storage) resume: Resume,
    pub(in crate::storage) generation: u64,
    pub(in crate::storage) is_cleaned: bool,
    /// Size of the checkpoint.
    pub(in crate::storage) bytes: u64,
}

/// What was found in a shard's directory.
#[derive(Debug, Default)]
pub(in crate::storage) struct Opened {
    /// The checkpoint that counts, if it is whole.
    pub(in crate::storage) loaded: Option<Loaded>,
    /// What the manifest says was synced.
    pub(in crate::storage) synced_lsn: Lsn,
    /// Manifest or checkpoint were there and are no use: the whole log is read.
    pub(in crate::storage) damaged: Option<PathBuf>,
}

/// Reads the manifest and the checkpoint of a shard. Nothing is changed.
///
/// # Errors
/// [`StorageError::NewerFormat`], [`StorageError::Foreign`], [`StorageError::Io`].
pub(in crate::storage) fn find(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: u32,
    cluster_id: [u8; 16],
    producer_bytes_max: u64,
) -> Result<Opened, StorageError> {
    let manifest = match manifest::read(disk.as_ref(), dir, shard, cluster_id)? {
        Found::Whole(manifest) => *manifest,
        Found::Missing => return Ok(Opened::default()),
        Found::Damaged => {
            let path = dir.join(manifest::MANIFEST);
            // What lies there may be all that there is of the state.
            refuse_history(disk.as_ref(), dir, "one that does not verify")?;
            return Ok(Opened { damaged: Some(path), ..Opened::default() });
        }
    };
    let synced_lsn = manifest.resume.lsn;
    let path = dir.join(checkpoint_name(manifest.resume.log_id, manifest.generation));
    let is_cleaned = manifest.is_cleaned;
    // What was taken out of the log stands nowhere else.
    let lost = |path: PathBuf, found: &str| StorageError::Corrupt {
        path,
        position: 0,
        expected: "the checkpoint of a log that was cleaned".to_owned(),
        found: found.to_owned(),
    };
    match load(disk, dir, &path, manifest, producer_bytes_max) {
        Ok(loaded) => Ok(Opened { loaded: Some(loaded), synced_lsn, damaged: None }),
        Err(Fault::Damaged) if is_cleaned => Err(lost(path, "one that does not verify")),
        Err(Fault::Io(error)) if is_cleaned && error.kind() == io::ErrorKind::NotFound => {
            Err(lost(path, "no such file"))
        }
        Err(Fault::Damaged) => Ok(Opened { loaded: None, synced_lsn, damaged: Some(path) }),
        Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Opened { loaded: None, synced_lsn, damaged: Some(path) })
        }
        Err(Fault::Io(error)) => Err(StorageError::io("read checkpoint", &path)(error)),
        Err(Fault::Format(found)) => Err(StorageError::NewerFormat { path, found, known: FORMAT }),
    }
}

/// Refuses a directory with history segments, where a manifest that names them should be.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Io`].
pub(in crate::storage) fn refuse_history(
    disk: &dyn Disk,
    dir: &Path,
    found: &str,
) -> Result<(), StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("list log", dir))?;
    let mut numbers = names.iter().filter_map(|name| Some(parse_any_file_name(name.to_str()?)?.1));
    if !numbers.any(is_history) {
        return Ok(());
    }
    Err(StorageError::Corrupt {
        path: dir.join(manifest::MANIFEST),
        position: 0,
        expected: "the manifest of a log with history".to_owned(),
        found: found.to_owned(),
    })
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

fn load(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    path: &Path,
    manifest: Manifest,
    producer_bytes_max: u64,
) -> Result<Loaded, Fault> {
    let file = disk.open(path, Access::Read).map_err(Fault::Io)?;
    load_file(file, manifest, (disk, dir), producer_bytes_max, None)
}

/// Loads the checkpoint of a copy of another log for a shard in `dir`, where its segments have other numbers.
/// The streams are still those of that log, but for the numbers.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::NewerFormat`], [`StorageError::Io`].
pub(in crate::storage) fn load_copy(
    (file, path): (Arc<dyn DiskFile>, &Path),
    manifest: Manifest,
    home: (&Arc<dyn Disk>, &Path),
    producer_bytes_max: u64,
    renumber: &Renumber,
) -> Result<Loaded, StorageError> {
    let loaded = load_file(file, manifest, home, producer_bytes_max, Some(renumber));
    let mut loaded = loaded.map_err(|fault| fault.at(path))?;
    loaded.streams.renumber(renumber).map_err(|fault| Fault::from(fault).at(path))?;
    Ok(loaded)
}

fn load_file(
    file: Arc<dyn DiskFile>,
    manifest: Manifest,
    (disk, dir): (&Arc<dyn Disk>, &Path),
    producer_bytes_max: u64,
    renumber: Option<&Renumber>,
) -> Result<Loaded, Fault> {
    let Manifest { checkpoint_bytes, mut resume, generation, is_cleaned, .. } = manifest;
    if file.len().map_err(Fault::Io)? != checkpoint_bytes {
        return Err(Fault::Damaged);
    }
    let mut reader = Reader::begin(file, checkpoint_bytes, resume.log_id, resume.applied)?;
    let mut keys = Gathered::default();
    let (mut state, mut streams): (Option<State>, Option<StreamIndex>) = (None, None);
    let mut content = Vec::new();
    while let Some(kind) = reader.next(&mut content)? {
        let from = Take(&content);
        match kind {
            Kind::Keys => keys.add(&content, renumber)?,
            Kind::State => {
                let trees = std::mem::take(&mut keys).finish();
                state = Some(State::load(from, trees, producer_bytes_max)?);
            }
            Kind::Windows => state.as_mut().ok_or(Malformed)?.load_windows(from)?,
            Kind::Streams => {
                let disk = Arc::clone(disk);
                streams = Some(StreamIndex::load(from, disk, dir, resume.log_id)?);
            }
            Kind::End => return Err(Fault::Damaged),
        }
    }
    let (Some(state), Some(streams)) = (state, streams) else { return Err(Fault::Damaged) };
    if state.applied() != Some(resume.applied) {
        return Err(Fault::Damaged);
    }
    (resume.chain, resume.next_offsets) = (state.chain(), state.next_offsets());
    Ok(Loaded { state, streams, resume, generation, is_cleaned, bytes: reader.bytes() })
}

impl Opened {
    /// Removes what an interrupted or an earlier checkpoint left behind. A damaged one is left for whoever
    /// wants to look at it, until the next one is written.
    pub(in crate::storage) fn tidy(&self, disk: &dyn Disk, dir: &Path) {
        if self.damaged.is_some() {
            return;
        }
        let _removed = manifest::remove_if_there(disk, &dir.join(MANIFEST_NEW));
        let kept = self
            .loaded
            .as_ref()
            .map(|loaded| dir.join(checkpoint_name(loaded.resume.log_id, loaded.generation)));
        remove_others(disk, dir, kept.as_deref());
    }
}
