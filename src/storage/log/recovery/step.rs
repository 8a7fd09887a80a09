//! Reads one entry after the other, and says why there is no further one.

use bytes::Bytes;

use super::scan::End;
use crate::storage::{
    StorageError,
    log::{
        entry::{BodyFault, Check, Item, decode_body},
        header::{ENTRY_HEADER_BYTES, EntryHeader, HeaderFault, Lsn},
        segments::Segment,
    },
};

/// Why there is no entry at a position.
pub(super) enum Stop {
    Zero,
    Header(HeaderFault),
    Body(BodyFault),
    Chain { expected: u32, found: u32 },
    Lsn { after: Lsn, found: Lsn },
    End,
}

impl Stop {
    pub(super) fn into_error(self, segment: &Segment, position: u64) -> StorageError {
        match self {
            Self::Zero => segment.header_fault(position, HeaderFault::Zero),
            Self::Header(fault) => segment.header_fault(position, fault),
            Self::Body(fault) => segment.body_fault(position, fault),
            Self::Chain { expected, found } => segment.corrupt(
                position,
                &format!("an entry after header checksum {expected:08x}"),
                &format!("one after {found:08x}"),
            ),
            Self::Lsn { after, found } => segment.corrupt(
                position,
                &format!("an entry number above {after}"),
                &format!("{found}"),
            ),
            Self::End => segment.corrupt(position, "a whole entry", "the end of the segment"),
        }
    }
}

pub(super) type Read = Result<(EntryHeader, Item, u32), Stop>;

/// Reads and checks the entry at `position`, which must end at or before `limit`.
pub(super) fn read_entry(
    window: &mut Window<'_>,
    position: u64,
    limit: u64,
    before: End,
) -> Result<Read, StorageError> {
    let body_at = position + ENTRY_HEADER_BYTES as u64;
    if body_at > limit {
        // Fewer bytes than a header: nothing, if they are zeros.
        let rest = window.bytes(position, limit.saturating_sub(position))?;
        let is_zero = rest.iter().all(|byte| *byte == 0);
        return Ok(Err(if is_zero { Stop::Zero } else { Stop::End }));
    }
    let head = window.bytes(position, ENTRY_HEADER_BYTES as u64)?;
    let Ok(head) = <&[u8; ENTRY_HEADER_BYTES]>::try_from(head.as_ref()) else {
        return Ok(Err(Stop::End));
    };
    let (header, header_crc) = match EntryHeader::decode(head, &window.segment.seed) {
        Ok(decoded) => decoded,
        Err(HeaderFault::Zero) => return Ok(Err(Stop::Zero)),
        Err(fault) => return Ok(Err(Stop::Header(fault))),
    };
    if header.prev_crc != before.header_crc {
        return Ok(Err(Stop::Chain { expected: before.header_crc, found: header.prev_crc }));
    }
    if header.lsn <= before.lsn {
        return Ok(Err(Stop::Lsn { after: before.lsn, found: header.lsn }));
    }
    // The length is under the header's checksum, and is still believed only within the file.
    if position + header.total_bytes() > limit {
        return Ok(Err(Stop::End));
    }
    let body = window.bytes(body_at, header.total_bytes() - ENTRY_HEADER_BYTES as u64)?;
    Ok(match decode_body(&header, &body, &window.segment.seed, Check::Full) {
        Ok(item) => Ok((header, item, header_crc)),
        Err(fault) => Err(Stop::Body(fault)),
    })
}

/// Reads a file front to back in large pieces.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    start: u64,
    bytes: Bytes,
}

/// A file is read in pieces of this size, or of one entry.
const WINDOW_BYTES: u64 = 1 << 20;

impl<'a> Window<'a> {
    pub(super) fn new(segment: &'a Segment) -> Self {
        Self { segment, start: 0, bytes: Bytes::new() }
    }

    /// Returns `len` bytes at `position`; fewer only at the end of the file.
    fn bytes(&mut self, position: u64, len: u64) -> Result<Bytes, StorageError> {
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + len > end {
            let want = usize::try_from(len.max(WINDOW_BYTES)).unwrap_or(usize::MAX);
            self.bytes = self.segment.read(position, want)?;
            self.start = position;
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let to = to.min(self.bytes.len());
        Ok(self.bytes.slice(from.min(to)..to))
    }
}
