//! The segments of a log as its readers see them: by number, without the writer's lock.
//!
//! A segment is mapped at its first read, one that is written to as far as it is written; on disks that
//! have no map it is read by `pread`. What a slice refers to stays valid: nothing written is overwritten, and a slice
//! keeps its segment alive.

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};

use super::{
    batches::Trust,
    body::{BodyFault, Check, decode_body},
    entry::Item,
    header::{ENTRY_HEADER_BYTES, EntryHeader, HeaderFault, Seed},
    mmap::{self, GrowingMap},
    walk::Walked,
};
use crate::storage::{StorageError, disk::DiskFile};

/// Above it a length, which may come from a header, is believed only as far as the file goes.
const UNASKED_BYTES_MAX: usize = 1 << 20;

/// One file of the log.
#[derive(Debug)]
pub struct Segment {
    /// Its number in the log.
    pub number: u64,
    /// Its file's path, for messages.
    pub path: PathBuf,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Where its checksums start.
    pub seed: Seed,
    /// How many bytes are used; set when it is sealed.
    sealed_len: OnceLock<u64>,
    map: OnceLock<Option<Bytes>>,
    /// While it is written to.
    growing: OnceLock<Option<Arc<GrowingMap>>>,
    /// How far it is written, as its writer says.
    written: AtomicU64,
    pub(super) trust: Trust,
}

impl Segment {
    /// Returns a segment that is still written to.
    pub fn new(number: u64, path: PathBuf, file: Arc<dyn DiskFile>, seed: Seed) -> Self {
        Self {
            number,
            path,
            file,
            seed,
            sealed_len: OnceLock::new(),
            map: OnceLock::new(),
            growing: OnceLock::new(),
            written: AtomicU64::new(0),
            trust: Trust::Checked,
        }
    }

    /// Returns a segment of `len` bytes that is not read at the start.
    pub(super) fn spared(
        number: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        seed: Seed,
        len: u64,
    ) -> Self {
        let segment = Self::new(number, path, file, seed);
        segment.seal(len);
        Self { trust: Trust::ByBatch(OnceLock::new()), ..segment }
    }

    /// Says that what lies before the place where reading began was not checked.
    #[must_use]
    pub(super) fn partly_spared(self) -> Self {
        Self { trust: Trust::ByBatch(OnceLock::new()), ..self }
    }

    /// Returns the same file, read by `pread` alone: a bad disk is an error there.
    pub(super) fn unmapped(&self) -> Self {
        // The clones count references.
        Self::new(self.number, self.path.clone(), Arc::clone(&self.file), self.seed.clone())
    }

    /// Says that nothing will be written behind `len` any more.
    pub fn seal(&self, len: u64) {
        // A second call says the same: a segment is sealed once, by its writer.
        let _first = self.sealed_len.set(len);
    }

    /// Returns the bytes at `position`, fewer at the end of the file.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the file cannot be read.
    pub fn read(&self, position: u64, len: usize) -> Result<Bytes, StorageError> {
        if let Some(map) = self.mapped() {
            let start = usize::try_from(position).unwrap_or(usize::MAX).min(map.len());
            let end = start.saturating_add(len).min(map.len());
            return Ok(map.slice(start..end));
        }
        let growing = self.growing(position);
        if let Some(bytes) = growing.and_then(|(map, written)| map.read(written, position, len)) {
            return Ok(bytes);
        }
        let failed = |source| StorageError::io("read segment", &self.path)(source);
        let len = match len {
            0..=UNASKED_BYTES_MAX => len,
            _ => {
                let left = self.file.len().map_err(failed)?.saturating_sub(position);
                len.min(usize::try_from(left).unwrap_or(usize::MAX))
            }
        };
        let mut buffer = BytesMut::zeroed(len);
        let read = self.file.read_at(position, &mut buffer).map_err(failed)?;
        buffer.truncate(read);
        Ok(buffer.freeze())
    }

