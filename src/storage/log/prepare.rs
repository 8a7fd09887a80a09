//! Segments made ready ahead of the writer, and the unused tails of full ones given back.
//!
//! A prepared segment has its final name, size and blocks, and its directory entry is synced: to go
//! on in it is one ordinary write. Preparing is the only step that can meet a full disk.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    header::Seed,
    segment::SEGMENT_HEADER_BYTES,
    segments::{Segment, segment_path},
    writer::{Active, Log},
};
use crate::storage::{
    StorageError,
    disk::{Disk, DiskFile, is_disk_full, is_out_of_files},
};

/// Once a log has rolled, this many segments are kept ready.
const READY_AHEAD: usize = 2;
/// One that has so much room is enough: it is time to prepare another, and all that is ready counts
/// against the room that cleaning has to keep to.
const READY_BYTES_ENOUGH: u64 = 192 << 20;
/// While a preparation fails for want of room, writes are refused when less than this is left.
const ROOM_RESERVED: u64 = 32 << 20;
/// Whatever the options say, a segment is not larger: a position in it has 32 bits.
const SEGMENT_BYTES_LIMIT: u64 = 2 << 30;
/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1 << 20;

/// What the writer has ready.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    ready: VecDeque<Active>,
    to_trim: VecDeque<(Arc<Segment>, u64)>,
    /// Prepared, passed over and never written.
    to_remove: VecDeque<Arc<Segment>>,
    is_under_way: bool,
    /// Size that a waiting entry needs at least; 0 = none waits.
    wanted_bytes: u64,
    /// A segment has been filled.
    has_rolled: bool,
    is_full: bool,
    /// What was set aside for a full disk is in use.
    is_on_reserve: bool,
    /// Number of the next segment to be created.
    pub(super) next_number: u64,
    /// Bytes of all segments, which give the size of the next one.
    pub(super) log_bytes: u64,
}

impl Preparation {
    /// Returns the state of a log that has `log_bytes` bytes in segments below `next_number`.
    pub(super) fn new(next_number: u64, log_bytes: u64) -> Self {
        Self { next_number, log_bytes, ..Self::default() }
    }

    /// Takes the oldest segment that has room for `bytes`, header included. Those before it are too
    /// small and are removed: numbers rise along the log, so their turn cannot come later.
    pub(super) fn take(&mut self, bytes: u64) -> Option<Active> {
        let Some(at) = self.ready.iter().position(|ready| ready.capacity >= bytes) else {
            self.wanted_bytes = self.wanted_bytes.max(bytes);
            return None;
        };
        for passed_over in self.ready.drain(..at) {
            self.log_bytes = self.log_bytes.saturating_sub(passed_over.capacity);
            self.to_remove.push_back(passed_over.segment);
        }
        self.ready.pop_front()
    }

    /// Adds a segment that is ready.
    pub(super) fn add(&mut self, ready: Active) {
        self.ready.push_back(ready);
    }

    /// Gives back the unused tail of a full segment.
    pub(super) fn trim(&mut self, full: &Active) {
        self.has_rolled = true;
        if full.position < full.capacity {
            self.log_bytes = self.log_bytes.saturating_sub(full.capacity - full.position);
            self.to_trim.push_back((Arc::clone(&full.segment), full.position));
        }
    }

    /// Gives back the tail of a segment of an earlier start.
    pub(super) fn trim_later(&mut self, segment: Arc<Segment>, tail: Range<u64>) {
        self.log_bytes = self.log_bytes.saturating_sub(tail.end.saturating_sub(tail.start));
        self.to_trim.push_back((segment, tail.start));
    }

    /// Returns how many bytes are ready.
    pub(super) fn ready_bytes(&self) -> u64 {
        self.ready.iter().map(|ready| ready.capacity - SEGMENT_HEADER_BYTES as u64).sum()
    }
}

