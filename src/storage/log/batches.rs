//! The batches of a segment, and single records of them.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use prkdb_types::{
    BatchError, Compression, DecompressLimit, RecordView, Records,
    batch::{Batch, BatchHeader, HEAD_LEN, HEADER_LEN},
};

use super::{header::array_at, segments::Segment};
use crate::storage::{StorageError, bug::bug};

/// Whether what a segment holds was checked since the start.
#[derive(Debug)]
pub(super) enum Trust {
    /// It was written or read whole.
    Checked,
    /// A checkpoint spared its reading: each batch is checked when it is read, a small one each time, a
    /// large one the first time. No two batches larger than a cell begin in the same one.
    ByBatch(OnceLock<Box<[AtomicU64]>>),
}

/// Size of a cell, and of a small batch.
const CELL_BYTES: u64 = 4096;

/// A decompressed batch has at most this many bytes: the largest message there can be.
const DECOMPRESS_LIMIT: DecompressLimit = DecompressLimit::new(64 << 20);
/// Read this much at once where the length is not known: a single put fits.
const FIRST_READ_BYTES: usize = 512;

impl Segment {
    /// Looks at the record that begins at `start` in the batch at `position`. Of the batch no more is read
    /// than it takes.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn with_record<T>(
        &self,
        position: u64,
        start: u32,
        look: impl FnOnce(&RecordView<'_>) -> T,
    ) -> Result<T, StorageError> {
        let wrong = |error: BatchError| {
            self.corrupt(position, "a batch with the record", &error.to_string())
        };
        if let Some((header, place, left)) = self.plain(position, start)? {
            let first = self.look(place, FIRST_READ_BYTES.min(left))?;
            match Records::first_len(&first) {
                Some(len) if len <= first.len() => {
                    return Ok(look(&RecordView::first_of(&header, &first).map_err(wrong)?));
                }
                Some(len) if len <= left => {
                    let records = Records::part_of(&header, self.read(place, len)?);
                    return Ok(look(&records.get_at(0).map_err(wrong)?));
                }
                // Whoever reads the batch whole says what is wrong with it.
                _ => {}
            }
        }
        let records = self.read_batch(position)?.records(DECOMPRESS_LIMIT).map_err(wrong)?;
        Ok(look(&records.get_at(start).map_err(wrong)?))
    }

    /// Returns the header of a large batch that is not compressed and was checked, where in the file what
    /// begins at `start` lies, and how many bytes of the batch are left there; `None` for any other.
    fn plain(
        &self,
        position: u64,
        start: u32,
    ) -> Result<Option<(BatchHeader, u64, usize)>, StorageError> {
        if matches!(self.trust, Trust::ByBatch(_)) {
            return Ok(None);
        }
        let Some(header) = BatchHeader::peek(&self.look(position, HEADER_LEN)?) else {
            return Ok(None);
        };
        // The length field of a batch counts what stands behind it.
        let batch_len = usize::try_from(header.length).unwrap_or_default().saturating_add(12);
        let is_plain = matches!(header.compression(), Ok(Compression::None));
        if !is_plain || batch_len <= FIRST_READ_BYTES {
            return Ok(None);
        }
        let at = HEADER_LEN.saturating_add(usize::try_from(start).unwrap_or(usize::MAX));
        Ok(Some((header, position + at as u64, batch_len.saturating_sub(at))))
    }

    /// Reads the batch that starts at `position`.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn read_batch(&self, position: u64) -> Result<Batch, StorageError> {
        let first = self.read(position, FIRST_READ_BYTES)?;
        if first.len() < HEAD_LEN {
            return Err(self.corrupt(position, "a batch", "the end of the file"));
        }
        // The length field of a batch counts what stands behind it.
        let len = usize::try_from(u32::from_be_bytes(array_at(&first, 8))).unwrap_or(usize::MAX);
        let total = len.saturating_add(12);
        let bytes = if total <= first.len() {
            first.slice(..total)
        } else {
            // A length behind the end of the file gives what is there, which is no batch.
            self.read(position, total)?
        };
        let batch = Batch::parse(bytes)
            .map_err(|error| self.corrupt(position, "a batch", &error.to_string()))?;
        self.check_first_read(position, &batch)?;
        Ok(batch)
    }

    /// Checks a batch that was not checked at the start.
    fn check_first_read(&self, position: u64, batch: &Batch) -> Result<(), StorageError> {
        let Trust::ByBatch(cells) = &self.trust else { return Ok(()) };
        if bug!(HistoryNotChecked) {
            return Ok(());
        }
        let verify = || {
            let verified = batch.verify_crc();
            verified.map_err(|error| {
                self.corrupt(position, "a batch that verifies", &error.to_string())
            })
        };
        if batch.len() as u64 <= CELL_BYTES {
            return verify();
        }
        let cell = position / CELL_BYTES;
        let cells = cells.get_or_init(|| {
            let len = self.file.len().unwrap_or(0);
            let count = len.div_ceil(CELL_BYTES).div_ceil(64);
            (0..count).map(|_| AtomicU64::new(0)).collect()
        });
        let known = usize::try_from(cell / 64).ok().and_then(|word| cells.get(word));
        let bit = 1 << (cell % 64);
        if known.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
            return Ok(());
        }
        verify()?;
        if let Some(word) = known {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }
}