    /// Returns the bytes at `position`, as [`Segment::read`] does; where they are mapped nothing is copied,
    /// allocated or counted.
    ///
    /// # Errors
    /// As there.
    pub(super) fn look(&self, position: u64, len: usize) -> Result<Looked<'_>, StorageError> {
        if let Some(map) = self.mapped() {
            let start = usize::try_from(position).unwrap_or(usize::MAX).min(map.len());
            let end = start.saturating_add(len).min(map.len());
            return Ok(Looked::Mapped(map.get(start..end).unwrap_or_default()));
        }
        if let Some(bytes) =
            self.growing(position).and_then(|(map, written)| map.look(written, position, len))
        {
            return Ok(Looked::Mapped(bytes));
        }
        self.read(position, len).map(Looked::Read)
    }

    /// Returns whether nothing will be written to it any more.
    pub fn is_sealed(&self) -> bool {
        self.sealed_len.get().is_some()
    }

    /// Returns how many bytes are used, once nothing will be written any more.
    pub fn sealed_len(&self) -> Option<u64> {
        self.sealed_len.get().copied()
    }

    fn mapped(&self) -> Option<&Bytes> {
        let len = *self.sealed_len.get()?;
        self.map
            .get_or_init(|| {
                // Without a map the segment is read by pread: slower, and as right.
                self.file.map_source().and_then(|file| mmap::map_sealed(file, len).ok())
            })
            .as_ref()
    }

    /// Hears from its writer that it is written up to `end`, and nothing below is written again.
    pub(super) fn advance(&self, end: u64) {
        self.written.store(end, Ordering::Release);
    }

    /// Returns the map of what is written so far, and how much that is; `None` where the writer has not
    /// said so of the byte at `position`.
    fn growing(&self, position: u64) -> Option<(&Arc<GrowingMap>, u64)> {
        let written = self.written.load(Ordering::Acquire);
        if position >= written {
            return None;
        }
        let map = self.growing.get_or_init(|| {
            // Without a map it is read by pread.
            self.file.map_source().and_then(|file| GrowingMap::of(file).ok())
        });
        map.as_ref().map(|map| (map, written))
    }

    /// Reads the entry that starts at `position`.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn read_entry(
        &self,
        position: u64,
        check: Check,
    ) -> Result<(EntryHeader, Item), StorageError> {
        let check = match self.trust {
            Trust::Checked => check,
            Trust::ByBatch(_) => Check::Full,
        };
        let head = self.read(position, ENTRY_HEADER_BYTES)?;
        let head: &[u8; ENTRY_HEADER_BYTES] = head
            .as_ref()
            .try_into()
            .map_err(|_| self.corrupt(position, "an entry", "the end of the file"))?;
        let (header, _) = EntryHeader::decode(head, &self.seed)
            .map_err(|fault| self.header_fault(position, fault))?;
        let body_len =
            usize::try_from(header.total_bytes()).unwrap_or(usize::MAX) - ENTRY_HEADER_BYTES;
        let body = self.read(position + ENTRY_HEADER_BYTES as u64, body_len)?;
        let item = decode_body(&header, &body, &self.seed, check)
            .map_err(|fault| self.body_fault(position, fault))?;
        Ok((header, item))
    }

    /// Reads the header of the entry that starts at `position`, and returns it with its CRC.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub(super) fn read_header(&self, position: u64) -> Result<(EntryHeader, u32), StorageError> {
        let head = self.read(position, ENTRY_HEADER_BYTES)?;
        let Some(head) = head.first_chunk::<ENTRY_HEADER_BYTES>() else {
            return Err(self.corrupt(position, "an entry", "the end of the file"));
        };
        EntryHeader::decode(head, &self.seed).map_err(|fault| self.header_fault(position, fault))
    }

    /// Returns the error for damage at `position`.
    pub fn corrupt(&self, position: u64, expected: &str, found: &str) -> StorageError {
        corrupt(&self.path, position, expected, found)
    }

    /// Returns the error for bytes that are no header.
    pub fn header_fault(&self, position: u64, fault: HeaderFault) -> StorageError {
        header_fault(&self.path, position, fault)
    }

    /// Returns the error for a body that does not verify.
    pub fn body_fault(&self, position: u64, fault: BodyFault) -> StorageError {
        match fault {
            BodyFault::Checksum { expected, found } => self.corrupt(
                position,
                &format!("body checksum {expected:08x}"),
                &format!("{found:08x}"),
            ),
            BodyFault::Shape => {
                self.corrupt(position, "a body as its header says", "fields that contradict it")
            }
            BodyFault::Batch { frame } => self.corrupt(
                position,
                &format!("a batch that verifies in frame {frame}"),
                "a checksum mismatch",
            ),
        }
    }
}

/// Bytes of a segment.
#[derive(Debug)]
pub(super) enum Looked<'a> {
    Mapped(&'a [u8]),
    Read(Bytes),
}

impl Deref for Looked<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

/// The segments as they were at one moment. A clone counts a reference.
#[derive(Clone, Debug, Default)]
pub(in crate::storage) struct PinnedSegments(Arc<Known>);

impl PinnedSegments {
    /// Returns the segment of that number.
    pub(in crate::storage) fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.0.by_number.get(&number).cloned()
    }
}

/// All segments of a log.
#[derive(Debug, Default)]
pub struct Segments {
    known: ArcSwap<Known>,
    pub(super) walked: Walked,
}

/// The segments at one moment.
#[derive(Clone, Debug, Default)]
struct Known {
    by_number: BTreeMap<u64, Arc<Segment>>,
    /// Their numbers in the order of the log; those that were replaced and are still read are not in it.
    order: Vec<u64>,
}

