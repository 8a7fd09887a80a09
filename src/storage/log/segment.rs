//! A segment's first page and its name.
//!
//! The page is 4,096 bytes; all of it that is not zero lies in the first sector, so it is there or
//! not there. It is written together with the segment's first entries, and by recovery last, after
//! the entries it vouches for are synced. It repeats the hard state (vote, committed, purge mark).
//!
//! | at | size | field | | at | size | field |
//! |---|---|---|---|---|---|---|
//! | 0 | 4 | magic `PrkS` | | 72 | 8 | first lsn |
//! | 4 | 1 | format = 1 | | 80 | 8 | first index |
//! | 5 | 1 | flags: 1 vote present, 2 vote committed, 4 purge present | | 88 | 8 | synced lsn |
//! | 6 | 2 | zero | | 96 | 8 | vote term |
//! | 8 | 4 | shard | | 104 | 8 | vote replica |
//! | 12 | 4 | previous CRC of the first entry | | 112 | 8 | committed + 1 |
//! | 16 | 16 | cluster id | | 120 | 8 | purge term |
//! | 32 | 8 | log id | | 128 | 8 | purge index |
//! | 40 | 8 | segment number | | 136 | 8 | created, ms |
//! | 48 | 8 | predecessor, 0 = none | | 144 | | zero, to 508 |
//! | 56 | 8 | cut LSN, 0 = not cut | | 508 | 4 | CRC of every other byte of the page |
//! | 64 | 8 | cut position in the predecessor | | 512 | | zero, to 4,096 |

use super::{
    entry::{Control, LogId, Vote},
    header::{FORMAT, Lsn, NUMBERS_END, Seed, array_at, decode_committed, encode_committed},
    history::is_history,
};

/// Size of the page.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"PrkS";
const CRC_AT: usize = 508;
const USED: usize = 144;
const VOTE_PRESENT: u8 = 1;
const VOTE_COMMITTED: u8 = 2;
const PURGE_PRESENT: u8 = 4;

/// What a replica must never forget, whatever becomes of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The vote, if one was cast.
    pub vote: Option<Vote>,
    /// Entries up to here are history and are not replicated any more.
    pub purged: Option<LogId>,
    /// The committed index as known when this was written.
    pub committed: Option<u64>,
}

impl HardState {
    /// Adds what a control entry says.
    pub fn adopt(&mut self, control: Control) {
        match control {
            Control::Vote(vote) => self.vote = Some(vote),
            Control::Purge(mark) if self.purged.is_none_or(|known| known.index < mark.index) => {
                self.purged = Some(mark);
            }
            Control::Purge(_) | Control::Truncate(_) | Control::Sync => {}
        }
    }
}

/// A decoded page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The shard whose log this is.
    pub shard: u32,
    /// The cluster the shard belongs to.
    pub cluster_id: [u8; 16],
    /// Drawn when the replica's log was created.
    pub log_id: u64,
    /// Counts segments of the log from 1; never used twice.
    pub number: u64,
    /// The segment before; 0 = this is the first.
    pub predecessor: u64,
    /// Entries of the predecessor above it are dead; 0 = all of it is alive.
    pub cut_lsn: Lsn,
    /// Where in the predecessor the dead part begins.
    pub cut_position: u64,
    /// Header CRC of the entry before the first one.
    pub prev_crc: u32,
    /// LSN of the first entry.
    pub first_lsn: Lsn,
    /// Raft index at or after which its first replicated entry stands.
    pub first_index: u64,
    /// Highest LSN known synced when this was written.
    pub synced_lsn: Lsn,
    /// The hard state when this was written.
    pub hard_state: HardState,
    /// When it was written, by the driver's clock.
    pub created_ms: i64,
}

/// Why a page is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// Nothing but zeros: prepared and never written.
    Zero,
    /// Damaged, or a file of something else.
    Damaged {
        /// What the page says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The checksum holds, and the format is one this version does not know.
    Format(u8),
    /// It is the whole page of another segment: the file has the wrong name.
    Misnamed {
        /// The log it belongs to.
        log_id: u64,
        /// The number it has there.
        number: u64,
    },
}

