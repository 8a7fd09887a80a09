//! History segments: what cleaning leaves of segments that Raft does not read any more.
//!
//! They hold entries as the log does, each with its name and time, in the order of the log; but records,
//! frames and entries that nobody can need any more are left out. A history segment takes the place of
//! the segments that it was made of. It is written once, synced, and never written to again. Its first
//! page is that of a segment; it names no predecessor, since not the pages but the manifest says which
//! history segments a log has, and in which order.

use std::{
    io::{self, IoSlice},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    body::Check,
    entry::{Entry, Item, Stamp},
    header::{EntryHeader, Lsn, Seed},
    index::Stretch,
    segment::{HardState, SEGMENT_HEADER_BYTES, SegmentHeader},
    segments::Segment,
    walk::walk,
};
use crate::storage::{StorageError, bug::bug, disk::Disk};

/// History segments are numbered from here on, segments of the log up to it.
pub(in crate::storage) const HISTORY_FIRST: u64 = 1 << 31;
/// Entries are written in pieces of about this size.
const PIECE_BYTES: u64 = 1 << 20;
/// After so many bytes they are synced, so that the log's syncs find little of it to wait for.
const SYNC_BYTES: u64 = 8 << 20;

/// Returns whether a segment was made by cleaning.
pub(in crate::storage) fn is_history(number: u64) -> bool {
    number >= HISTORY_FIRST
}

/// Whose log a history segment is of.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Home {
    pub(in crate::storage) disk: Arc<dyn Disk>,
    pub(in crate::storage) dir: PathBuf,
    pub(in crate::storage) shard: u32,
    pub(in crate::storage) cluster_id: [u8; 16],
    pub(in crate::storage) log_id: u64,
}

impl Home {
    /// Returns the path of a segment of either kind.
    pub(in crate::storage) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(super::segment::any_file_name(self.log_id, number))
    }
}

/// Writes a history segment.
pub(in crate::storage) struct HistoryWriter {
    segment: Segment,
    position: u64,
    lsn: Lsn,
    prev_crc: u32,
    pending: Vec<Bytes>,
    pending_bytes: u64,
    unsynced: u64,
}

impl HistoryWriter {
    /// Begins one.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::storage) fn create(home: &Home, number: u64) -> Result<Self, StorageError> {
        let path = home.path(number);
        let failed = |source| StorageError::io("create history segment", &path)(source);
        // What an interrupted cleaning left under the name is nobody's.
        match home.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = home.disk.create(&path).map_err(failed)?;
        let page = SegmentHeader {
            shard: home.shard,
            cluster_id: home.cluster_id,
            log_id: home.log_id,
            number,
            predecessor: 0,
            cut_lsn: 0,
            cut_position: 0,
            prev_crc: 0,
            first_lsn: 0,
            first_index: 0,
            synced_lsn: 0,
            hard_state: HardState::default(),
            created_ms: 0,
        };
        if let Err(error) = file.write_at(0, &[IoSlice::new(page.encode().as_slice())]) {
            let _removed = home.disk.remove(&path);
            return Err(failed(error));
        }
        let segment = Segment::new(number, path, file, Seed::new(home.log_id, number));
        Ok(Self {
            segment,
            position: SEGMENT_HEADER_BYTES as u64,
            lsn: 0,
            prev_crc: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            unsynced: 0,
        })
    }

    /// Adds what is left of an entry that had this header; returns where it begins.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::storage) fn push(
        &mut self,
        header: &EntryHeader,
        entry: Entry,
    ) -> Result<u64, StorageError> {
        // Numbers rise here too, though some may be those of another replica's log.
        self.lsn = header.lsn.max(self.lsn + 1);
        let stamp = Stamp {
            lsn: self.lsn,
            synced_lsn: header.synced_lsn,
            committed: header.committed,
            prev_crc: self.prev_crc,
        };
        let encoded = Item::Entry(entry).encode(stamp, &self.segment.seed);
        let at = self.position + self.pending_bytes;
        self.prev_crc = encoded.header_crc;
        self.pending_bytes += encoded.len;
        self.pending.extend(encoded.parts);
        if self.pending_bytes >= PIECE_BYTES {
            self.write()?;
        }
        Ok(at)
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let failed = |source| StorageError::io("write history segment", &self.segment.path)(source);
        let slices: Vec<IoSlice<'_>> = self.pending.iter().map(|part| IoSlice::new(part)).collect();
        self.segment.file.write_at(self.position, &slices).map_err(failed)?;
        self.position += self.pending_bytes;
        self.unsynced += self.pending_bytes;
        if self.unsynced >= SYNC_BYTES {
            self.segment.file.sync_data().map_err(failed)?;
            self.unsynced = 0;
        }
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Makes it durable and returns it.
    ///
    /// # Errors
    /// What the disk says: it is given up then.
    pub(in crate::storage) fn finish(mut self, home: &Home) -> Result<Arc<Segment>, StorageError> {
        match self.make_durable(home) {
            Ok(()) => Ok(Arc::new(self.segment)),
            Err(error) => {
                self.abandon(home.disk.as_ref());
                Err(error)
            }
        }
    }

    fn make_durable(&mut self, home: &Home) -> Result<(), StorageError> {
        self.write()?;
        let failed = |source| StorageError::io("sync history segment", &self.segment.path)(source);
        if !bug!(HistoryNotSynced) {
            self.segment.file.sync_all().map_err(failed)?;
        }
        home.disk.sync_dir(&home.dir).map_err(StorageError::io("sync log", &home.dir))?;
        self.segment.seal(self.position);
        Ok(())
    }

    /// Gives it up.
    pub(in crate::storage) fn abandon(self, disk: &dyn Disk) {
        // What stays is removed by the next cleaning of that number, or the next start.
        let _removed = disk.remove(&self.segment.path);
    }
}

/// The entries of a segment that are alive, from its start to its end, read by `pread` and checked.
pub(in crate::storage) struct Entries {
    reader: Segment,
    places: Places,
}

enum Places {
    /// Where each of them begins.
    Known(std::vec::IntoIter<u32>),
    /// One behind the other, from one place to another.
    Dense(u64, u64),
}

/// An entry, where it begins and what its header says.
pub(in crate::storage) type Placed = (u64, EntryHeader, Item);

impl Entries {
    /// Begins to read a segment of the log, of which these stretches are alive.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub(in crate::storage) fn of_log(
        segment: &Segment,
        stretches: &[Stretch],
    ) -> Result<Self, StorageError> {
        let reader = segment.unmapped();
        let mut known = Vec::new();
        for stretch in stretches {
            known.extend(walk(&reader, *stretch)?);
        }
        Ok(Self { reader, places: Places::Known(known.into_iter()) })
    }

    /// Begins to read a history segment.
    pub(in crate::storage) fn of_history(segment: &Segment) -> Self {
        let end = segment.sealed_len().unwrap_or_default();
        let places = Places::Dense(SEGMENT_HEADER_BYTES as u64, end);
        Self { reader: segment.unmapped(), places }
    }

    /// Reads the next one.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub(in crate::storage) fn next(&mut self) -> Result<Option<Placed>, StorageError> {
        let position = match &mut self.places {
            Places::Known(places) => match places.next() {
                Some(position) => u64::from(position),
                None => return Ok(None),
            },
            Places::Dense(position, end) if *position < *end => *position,
            Places::Dense(..) => return Ok(None),
        };
        let (header, item) = self.reader.read_entry(position, Check::Full)?;
        if let Places::Dense(next, _) = &mut self.places {
            *next = position + header.total_bytes();
        }
        Ok(Some((position, header, item)))
    }
}
