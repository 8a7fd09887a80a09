//! The file that names a shard's checkpoint, and where reading its log begins.
//!
//! | at | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `PrkM` |
//! | 4 | 1 | format | 1 |
//! | 5 | 3 | zero | |
//! | 8 | 4 | length | of the content |
//! | 12 | 4 | CRC | CRC32C of 0..12 and the content |
//! | 16 | | content | |
//!
//! It is written to a temporary name, synced, renamed, and its directory synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    path::Path,
};

use prkdb_types::crc::Crc32c;

use super::codec::{Malformed, Put as _, Take};
use crate::storage::{
    StorageError,
    disk::{Access, Disk},
    log::{
        Chain, Past, Resume, Stretch,
        entry::Vote,
        header::{NUMBERS_END, array_at},
        is_history,
        segment::HardState,
    },
};

/// The name of the file.
pub(in crate::storage) const MANIFEST: &str = "MANIFEST";
pub(super) const MANIFEST_NEW: &str = "MANIFEST-new";
const MAGIC: [u8; 4] = *b"PrkM";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 16;
/// More than the names of all segments there can be.
const BYTES_MAX: u64 = 64 << 20;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Manifest {
    pub(in crate::storage) shard: u32,
    pub(in crate::storage) cluster_id: [u8; 16],
    /// Counts manifests; the checkpoint is named by it.
    pub(in crate::storage) generation: u64,
    /// Whether the log was ever cleaned: without its checkpoint it is of no use then.
    pub(in crate::storage) is_cleaned: bool,
    /// Size of the checkpoint.
    pub(in crate::storage) checkpoint_bytes: u64,
    /// Where reading begins; the chain and the next offsets are in the checkpoint.
    pub(in crate::storage) resume: Resume,
}

/// What was found of it.
#[derive(Debug)]
pub(super) enum Found {
    Whole(Box<Manifest>),
    /// There is none.
    Missing,
    Damaged,
}

/// Returns the name of a checkpoint.
pub(in crate::storage) fn checkpoint_name(log_id: u64, generation: u64) -> String {
    format!("{log_id:016x}-{generation:020}.checkpoint")
}

