//! The 72 bytes in front of every entry of the log.
//!
//! | at | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `PrkE` |
//! | 4 | 1 | format | 1 |
//! | 5 | 1 | kind | [`Kind`] |
//! | 6 | 2 | flags | bit 0: the entry is void |
//! | 8 | 4 | body length | without padding |
//! | 12 | 4 | frame count | kind 2 only, else 0 |
//! | 16 | 8 | lsn | rises with every entry of this log |
//! | 24 | 8 | term | 0 in control entries |
//! | 32 | 8 | index | 0 in control entries |
//! | 40 | 8 | synced lsn | highest known synced when this was written |
//! | 48 | 8 | committed | committed index + 1 when this was written; 0 = none |
//! | 56 | 4 | previous CRC | header CRC of the entry before; 0 in the first |
//! | 60 | 4 | body CRC | |
//! | 64 | 4 | zero | |
//! | 68 | 4 | header CRC | covers 0..68 |
//!
//! All numbers are little-endian. The CRCs are seeded with the log and the segment
//! ([`Seed`]), so that an entry read from the wrong place never verifies.

use prkdb_types::crc::Crc32c;

use crate::storage::bug::bug;

/// Size of the header.
pub const ENTRY_HEADER_BYTES: usize = 72;
/// Entries start at multiples of this.
pub const ENTRY_ALIGNMENT: u64 = 8;

const MAGIC: [u8; 4] = *b"PrkE";
/// The format this version writes, of entries and of segments.
pub const FORMAT: u8 = 1;
const FLAG_VOID: u16 = 1;

/// LSNs, terms and indexes lie below it, so that the one behind is a number too.
pub(in crate::storage) const NUMBERS_END: u64 = 1 << 63;

/// A log sequence number: names an entry of one replica's log. Starts at 1; 0 means none.
pub type Lsn = u64;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new leader's first entry.
    Blank,
    /// Frames with record batches.
    Normal,
    /// The replicas of the shard.
    Membership,
    /// A control entry: this replica's vote.
    Vote,
    /// A control entry: entries behind an index are gone.
    Truncate,
    /// A control entry: the purge mark.
    Purge,
    /// A control entry that only carries the watermark and the committed index in its header.
    Sync,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Blank,
            2 => Self::Normal,
            3 => Self::Membership,
            4 => Self::Vote,
            5 => Self::Truncate,
            6 => Self::Purge,
            7 => Self::Sync,
            _ => return None,
        })
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Blank => 1,
            Self::Normal => 2,
            Self::Membership => 3,
            Self::Vote => 4,
            Self::Truncate => 5,
            Self::Purge => 6,
            Self::Sync => 7,
        }
    }

    /// Returns whether entries of this kind belong to this replica alone and have no Raft index.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Vote | Self::Truncate | Self::Purge | Self::Sync)
    }
}

/// The start of every CRC in a segment: CRC32C of the log's id and the segment's number.
#[derive(Clone, Debug)]
pub struct Seed(Crc32c);

impl Seed {
    /// Returns the seed of one segment of one log.
    pub fn new(log_id: u64, segment: u64) -> Self {
        let mut crc = Crc32c::new();
        crc.update(&log_id.to_le_bytes());
        crc.update(&segment.to_le_bytes());
        Self(crc)
    }

    /// Returns a checksum carried on from the seed over `slices`.
    pub fn checksum(&self, slices: &[&[u8]]) -> u32 {
        let mut crc = self.0;
        for slice in slices {
            crc.update(slice);
        }
        crc.finish()
    }