impl SegmentHeader {
    /// Encodes the page.
    #[expect(clippy::indexing_slicing, reason = "constant places inside a buffer of constant size")]
    pub fn encode(&self) -> Box<[u8; SEGMENT_HEADER_BYTES]> {
        let mut out = Box::new([0; SEGMENT_HEADER_BYTES]);
        let state = &self.hard_state;
        let vote = state.vote.unwrap_or_default();
        let purged = state.purged.unwrap_or_default();
        let mut flags = 0;
        if state.vote.is_some() {
            flags |= VOTE_PRESENT;
        }
        if vote.is_committed {
            flags |= VOTE_COMMITTED;
        }
        if state.purged.is_some() {
            flags |= PURGE_PRESENT;
        }
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = FORMAT;
        out[5] = flags;
        out[8..12].copy_from_slice(&self.shard.to_le_bytes());
        out[12..16].copy_from_slice(&self.prev_crc.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster_id);
        let words = [
            self.log_id,
            self.number,
            self.predecessor,
            self.cut_lsn,
            self.cut_position,
            self.first_lsn,
            self.first_index,
            self.synced_lsn,
            vote.term,
            vote.replica,
            encode_committed(state.committed),
            purged.term,
            purged.index,
        ];
        for (place, word) in out[32..136].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out[136..USED].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = page_crc(&out, &Seed::new(self.log_id, self.number));
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the page of the file named by `log_id` and `number`.
    ///
    /// # Errors
    /// Says why the page is no header of that segment.
    pub fn decode(
        page: &[u8; SEGMENT_HEADER_BYTES],
        log_id: u64,
        number: u64,
    ) -> Result<Self, PageFault> {
        if page.iter().all(|byte| *byte == 0) {
            return Err(PageFault::Zero);
        }
        let expected = u32::from_le_bytes(array_at(page, CRC_AT));
        let found = page_crc(page, &Seed::new(log_id, number));
        if expected != found || page[0..4] != MAGIC {
            let stated: (u64, u64) =
                (u64::from_le_bytes(array_at(page, 32)), u64::from_le_bytes(array_at(page, 40)));
            let is_whole = page_crc(page, &Seed::new(stated.0, stated.1)) == expected;
            if is_whole && stated != (log_id, number) {
                return Err(PageFault::Misnamed { log_id: stated.0, number: stated.1 });
            }
            return Err(PageFault::Damaged { expected, found });
        }
        if page[4] != FORMAT {
            return Err(PageFault::Format(page[4]));
        }
        let word = |at: usize| u64::from_le_bytes(array_at(page, at));
        let flags = page[5];
        let vote =
            Vote { term: word(96), replica: word(104), is_committed: flags & VOTE_COMMITTED != 0 };
        let purged = LogId { term: word(120), index: word(128) };
        let header = Self {
            shard: u32::from_le_bytes(array_at(page, 8)),
            prev_crc: u32::from_le_bytes(array_at(page, 12)),
            cluster_id: array_at(page, 16),
            log_id: word(32),
            number: word(40),
            predecessor: word(48),
            cut_lsn: word(56),
            cut_position: word(64),
            first_lsn: word(72),
            first_index: word(80),
            synced_lsn: word(88),
            hard_state: HardState {
                vote: (flags & VOTE_PRESENT != 0).then_some(vote),
                committed: decode_committed(word(112)),
                purged: (flags & PURGE_PRESENT != 0).then_some(purged),
            },
            created_ms: i64::from_le_bytes(array_at(page, 136)),
        };
        // Reserved bytes are under the CRC as well; that they are zero is a rule of the format.
        let reserved_is_zero = page[6..8] == [0; 2]
            && page[USED..CRC_AT].iter().all(|byte| *byte == 0)
            && page[CRC_AT + 4..].iter().all(|byte| *byte == 0);
        let numbers = [48, 56, 72, 80, 88, 96, 112, 120, 128];
        let leaves_room = numbers.into_iter().all(|at| word(at) < NUMBERS_END);
        let is_sound = reserved_is_zero && leaves_room;
        if header.log_id == log_id && header.number == number && is_sound {
            Ok(header)
        } else {
            Err(PageFault::Damaged { expected, found })
        }
    }
}

fn page_crc(page: &[u8; SEGMENT_HEADER_BYTES], seed: &Seed) -> u32 {
    seed.checksum(&[&page[..CRC_AT], &page[CRC_AT + 4..]])
}

/// Returns the name of a segment's file: the log's id in hexadecimal and the number.
pub fn file_name(log_id: u64, number: u64) -> String {
    format!("{log_id:016x}-{number:010}.log")
}

/// Returns the name of a segment of either kind: history segments are numbered from 2^31 on.
pub(in crate::storage) fn any_file_name(log_id: u64, number: u64) -> String {
    let kind = if is_history(number) { "history" } else { "log" };
    format!("{log_id:016x}-{number:010}.{kind}")
}

/// Reads the name of a segment of either kind; `None` for any other file.
pub(in crate::storage) fn parse_any_file_name(name: &str) -> Option<(u64, u64)> {
    let as_log = name.strip_suffix(".history").map(|stem| format!("{stem}.log"));
    let (log_id, number) = parse_name(as_log.as_deref().unwrap_or(name))?;
    (is_history(number) == as_log.is_some()).then_some((log_id, number))
}

/// Reads a segment's name; `None` for any other file.
pub fn parse_file_name(name: &str) -> Option<(u64, u64)> {
    parse_name(name).filter(|(_, number)| !is_history(*number))
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (log_id, rest) = name.split_once('-')?;
    let number = rest.strip_suffix(".log")?;
    let log_id_is_canonical =
        log_id.len() == 16 && log_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !log_id_is_canonical || number.len() != 10 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // One number has one name, 0 is nobody's, and a place in the log has 32 bits for it.
    let parsed: u32 = number.parse().ok().filter(|parsed| *parsed > 0)?;
    Some((u64::from_str_radix(log_id, 16).ok()?, u64::from(parsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            shard: 1,
            cluster_id: [9; 16],
            log_id: 0x9f3c_21a0_7be4_d815,
            number: 42,
            predecessor: 41,
            cut_lsn: 1000,
            cut_position: 8192,
            prev_crc: 77,
            first_lsn: 1001,
            first_index: 900,
            synced_lsn: 1000,
            hard_state: HardState {
                vote: Some(Vote { term: 3, replica: 1, is_committed: true }),
                purged: Some(LogId { term: 1, index: 5 }),
                committed: Some(0),
            },
            created_ms: -5,
        }
    }

    #[test]
    fn a_page_reads_back_as_written() {
        let header = sample();
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page, header.log_id, 42), Ok(header));
        assert!(page[512..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn no_flipped_bit_of_the_page_verifies() {
        let page = sample().encode();
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped, sample().log_id, 42).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn names_are_canonical() {
        let name = file_name(0x9f3c_21a0_7be4_d815, 42);
        assert_eq!(name, "9f3c21a07be4d815-0000000042.log");
        assert_eq!(parse_file_name(&name), Some((0x9f3c_21a0_7be4_d815, 42)));
        for other in [
            "9F3C21A07BE4D815-0000000042.log",
            "9f3c21a07be4d815-42.log",
            "9f3c21a07be4d815-0000000042.log.quarantine-1",
            "LOCK",
            "9f3c21a07be4d815-0000000000.log",
            "9f3c21a07be4d815-00000000042.log",
            "9f3c21a07be4d815-4294967296.log",
            "9f3c21a07be4d815-+000000042.log",
            "9f3c21a07be4d815-2147483648.log",
            "9f3c21a07be4d815-2147483648.history",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
        for number in [1, 42, 2_147_483_647, 2_147_483_648, 4_294_967_295] {
            let name = any_file_name(7, number);
            assert_eq!(parse_any_file_name(&name), Some((7, number)), "{name}");
        }
        for other in ["9f3c21a07be4d815-2147483648.log", "9f3c21a07be4d815-0000000042.history"] {
            assert_eq!(parse_any_file_name(other), None, "{other}");
        }
    }
}