/// How a segment gets its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareMode {
    /// Zeros are written: a later sync then has no metadata to write. Costs the disk's rate.
    Zero,
    /// Blocks are only reserved.
    Allocate,
}

/// Work on segments beside the writer.
#[derive(Debug)]
pub struct PrepareJob {
    task: Task,
}

#[derive(Debug)]
enum Task {
    Create { disk: Arc<dyn Disk>, dir: PathBuf, path: PathBuf, number: u64, bytes: u64 },
    Trim { segment: Arc<Segment>, len: u64 },
    Remove { disk: Arc<dyn Disk>, segment: Arc<Segment> },
}

/// What a job leaves: the file it created, if it did.
#[derive(Debug)]
pub struct Done(Option<Arc<dyn DiskFile>>);

/// How a preparation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It is done.
    Ready,
    /// The disk has no room for another segment, or the process may open no more files; try again
    /// later.
    DiskFull,
}

impl PrepareJob {
    /// Does the work. Hand the result to [`Log::prepared`].
    ///
    /// # Errors
    /// What the disk says.
    pub fn run(&self, mode: PrepareMode) -> io::Result<Done> {
        match &self.task {
            Task::Trim { segment, len } => segment.file.truncate(*len).map(|()| Done(None)),
            // Should the name come back after a crash, recovery finds zeros and removes it again.
            Task::Remove { disk, segment } => disk.remove(&segment.path).map(|()| Done(None)),
            Task::Create { disk, dir, path, bytes, .. } => {
                let created = disk.create(path)?;
                let result = fill(created.as_ref(), *bytes, mode)
                    .and_then(|()| created.sync_all())
                    .and_then(|()| disk.sync_dir(dir));
                if result.is_err() {
                    // Nothing was promised about it; a later try begins anew under the same name.
                    let _removed = disk.remove(path);
                }
                result.map(|()| Done(Some(created)))
            }
        }
    }

    /// Returns the file it is about, for messages.
    pub fn path(&self) -> &Path {
        match &self.task {
            Task::Create { path, .. } => path,
            Task::Trim { segment, .. } | Task::Remove { segment, .. } => &segment.path,
        }
    }
}

fn fill(file: &dyn DiskFile, bytes: u64, mode: PrepareMode) -> io::Result<()> {
    match mode {
        PrepareMode::Allocate => file.allocate(0, bytes),
        PrepareMode::Zero => {
            // Blocks first: a disk without room says so before anything is written.
            file.allocate(0, bytes)?;
            let zeros = vec![0; ZERO_BYTES];
            let mut position = 0;
            while position < bytes {
                let len = usize::try_from(bytes - position).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
                file.write_at(position, &[IoSlice::new(zeros.get(..len).unwrap_or_default())])?;
                position += len as u64;
            }
            Ok(())
        }
    }
}

impl Log {
    /// Returns work on segments, if there is any and none is under way.
    pub fn next_prepare(&mut self) -> Option<PrepareJob> {
        if self.has_failed || self.preparation.is_under_way {
            return None;
        }
        let task = if let Some((segment, len)) = self.preparation.to_trim.pop_front() {
            Task::Trim { segment, len }
        } else if let Some(segment) = self.preparation.to_remove.pop_front() {
            Task::Remove { disk: Arc::clone(&self.disk), segment }
        } else {
            self.next_create()?
        };
        self.preparation.is_under_way = true;
        Some(PrepareJob { task })
    }

    fn next_create(&mut self) -> Option<Task> {
        let ahead = match &self.active {
            None => 1,
            Some(_) if self.preparation.has_rolled => READY_AHEAD,
            Some(active) => usize::from(active.position > active.capacity / 2),
        };
        let has_enough = self.preparation.ready.len() >= ahead
            || self.preparation.ready_bytes() >= READY_BYTES_ENOUGH;
        if has_enough && self.preparation.wanted_bytes == 0 {
            return None;
        }
        let number = self.preparation.next_number;
        Some(Task::Create {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            path: segment_path(&self.dir, self.log_id, number),
            number,
            bytes: self.next_segment_bytes(),
        })
    }