    /// Returns a checksum to be carried on by the caller.
    pub fn start(&self) -> Crc32c {
        self.0
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the entry is.
    pub kind: Kind,
    /// The chain of its sequencer was broken: it has no frames for anybody.
    pub is_void: bool,
    /// Length of the body without padding.
    pub body_len: u32,
    /// Frames in the body.
    pub frame_count: u32,
    /// Its place in this log.
    pub lsn: Lsn,
    /// Raft term; 0 in control entries.
    pub term: u64,
    /// Raft index; 0 in control entries.
    pub index: u64,
    /// Highest LSN known synced when this was written.
    pub synced_lsn: Lsn,
    /// Committed index known when this was written.
    pub committed: Option<u64>,
    /// Header CRC of the entry before.
    pub prev_crc: u32,
    /// CRC of the body's own part; the batches have theirs.
    pub body_crc: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Nothing but zeros: the log ends here.
    Zero,
    /// Not the magic of an entry.
    Magic,
    /// Checksum: expected by the header, found over its bytes.
    Checksum {
        /// What the header says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The checksum holds, and the format is one this version does not know.
    Format(u8),
    /// The checksum holds, and a field is out of its range.
    Field,
}

impl HeaderFault {
    /// Returns whether the bytes are whole as they were written, and not understood.
    pub fn is_verified(self) -> bool {
        matches!(self, Self::Format(_) | Self::Field)
    }
}

fn u16_at(bytes: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Copies `N` bytes out of a buffer at a constant place inside it.
#[expect(clippy::indexing_slicing, reason = "constant places inside a buffer of constant size")]
pub(in crate::storage) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl EntryHeader {
    /// Encodes the header and returns it with its CRC.
    pub fn encode(&self, seed: &Seed) -> ([u8; ENTRY_HEADER_BYTES], u32) {
        let mut out = [0; ENTRY_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = FORMAT;
        out[5] = self.kind.to_byte();
        out[6..8].copy_from_slice(&(u16::from(self.is_void) * FLAG_VOID).to_le_bytes());
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.frame_count.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        out[24..32].copy_from_slice(&self.term.to_le_bytes());
        out[32..40].copy_from_slice(&self.index.to_le_bytes());
        out[40..48].copy_from_slice(&self.synced_lsn.to_le_bytes());
        out[48..56].copy_from_slice(&encode_committed(self.committed).to_le_bytes());
        out[56..60].copy_from_slice(&self.prev_crc.to_le_bytes());
        out[60..64].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = seed.checksum(&[&out[..68]]);
        out[68..72].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Decodes a header and returns it with its CRC.
    ///
    /// # Errors
    /// Says why the bytes are none.
    pub fn decode(
        bytes: &[u8; ENTRY_HEADER_BYTES],
        seed: &Seed,
    ) -> Result<(Self, u32), HeaderFault> {
        if bytes[0..4] != MAGIC {
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            return Err(if is_zero { HeaderFault::Zero } else { HeaderFault::Magic });
        }
        let expected = u32_at(bytes, 68);
        let found = seed.checksum(&[&bytes[..68]]);
        if expected != found && !bug!(CrcNotChecked) {
            return Err(HeaderFault::Checksum { expected, found });
        }
        if bytes[4] != FORMAT {
            return Err(HeaderFault::Format(bytes[4]));
        }
        let kind = Kind::from_byte(bytes[5]).ok_or(HeaderFault::Field)?;
        let flags = u16_at(bytes, 6);
        let header = Self {
            kind,
            is_void: flags & FLAG_VOID != 0,
            body_len: u32_at(bytes, 8),
            frame_count: u32_at(bytes, 12),
            lsn: u64_at(bytes, 16),
            term: u64_at(bytes, 24),
            index: u64_at(bytes, 32),
            synced_lsn: u64_at(bytes, 40),
            committed: decode_committed(u64_at(bytes, 48)),
            prev_crc: u32_at(bytes, 56),
            body_crc: u32_at(bytes, 60),
        };
        let is_sound = flags & !FLAG_VOID == 0
            && u32_at(bytes, 64) == 0
            && header.lsn > 0
            && header.synced_lsn < header.lsn
            && [header.lsn, header.term, header.index, header.committed.unwrap_or_default()]
                .iter()
                .all(|number| *number < NUMBERS_END)
            && (kind == Kind::Normal || (header.frame_count == 0 && !header.is_void))
            && (!kind.is_control() || (header.term == 0 && header.index == 0));
        if is_sound { Ok((header, found)) } else { Err(HeaderFault::Field) }
    }

    /// Returns the size of the whole entry with its padding.
    pub fn total_bytes(&self) -> u64 {
        padded(ENTRY_HEADER_BYTES as u64 + u64::from(self.body_len))
    }
}

/// Rounds up to where the next entry starts.
pub fn padded(len: u64) -> u64 {
    len.next_multiple_of(ENTRY_ALIGNMENT)
}

/// Encodes a committed index as formats say: plus one, 0 for none.
pub(super) fn encode_committed(committed: Option<u64>) -> u64 {
    committed.map_or(0, |index| index.saturating_add(1))
}

/// Decodes a committed index.
pub(super) fn decode_committed(stored: u64) -> Option<u64> {
    stored.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> EntryHeader {
        EntryHeader {
            kind: Kind::Normal,
            is_void: true,
            body_len: 1000,
            frame_count: 3,
            lsn: 17,
            term: 4,
            index: 9,
            synced_lsn: 15,
            committed: Some(8),
            prev_crc: 0x0102_0304,
            body_crc: 0x0506_0708,
        }
    }

    #[test]
    fn a_header_reads_back_as_written() {
        let seed = Seed::new(7, 1);
        let (bytes, crc) = sample().encode(&seed);
        assert_eq!(EntryHeader::decode(&bytes, &seed), Ok((sample(), crc)));
    }

    #[test]
    fn no_flipped_bit_verifies() {
        let seed = Seed::new(7, 1);
        let (bytes, _) = sample().encode(&seed);
        for bit in 0..ENTRY_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(EntryHeader::decode(&flipped, &seed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_segment_or_log_does_not_verify() {
        let (bytes, _) = sample().encode(&Seed::new(7, 1));
        assert!(EntryHeader::decode(&bytes, &Seed::new(7, 2)).is_err());
        assert!(EntryHeader::decode(&bytes, &Seed::new(8, 1)).is_err());
    }

    #[test]
    fn numbers_that_leave_no_room_for_another_are_no_header() {
        let seed = Seed::new(7, 1);
        let last = NUMBERS_END - 1;
        let (bytes, _) =
            EntryHeader { lsn: last, term: last, index: last, ..sample() }.encode(&seed);
        assert!(EntryHeader::decode(&bytes, &seed).is_ok());
        for header in [
            EntryHeader { lsn: NUMBERS_END, ..sample() },
            EntryHeader { term: u64::MAX, ..sample() },
            EntryHeader { index: u64::MAX, ..sample() },
            EntryHeader { committed: Some(u64::MAX - 1), ..sample() },
        ] {
            let (bytes, _) = header.encode(&seed);
            assert_eq!(EntryHeader::decode(&bytes, &seed), Err(HeaderFault::Field), "{header:?}");
        }
    }
}
