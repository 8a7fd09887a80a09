//! Looks for entries behind the place where a log breaks: each is believed by its own checksums.

use std::collections::BTreeSet;

use super::{report::Following, tally::records};
use crate::storage::{
    StorageError,
    log::{
        body::Check,
        header::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, Lsn},
        segments::Segment,
    },
};

/// Files are read in pieces of this size.
const WINDOW_BYTES: usize = 1 << 20;
/// What every header begins with: most places are told by it alone.
const FIRST_BYTE: u8 = b'P';

/// Entries found so far.
#[derive(Debug, Default)]
pub(super) struct Search {
    found: Vec<Found>,
    /// A copy that recovery made has the LSN of its original.
    seen: BTreeSet<Lsn>,
    /// The highest committed index that any of them states.
    pub(super) committed: Option<u64>,
}

#[derive(Debug)]
struct Found {
    index: Option<u64>,
    records: u64,
}

impl Search {
    /// Looks through a file from `from` on for entries with an LSN above `after`.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(super) fn look(
        &mut self,
        segment: &Segment,
        from: u64,
        after: Lsn,
    ) -> Result<(), StorageError> {
        let mut position = from;
        loop {
            let window = segment.read(position, WINDOW_BYTES)?;
            let mut at = 0;
            while let Some(head) = window.get(at..at + ENTRY_HEADER_BYTES) {
                let step = match head.first() {
                    Some(&FIRST_BYTE) => self.take(segment, position + at as u64, head, after),
                    _ => ENTRY_ALIGNMENT,
                };
                at = at.saturating_add(usize::try_from(step).unwrap_or(usize::MAX));
            }
            if window.len() < WINDOW_BYTES {
                return Ok(());
            }
            // An entry may reach behind the window, and a header across its end.
            position += at as u64;
        }
    }

    /// Takes the entry that starts here, if one does; returns how far the next may be.
    fn take(&mut self, segment: &Segment, position: u64, head: &[u8], after: Lsn) -> u64 {
        let Ok(head) = <&[u8; ENTRY_HEADER_BYTES]>::try_from(head) else { return ENTRY_ALIGNMENT };
        let Ok((header, _)) = EntryHeader::decode(head, &segment.seed) else {
            return ENTRY_ALIGNMENT;
        };
        // A header that verifies and a body that does not: the next entry is looked for inside.
        let Ok((_, item)) = segment.read_entry(position, Check::Full) else {
            return ENTRY_ALIGNMENT;
        };
        self.committed = self.committed.max(header.committed);
        if header.lsn > after && self.seen.insert(header.lsn) {
            let index = (!header.kind.is_control()).then_some(header.index);
            self.found.push(Found { index, records: records(&item) });
        }
        header.total_bytes()
    }

    /// Adds up what was found; `committed` is the highest index that is stated anywhere.
    pub(super) fn sum(&self, committed: Option<u64>) -> Following {
        let is_committed =
            |found: &&Found| found.index.is_some_and(|index| Some(index) <= committed);
        Following {
            entries: self.found.len() as u64,
            records: self.found.iter().map(|found| found.records).sum(),
            committed_records: self.found.iter().filter(is_committed).map(|f| f.records).sum(),
            last_index: self.found.iter().filter_map(|found| found.index).max(),
        }
    }
}