/// Returns whether a name is that of a checkpoint, written or on the way.
pub(super) fn is_checkpoint(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".checkpoint").or(name.strip_suffix(".checkpoint-new"))
    else {
        return false;
    };
    let parts = stem.split_once('-');
    parts.is_some_and(|(log_id, index)| {
        log_id.len() == 16
            && log_id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && index.len() == 20
            && index.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>, io::Error> {
        let mut content = Vec::new();
        let resume = &self.resume;
        content.put_number(self.shard.into());
        content.extend_from_slice(&self.cluster_id);
        content.extend_from_slice(&resume.log_id.to_le_bytes());
        content.put_number(self.generation);
        content.push(self.is_cleaned.into());
        content.put_number(self.checkpoint_bytes);
        content.put_id(resume.applied);
        content.put_number(resume.lsn);
        content.extend_from_slice(&resume.header_crc.to_le_bytes());
        content.put_number(resume.segment);
        content.put_number(resume.start);
        content.put_number(resume.position);
        content.push(resume.hard_state.vote.is_some().into());
        if let Some(vote) = resume.hard_state.vote {
            content.put_number(vote.term);
            content.put_number(vote.replica);
            content.push(vote.is_committed.into());
        }
        content.push(resume.hard_state.purged.is_some().into());
        if let Some(purged) = resume.hard_state.purged {
            content.put_id(purged);
        }
        content.put_number(resume.sealed.len() as u64);
        for (number, len) in &resume.sealed {
            content.put_number(*number);
            content.put_number(*len);
        }
        for stretches in [&resume.past.older, &resume.past.stretches] {
            content.put_number(stretches.len() as u64);
            for stretch in stretches {
                content.put_number(stretch.first);
                content.put_number(stretch.last);
                content.put_number(stretch.segment.into());
            }
        }
        content.put_number(resume.past.terms.len() as u64);
        for (first, term) in &resume.past.terms {
            content.put_number(*first);
            content.put_number(*term);
        }
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        header[4] = FORMAT;
        let len = u32::try_from(content.len()).map_err(io::Error::other)?;
        header[8..12].copy_from_slice(&len.to_le_bytes());
        let crc = checksum(&header, &content);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        Ok([&header[..], &content].concat())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut from = Take(content);
        let (shard, cluster_id) = (from.narrow()?, from.array()?);
        let log_id = u64::from_le_bytes(from.array()?);
        let (generation, is_cleaned) = (from.number()?, from.flag()?);
        let checkpoint_bytes = from.number()?;
        let applied = from.id()?;
        let (lsn, header_crc) = (from.number()?, u32::from_le_bytes(from.array()?));
        let (segment, start, position) = (from.number()?, from.number()?, from.number()?);
        let vote = if from.flag()? {
            let (term, replica) = (from.number()?, from.number()?);
            Some(Vote { term, replica, is_committed: from.flag()? })
        } else {
            None
        };
        let purged = if from.flag()? { Some(from.id()?) } else { None };
        let mut sealed = Vec::new();
        for _ in 0..from.count()? {
            sealed.push((from.number()?, from.number()?));
        }
        let mut past = Past::default();
        for stretches in [&mut past.older, &mut past.stretches] {
            for _ in 0..from.count()? {
                let (first, last) = (from.number()?, from.number()?);
                stretches.push(Stretch { first, last, segment: from.narrow()? });
            }
        }
        for _ in 0..from.count()? {
            past.terms.push((from.number()?, from.number()?));
        }
        from.end()?;
        let resume = Resume {
            log_id,
            applied,
            lsn,
            header_crc,
            segment,
            start,
            position,
            sealed,
            hard_state: HardState { vote, purged, committed: Some(applied.index) },
            past,
            chain: Chain::default(),
            next_offsets: BTreeMap::new(),
        };
        if resume.is_sound() {
            Ok(Self { shard, cluster_id, generation, is_cleaned, checkpoint_bytes, resume })
        } else {
            Err(Malformed)
        }
    }
}

impl Resume {
    /// Returns whether segments and entries rise without a hole up to the checkpoint.
    fn is_sound(&self) -> bool {
        let (stretches, terms) = (&self.past.stretches, &self.past.terms);
        let last = stretches.last();
        // Those of the log rise; history segments stand anywhere among them, and once.
        let sealed = self.sealed.iter().map(|(number, _)| *number).chain([self.segment]);
        let of_log: Vec<u64> = sealed.clone().filter(|number| !is_history(*number)).collect();
        let of_history: BTreeSet<u64> = sealed.filter(|number| is_history(*number)).collect();
        let older = &self.past.older;
        let is_installed = self.is_installed() && self.hard_state.purged == Some(self.applied);
        of_log.is_sorted_by(|one, next| one < next)
            && !is_history(self.segment)
            && of_history.len() + of_log.len() == self.sealed.len() + 1
            && older.iter().all(|stretch| stretch.first <= stretch.last)
            && older.is_sorted_by(|one, next| one.last < next.first)
            && older
                .last()
                .is_none_or(|old| stretches.first().is_some_and(|it| old.last < it.first))
            && stretches.iter().all(|stretch| stretch.first <= stretch.last)
            && stretches.windows(2).all(|pair| match pair {
                [one, next] => one.last.checked_add(1) == Some(next.first),
                _ => true,
            })
            && last.map_or(is_installed, |last| {
                last.last == self.applied.index && u64::from(last.segment) == self.segment
            })
            && terms.is_sorted_by(|one, next| one.0 < next.0)
            && terms.first().map(|(first, _)| *first) == stretches.first().map(|first| first.first)
            && terms.last().map_or(is_installed, |(first, term)| {
                *first <= self.applied.index && *term == self.applied.term
            })
            && self.lsn > 0
            && self.start < self.position
            && u32::try_from(self.position).is_ok()
            && self.leaves_room()
    }
}

impl Resume {
    /// Returns whether behind each number there is another one.
    fn leaves_room(&self) -> bool {
        let HardState { vote, purged, .. } = self.hard_state;
        let ids = [Some(self.applied), purged].into_iter().flatten();
        let numbers = ids.flat_map(|id| [id.term, id.index]);
        let numbers = numbers.chain([self.lsn]).chain(vote.map(|vote| vote.term));
        numbers.chain(self.past.terms.iter().map(|(_, term)| *term)).all(|it| it < NUMBERS_END)
    }
}

/// Reads the manifest of a shard.
///
/// # Errors
/// [`StorageError::NewerFormat`] and [`StorageError::Foreign`]; [`StorageError::Io`].
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    shard: u32,
    cluster_id: [u8; 16],
) -> Result<Found, StorageError> {
    let path = dir.join(MANIFEST);
    let found = read_any(disk, &path)?;
    if let Found::Whole(manifest) = &found
        && (manifest.shard, manifest.cluster_id) != (shard, cluster_id)
    {
        return Err(foreign(&path, manifest, shard, cluster_id));
    }
    Ok(found)
}

/// Reads a manifest, whosever it is.
///
/// # Errors
/// [`StorageError::NewerFormat`]; [`StorageError::Io`].
pub(super) fn read_any(disk: &dyn Disk, path: &Path) -> Result<Found, StorageError> {
    let failed = |source| StorageError::io("read manifest", path)(source);
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(failed(error)),
    };
    let len = file.len().map_err(failed)?;
    if len > BYTES_MAX {
        return Ok(Found::Damaged);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = file.read_at(0, &mut bytes).map_err(failed)?;
    bytes.truncate(read);
    parse(path, &bytes)
}