    fn next_segment_bytes(&self) -> u64 {
        let first = self.options.segment_bytes_first;
        let wanted = self.preparation.wanted_bytes.next_multiple_of(SEGMENT_HEADER_BYTES as u64);
        if self.preparation.is_full {
            // What is left, the reserve included, must serve votes and what was admitted.
            return first.max(wanted);
        }
        let nominal = (self.preparation.log_bytes + first)
            .next_power_of_two()
            .clamp(first, self.options.segment_bytes_max.max(first))
            .min(SEGMENT_BYTES_LIMIT);
        nominal.max(wanted)
    }

    /// Hears how a preparation ended.
    ///
    /// # Errors
    /// [`StorageError::Io`] for any failure but a full disk.
    #[expect(clippy::needless_pass_by_value, reason = "a job ends here: it must not run again")]
    pub fn prepared(
        &mut self,
        job: PrepareJob,
        result: io::Result<Done>,
    ) -> Result<Prepared, StorageError> {
        self.preparation.is_under_way = false;
        let (path, number, bytes) = match &job.task {
            // A file system that copies on write may have no room for either: it is not done then, and
            // nothing rests on it.
            Task::Trim { .. } | Task::Remove { .. } if result.as_ref().is_err_and(is_disk_full) => {
                return Ok(Prepared::Ready);
            }
            Task::Trim { segment, .. } => {
                return result
                    .map(|_| Prepared::Ready)
                    .map_err(StorageError::io("trim segment", &segment.path));
            }
            Task::Remove { segment, .. } => {
                return result
                    .map(|_| Prepared::Ready)
                    .map_err(StorageError::io("remove unused segment", &segment.path));
            }
            Task::Create { path, number, bytes, .. } => (path, *number, *bytes),
        };
        let file = match result {
            Ok(Done(Some(file))) => file,
            Ok(Done(None)) => return Ok(Prepared::Ready),
            // Either heals by itself, and nothing was promised about the segment.
            Err(error) if is_disk_full(&error) || is_out_of_files(&error) => {
                self.preparation.is_full = true;
                return Ok(Prepared::DiskFull);
            }
            Err(error) => return Err(StorageError::io("prepare segment", path)(error)),
        };
        let seed = Seed::new(self.log_id, number);
        let segment = Arc::new(Segment::new(number, path.clone(), file, seed));
        self.preparation.add(Active { segment, position: 0, capacity: bytes });
        self.preparation.is_full = false;
        self.preparation.wanted_bytes = 0;
        self.preparation.next_number = number + 1;
        self.preparation.log_bytes += bytes;
        Ok(Prepared::Ready)
    }

    /// Hears that what was set aside for a full disk is in use, for what was admitted alone, or is
    /// there again.
    pub fn on_reserve(&mut self, is_on_reserve: bool) {
        self.preparation.is_on_reserve = is_on_reserve;
    }

    /// Returns whether writes must be refused: no segment can be prepared, and little room is left
    /// or an entry waits that fits into none of it.
    pub fn disk_is_full(&self) -> bool {
        let reserved = ROOM_RESERVED.min(self.options.segment_bytes_max / 2);
        let is_waiting = self.preparation.wanted_bytes > 0;
        let has_little = self.room().saturating_sub(self.pending_bytes) < reserved;
        self.preparation.is_on_reserve || (self.preparation.is_full && (is_waiting || has_little))
    }

    fn room(&self) -> u64 {
        let in_active = self.active.as_ref().map_or(0, |a| a.capacity - a.position.min(a.capacity));
        in_active + self.preparation.ready_bytes()
    }

    /// Returns how many bytes are prepared and not written to.
    pub fn prepared_bytes(&self) -> u64 {
        self.preparation.ready_bytes()
    }
}
