//! The sidecar of a segment: its part of the index as a file, `<log id>-<segment number>.index`.
//!
//! | at | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `PrkX` |
//! | 4 | 1 | format | 1 |
//! | 5 | 3 | zero | |
//! | 8 | 8 | log id | |
//! | 16 | 8 | segment number | |
//! | 24 | 4 | row count | |
//! | 28 | 4 | zero | |
//! | 32 | 8 | length of the file | |
//! | 40 | 4 | body CRC | of everything behind the header |
//! | 44 | 4 | header CRC | of 0..44 |
//! | 48 | | rows, by partition | 48 bytes each |
//! | | | points and steps of each row | in the order of the rows |
//!
//! A row: partition u32, frames u32, first offset u64, next offset u64, largest timestamp i64, where
//! its points begin u32, their length u32, where its steps begin u32, their length u32. All numbers are
//! little-endian. The CRCs are seeded with the log and the segment, as those of the segment itself.
//!
//! It is written to a temporary name and renamed, and neither is synced: after a power cut it may be
//! old, torn or gone, and the CRC tells.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::track::{Summary, Track, View};
use crate::storage::{
    bug::bug,
    disk::{Access, Disk, DiskFile},
    log::{
        header::{Seed, array_at},
        map_sealed,
    },
};

const MAGIC: [u8; 4] = *b"PrkX";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 48;
const ROW_BYTES: usize = 48;

/// The tracks of one segment that nothing is added to any more.
#[derive(Debug)]
pub(super) enum SegmentTracks {
    /// In memory.
    Memory(BTreeMap<u32, Track>),
    /// In a sidecar.
    Mapped(Bytes),
}

impl SegmentTracks {
    /// Returns the track of a partition.
    pub(super) fn view(&self, partition: u32) -> Option<View<'_>> {
        match self {
            Self::Memory(tracks) => tracks.get(&partition).map(Track::view),
            Self::Mapped(file) => mapped_view(file, partition),
        }
    }

    /// Returns how many bytes of memory it takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        match self {
            Self::Memory(tracks) => tracks.values().map(Track::bytes).sum::<usize>() as u64,
            Self::Mapped(_) => 0,
        }
    }
}

/// Returns the name of a segment's sidecar.
pub(super) fn file_name(log_id: u64, number: u64) -> String {
    format!("{log_id:016x}-{number:010}.index")
}

/// Work on the sidecar of one segment.
#[derive(Debug)]
pub struct SidecarJob {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) log_id: u64,
    pub(super) number: u64,
    pub(super) tracks: Arc<SegmentTracks>,
}

/// A sidecar that is there.
#[derive(Debug)]
pub struct SidecarDone(pub(super) Bytes);

impl SidecarJob {
    /// Takes the sidecar that is there if it is the right one, or writes it, and maps it.
    ///
    /// # Errors
    /// What the disk says. The index stays in memory then, and is as right.
    pub fn run(&self) -> io::Result<SidecarDone> {
        let SegmentTracks::Memory(tracks) = self.tracks.as_ref() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let path = self.path();
        let fresh = encode(tracks, self.log_id, self.number)?;
        if let Ok(file) = self.disk.open(&path, Access::Read)
            && let Ok(found) = content(file.as_ref())
            && (found == fresh || bug!(SidecarNotCompared))
        {
            return Ok(SidecarDone(found));
        }
        let temporary = path.with_extension("index-new");
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&temporary)?;
        let written = file
            .write_at(0, &[IoSlice::new(&fresh)])
            .and_then(|()| self.disk.rename(&temporary, &path));
        if let Err(error) = written {
            let _removed = self.disk.remove(&temporary);
            return Err(error);
        }
        // What was written is what is read, or the next start writes it again.
        content(file.as_ref()).map(SidecarDone)
    }

    /// Returns the file it is about.
    pub fn path(&self) -> PathBuf {
        self.dir.join(file_name(self.log_id, self.number))
    }
}