/// Reads the bytes of a manifest.
fn parse(path: &Path, bytes: &[u8]) -> Result<Found, StorageError> {
    let Some(content) = content(bytes) else { return Ok(Found::Damaged) };
    let format = bytes.get(4).copied().unwrap_or_default();
    if format != FORMAT {
        let path = path.to_path_buf();
        return Err(StorageError::NewerFormat { path, found: format, known: FORMAT });
    }
    let manifest = Manifest::decode(content);
    Ok(manifest.map_or(Found::Damaged, |manifest| Found::Whole(Box::new(manifest))))
}

/// Returns the error for what belongs to another shard or cluster.
fn foreign(path: &Path, manifest: &Manifest, shard: u32, cluster_id: [u8; 16]) -> StorageError {
    let name = |shard: u32, cluster: [u8; 16]| {
        format!("shard {shard} of cluster {:032x}", u128::from_be_bytes(cluster))
    };
    StorageError::Foreign {
        path: path.to_path_buf(),
        expected: name(shard, cluster_id),
        found: name(manifest.shard, manifest.cluster_id),
    }
}

impl Manifest {
    /// Reads the manifest of a copy of a shard.
    ///
    /// # Errors
    /// [`StorageError::NewerFormat`], [`StorageError::Foreign`], [`StorageError::Corrupt`].
    pub(in crate::storage) fn of_copy(
        path: &Path,
        bytes: &[u8],
        shard: u32,
        cluster_id: [u8; 16],
    ) -> Result<Self, StorageError> {
        match parse(path, bytes)? {
            Found::Whole(manifest)
                if (manifest.shard, manifest.cluster_id) == (shard, cluster_id) =>
            {
                Ok(*manifest)
            }
            Found::Whole(manifest) => Err(foreign(path, &manifest, shard, cluster_id)),
            Found::Missing | Found::Damaged => Err(damaged(path)),
        }
    }
}

/// Returns the manifest that counts, and its size; `None` where there is none.
///
/// # Errors
/// As [`read`], and [`StorageError::Corrupt`].
pub(in crate::storage) fn current(
    disk: &dyn Disk,
    dir: &Path,
    shard: u32,
    cluster_id: [u8; 16],
) -> Result<Option<(Manifest, Vec<u8>)>, StorageError> {
    match read(disk, dir, shard, cluster_id)? {
        Found::Whole(manifest) => {
            let path = dir.join(MANIFEST);
            let bytes = manifest.encode().map_err(StorageError::io("encode manifest", &path))?;
            Ok(Some((*manifest, bytes)))
        }
        Found::Missing => Ok(None),
        Found::Damaged => Err(damaged(&dir.join(MANIFEST))),
    }
}

/// Makes the manifest at `path` one of another cluster.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Io`].
pub(in crate::storage) fn adopt(
    disk: &dyn Disk,
    path: &Path,
    shard: u32,
    old: [u8; 16],
    new: [u8; 16],
) -> Result<(), StorageError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let Some((manifest, _)) = current(disk, dir, shard, old)? else { return Err(damaged(path)) };
    write(disk, dir, &Manifest { cluster_id: new, ..manifest })
        .map_err(StorageError::io("write manifest", path))
}

pub(super) fn damaged(path: &Path) -> StorageError {
    StorageError::Corrupt {
        path: path.to_path_buf(),
        position: 0,
        expected: "a manifest".to_owned(),
        found: "other bytes".to_owned(),
    }
}

/// Returns the content if magic, length and checksum hold.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (header, content) = bytes.split_at_checked(HEADER_BYTES)?;
    let len = u32::from_le_bytes(array_at(header, 8));
    let crc = u32::from_le_bytes(array_at(header, 12));
    let is_whole = header.starts_with(&MAGIC)
        && u64::from(len) == content.len() as u64
        && checksum(header, content) == crc;
    is_whole.then_some(content)
}

/// Makes a manifest the one that counts.
pub(super) fn write(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> io::Result<()> {
    stage(disk, dir, manifest)?;
    commit(disk, dir)
}

/// Writes and syncs a manifest that does not count yet.
pub(in crate::storage) fn stage(
    disk: &dyn Disk,
    dir: &Path,
    manifest: &Manifest,
) -> io::Result<()> {
    let temporary = dir.join(MANIFEST_NEW);
    remove_if_there(disk, &temporary)?;
    let file = disk.create(&temporary)?;
    file.write_at(0, &[IoSlice::new(&manifest.encode()?)])?;
    file.sync_all()
}

/// Makes the manifest that was written the one that counts. Where this fails, nobody knows which does.
pub(in crate::storage) fn commit(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.rename(&dir.join(MANIFEST_NEW), &dir.join(MANIFEST))?;
    disk.sync_dir(dir)
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(header.get(..12).unwrap_or_default());
    crc.update(content);
    crc.finish()
}