impl Segments {
    /// Returns the segment of that number.
    pub fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.known.load().by_number.get(&number).cloned()
    }

    /// Looks at the segment of that number, without counting a reference.
    pub(in crate::storage) fn with<T>(
        &self,
        number: u64,
        look: impl FnOnce(Option<&Segment>) -> T,
    ) -> T {
        look(self.known.load().by_number.get(&number).map(Arc::as_ref))
    }

    /// Adds a segment behind all others; only the writer does.
    pub fn insert(&self, segment: &Arc<Segment>) {
        self.known.rcu(|now| {
            let mut next = Known::clone(now);
            next.by_number.insert(segment.number, Arc::clone(segment));
            if !next.order.contains(&segment.number) {
                next.order.push(segment.number);
            }
            next
        });
    }

    /// Adds a segment that is read and has no place in the order yet.
    pub(in crate::storage) fn show(&self, segment: &Arc<Segment>) {
        self.known.rcu(|now| {
            let mut next = Known::clone(now);
            next.by_number.insert(segment.number, Arc::clone(segment));
            next
        });
    }

    /// Puts a segment, or none, into the place of neighbours. They are still read until they are removed.
    pub(in crate::storage) fn replace(&self, run: &[u64], by: Option<u64>) {
        self.known.rcu(|now| {
            let mut next = Known::clone(now);
            let at = next.order.iter().position(|number| run.contains(number));
            next.order.retain(|number| !run.contains(number));
            if let (Some(at), Some(by)) = (at, by) {
                next.order.insert(at, by);
            }
            next
        });
    }

    /// Puts segments into the place of all that stand before a number; returns those, which are still read
    /// until they are removed.
    pub(in crate::storage) fn begin_with(
        &self,
        segments: &[Arc<Segment>],
        number: u64,
    ) -> Vec<Arc<Segment>> {
        let before = self.known.load();
        let gone = before.order.iter().take_while(|other| **other != number);
        let gone = gone.filter_map(|number| before.by_number.get(number).cloned()).collect();
        self.known.rcu(|now| {
            let mut next = Known::clone(now);
            let own = next.order.iter().position(|other| *other == number);
            let own = next.order.split_off(own.unwrap_or(next.order.len()));
            next.order = segments.iter().map(|segment| segment.number).chain(own).collect();
            let shown = segments.iter().map(|it| (it.number, Arc::clone(it)));
            next.by_number.extend(shown);
            next
        });
        gone
    }

    /// Returns the segments as they are now: what is removed later stays readable there.
    pub(in crate::storage) fn pinned(&self) -> PinnedSegments {
        PinnedSegments(self.known.load_full())
    }

    /// Takes a segment out; slices of it stay valid.
    pub fn remove(&self, number: u64) {
        self.known.rcu(|now| {
            let mut next = Known::clone(now);
            next.by_number.remove(&number);
            next.order.retain(|other| *other != number);
            next
        });
    }

    /// Returns the largest number of any; 0 = there is none.
    pub(in crate::storage) fn largest_number(&self) -> u64 {
        self.known.load().by_number.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.known.load().order.len()
    }

    /// Returns those before a number in the order of the log, with how many bytes of each are used.
    pub(in crate::storage) fn sealed_before(&self, number: u64) -> Vec<(u64, u64)> {
        let known = self.known.load();
        let before = known.order.iter().take_while(|other| **other != number);
        before
            .filter_map(|number| Some((*number, known.by_number.get(number)?.sealed_len()?)))
            .collect()
    }
}

fn corrupt(path: &Path, position: u64, expected: &str, found: &str) -> StorageError {
    StorageError::Corrupt {
        path: path.to_path_buf(),
        position,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Returns the error for bytes of a file that are no header.
pub(super) fn header_fault(path: &Path, position: u64, fault: HeaderFault) -> StorageError {
    match fault {
        HeaderFault::Format(found) => StorageError::NewerFormat {
            path: path.to_path_buf(),
            found,
            known: super::header::FORMAT,
        },
        HeaderFault::Zero => corrupt(path, position, "an entry", "zeros"),
        HeaderFault::Magic => corrupt(path, position, "an entry", "other bytes"),
        HeaderFault::Field => corrupt(path, position, "an entry", "a field out of range"),
        HeaderFault::Checksum { expected, found } => corrupt(
            path,
            position,
            &format!("header checksum {expected:08x}"),
            &format!("{found:08x}"),
        ),
    }
}

/// Returns the path of a segment in `dir`.
pub(super) fn segment_path(dir: &Path, log_id: u64, number: u64) -> PathBuf {
    dir.join(super::segment::file_name(log_id, number))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::storage::disk::{Disk as _, sim::SimDisk};

    #[test]
    fn a_length_is_believed_only_as_far_as_the_file_goes() {
        let path = Path::new("/0000000000000007-0000000001.log");
        let file = SimDisk::new().create(path).unwrap();
        file.write_at(0, &[IoSlice::new(b"abcdef")]).unwrap();
        let segment = Segment::new(1, path.into(), file, Seed::new(7, 1));
        for position in [2, 6, u64::MAX] {
            let read = segment.read(position, usize::MAX).unwrap();
            assert_eq!(read.len() as u64, 6_u64.saturating_sub(position));
        }
    }
}
