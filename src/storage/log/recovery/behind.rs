//! Looks at what lies behind the end of the log: it tells numbers that were given out, and watermarks.

use super::survey::Found;
use crate::storage::{
    StorageError,
    log::{
        header::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, HeaderFault, Lsn, Seed},
        segments::header_fault,
    },
};

/// Files are read in pieces of this size.
const WINDOW_BYTES: u64 = 1 << 20;

/// What lies behind the end of the log.
#[derive(Default)]
pub(super) struct Behind {
    /// Up to the last byte that is not zero.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) largest_lsn: Lsn,
    pub(super) watermark: Lsn,
}

/// Looks for headers from `from` on, at every place where one may start.
///
/// # Errors
/// [`StorageError::NewerFormat`] and [`StorageError::Corrupt`] for a header that verifies and is not
/// understood: what stands there was not torn, it is of a later version.
pub(super) fn look(found: &Found, seed: &Seed, from: u64) -> Result<Behind, StorageError> {
    let mut behind = Behind::default();
    let mut position = from;
    let mut buffer = vec![0; usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX)];
    while position < found.len {
        let read = found
            .file
            .read_at(position, &mut buffer)
            .map_err(StorageError::io("read segment", &found.path))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            behind.bytes = position + last as u64 + 1 - from;
            look_in(bytes, seed, &mut behind)
                .map_err(|(at, fault)| header_fault(&found.path, position + at, fault))?;
        }
        if read < buffer.len() {
            break;
        }
        // The windows overlap by a header, so that none is missed.
        let overlap = (ENTRY_HEADER_BYTES as u64).next_multiple_of(ENTRY_ALIGNMENT);
        position += read as u64 - overlap;
    }
    Ok(behind)
}

fn look_in(bytes: &[u8], seed: &Seed, behind: &mut Behind) -> Result<(), (u64, HeaderFault)> {
    let step = usize::try_from(ENTRY_ALIGNMENT).unwrap_or(1);
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + ENTRY_HEADER_BYTES) {
        if let Ok(head) = <&[u8; ENTRY_HEADER_BYTES]>::try_from(head) {
            match EntryHeader::decode(head, seed) {
                Ok((header, _)) => {
                    if header.lsn > behind.largest_lsn {
                        behind.entries += 1;
                    }
                    behind.largest_lsn = behind.largest_lsn.max(header.lsn);
                    behind.watermark = behind.watermark.max(header.synced_lsn);
                }
                Err(fault) if fault.is_verified() => return Err((at as u64, fault)),
                Err(_) => {}
            }
        }
        at += step;
    }
    Ok(())
}