/// Returns the sidecar of a segment that is not read itself; `None` where there is none that verifies.
pub(super) fn read(disk: &dyn Disk, path: &Path, log_id: u64, number: u64) -> Option<Bytes> {
    let file = disk.open(path, Access::Read).ok()?;
    let found = content(file.as_ref()).ok()?;
    let (header, body) = found.split_at_checked(HEADER_BYTES)?;
    let seed = Seed::new(log_id, number);
    let word = |at| u32::from_le_bytes(array_at(header, at));
    let is_whole = header.starts_with(&MAGIC)
        && header.get(4) == Some(&FORMAT)
        && u64::from_le_bytes(array_at(header, 32)) == found.len() as u64
        && word(44) == seed.checksum(&[header.get(..44)?])
        && word(40) == seed.checksum(&[body]);
    (is_whole || bug!(SidecarNotCompared)).then_some(found)
}

fn content(file: &dyn DiskFile) -> io::Result<Bytes> {
    let len = file.len()?;
    if len == 0 {
        return Ok(Bytes::new());
    }
    if let Some(source) = file.map_source() {
        return map_sealed(source, len);
    }
    let mut bytes = BytesMut::zeroed(usize::try_from(len).map_err(io::Error::other)?);
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes.freeze())
}

#[expect(clippy::indexing_slicing, reason = "the buffer begins with the header")]
fn encode(tracks: &BTreeMap<u32, Track>, log_id: u64, number: u64) -> io::Result<Bytes> {
    let bodies: usize = tracks.values().map(Track::bytes).sum();
    let len = HEADER_BYTES + ROW_BYTES * tracks.len() + bodies;
    let short = |number: usize| u32::try_from(number).map_err(io::Error::other);
    let mut out = BytesMut::with_capacity(len);
    out.put_bytes(0, HEADER_BYTES);
    let mut at = HEADER_BYTES + ROW_BYTES * tracks.len();
    for (partition, track) in tracks {
        let View { summary, points, steps } = track.view();
        out.put_u32_le(*partition);
        out.put_u32_le(summary.frames);
        out.put_u64_le(summary.first_offset);
        out.put_u64_le(summary.next_offset);
        out.put_i64_le(summary.max_timestamp_ms);
        for part in [points, steps] {
            out.put_u32_le(short(at)?);
            out.put_u32_le(short(part.len())?);
            at += part.len();
        }
    }
    for track in tracks.values() {
        let view = track.view();
        out.put_slice(view.points);
        out.put_slice(view.steps);
    }
    let seed = Seed::new(log_id, number);
    let (header, body) = out.split_at_mut(HEADER_BYTES);
    header[0..4].copy_from_slice(&MAGIC);
    header[4] = FORMAT;
    header[8..16].copy_from_slice(&log_id.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..28].copy_from_slice(&short(tracks.len())?.to_le_bytes());
    header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    header[40..44].copy_from_slice(&seed.checksum(&[body]).to_le_bytes());
    let crc = seed.checksum(&[&header[..44]]);
    header[44..48].copy_from_slice(&crc.to_le_bytes());
    Ok(out.freeze())
}

/// Finds the row of a partition. The file was compared with what it must be when it was mapped.
fn mapped_view(file: &[u8], partition: u32) -> Option<View<'_>> {
    let rows = usize::try_from(u32::from_le_bytes(array_at(file.get(..HEADER_BYTES)?, 24))).ok()?;
    let rows = file.get(HEADER_BYTES..HEADER_BYTES + rows.checked_mul(ROW_BYTES)?)?;
    let row = |number: usize| rows.get(number * ROW_BYTES..(number + 1) * ROW_BYTES);
    let (mut low, mut high) = (0, rows.len() / ROW_BYTES);
    while low < high {
        let middle = low + (high - low) / 2;
        if u32::from_le_bytes(array_at(row(middle)?, 0)) < partition {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let row = row(low)?;
    if u32::from_le_bytes(array_at(row, 0)) != partition {
        return None;
    }
    let part = |at: usize| {
        let start = usize::try_from(u32::from_le_bytes(array_at(row, at))).ok()?;
        let len = usize::try_from(u32::from_le_bytes(array_at(row, at + 4))).ok()?;
        file.get(start..start.checked_add(len)?)
    };
    let summary = Summary {
        frames: u32::from_le_bytes(array_at(row, 4)),
        first_offset: u64::from_le_bytes(array_at(row, 8)),
        next_offset: u64::from_le_bytes(array_at(row, 16)),
        max_timestamp_ms: i64::from_le_bytes(array_at(row, 24)),
    };
    Some(View { summary, points: part(32)?, steps: part(40)? })
}
