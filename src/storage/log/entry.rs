//! Entries of the log in memory, and their bodies on disk.
//!
//! The body of a normal entry: sequencer term u64, sequence u64, append time i64, then a header of
//! 24 bytes for each frame (partition u32, record count u32, base offset u64, batch length u32,
//! zero u32), then the batches end to end. Its `body_crc` covers all but the batches' own payload:
//! the first 21 bytes of each batch (which its CRC leaves out) and the padding are under it, the
//! rest is under the batch's CRC. So each byte lies under exactly one checksum.

use std::{io::IoSlice, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use prkdb_types::batch::Batch;

use super::header::{
    ENTRY_HEADER_BYTES, EntryHeader, Kind, Lsn, NUMBERS_END, Seed, array_at, padded,
};

/// Size of the replicated fields in front of the frame headers.
pub const WRITE_PREFIX_BYTES: usize = 24;
/// Size of one frame header.
pub const FRAME_HEADER_BYTES: usize = 24;

/// Names an entry of the shard on all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The leader's term.
    pub term: u64,
    /// The place in the shard's sequence of entries.
    pub index: u64,
}

/// A vote of this replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The replica voted for.
    pub replica: u64,
    /// Whether a majority granted it: it leads.
    pub is_committed: bool,
}

/// One batch for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The partition's number in its shard.
    pub partition: u32,
    /// Records in the batch.
    pub record_count: u32,
    /// Offset of the first record.
    pub base_offset: u64,
    /// The batch, its base offset stamped.
    pub batch: Batch,
}

/// What the sequencer accepted, as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The term the sequencer decided in.
    pub sequencer_term: u64,
    /// Counts the sequencer's entries of this term from 1.
    pub sequence: u64,
    /// The shard's time when it was decided.
    pub append_time_ms: i64,
    /// In the order decided.
    pub frames: Vec<Frame>,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Accepted writes.
    Normal(Arc<Write>),
    /// An encoded membership, opaque to the storage engine.
    Membership(Bytes),
}

/// An entry as it stands in the log. A clone shares its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name on all replicas.
    pub id: LogId,
    /// The chain of its sequencer was broken: its frames are for nobody.
    pub is_void: bool,
    /// What it carries.
    pub payload: Payload,
}

/// A decision of this replica alone, in the same queue as the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The vote to remember.
    Vote(Vote),
    /// The last entry kept; `None` keeps none.
    Truncate(Option<LogId>),
    /// The last entry purged.
    Purge(LogId),
    /// Nothing: the header's watermark is the message.
    Sync,
}

/// Anything the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A replicated entry.
    Entry(Entry),
    /// A control entry.
    Control(Control),
}

/// Fields of a header that only the writer knows.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The entry's own number.
    pub lsn: Lsn,
    /// The watermark.
    pub synced_lsn: Lsn,
    /// The committed index.
    pub committed: Option<u64>,
    /// Header CRC of the entry before.
    pub prev_crc: u32,
}

/// An entry ready to be written: slices that share the batches' bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// In order; their lengths add up to `len`.
    pub parts: Vec<Bytes>,
    /// Size with padding.
    pub len: u64,
    /// CRC of the header, for the next entry's chain.
    pub header_crc: u32,
    /// Where each batch starts inside the entry.
    pub batch_positions: Vec<u32>,
}

impl Encoded {
    /// Returns the parts for a vectored write.
    pub fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        self.parts.iter().map(|part| IoSlice::new(part))
    }
}

impl Write {
    /// Returns the size of the body without padding.
    pub fn body_bytes(&self) -> u64 {
        let batches: usize = self.frames.iter().map(|f| FRAME_HEADER_BYTES + f.batch.len()).sum();
        (WRITE_PREFIX_BYTES + batches) as u64
    }
}

impl Entry {
    /// Returns the size of the entry on disk, header and padding included.
    pub fn encoded_bytes(&self) -> u64 {
        let body = match &self.payload {
            Payload::Normal(write) => write.body_bytes(),
            Payload::Membership(bytes) => bytes.len() as u64,
            Payload::Blank => 0,
        };
        padded(ENTRY_HEADER_BYTES as u64 + body)
    }
}

impl Item {
    /// Returns the size of the item on disk, header and padding included.
    pub fn encoded_bytes(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.encoded_bytes(),
            Self::Control(Control::Sync) => padded(ENTRY_HEADER_BYTES as u64),
            Self::Control(_) => padded((ENTRY_HEADER_BYTES + CONTROL_BODY_BYTES) as u64),
        }
    }

    /// Encodes the item for the segment that `seed` belongs to.
    pub fn encode(&self, stamp: Stamp, seed: &Seed) -> Encoded {
        match self {
            Self::Entry(entry) => match &entry.payload {
                Payload::Normal(write) => encode_write(entry, write, stamp, seed),
                Payload::Blank => encode_plain(Kind::Blank, entry.id, &[], stamp, seed),
                Payload::Membership(bytes) => {
                    encode_plain(Kind::Membership, entry.id, bytes, stamp, seed)
                }
            },
            Self::Control(control) => {
                let (kind, body) = control.encode();
                encode_plain(kind, LogId::default(), &body, stamp, seed)
            }
        }
    }
}

const CONTROL_BODY_BYTES: usize = 24;

impl Control {
    fn encode(self) -> (Kind, Vec<u8>) {
        let id_body = |id: Option<LogId>| {
            let mut body = vec![u8::from(id.is_some()), 0, 0, 0, 0, 0, 0, 0];
            let id = id.unwrap_or_default();
            body.extend_from_slice(&id.term.to_le_bytes());
            body.extend_from_slice(&id.index.to_le_bytes());
            body
        };
        match self {
            Self::Vote(vote) => {
                let mut body = Vec::with_capacity(CONTROL_BODY_BYTES);
                body.extend_from_slice(&vote.term.to_le_bytes());
                body.extend_from_slice(&vote.replica.to_le_bytes());
                body.extend_from_slice(&[u8::from(vote.is_committed), 0, 0, 0, 0, 0, 0, 0]);
                (Kind::Vote, body)
            }
            Self::Truncate(kept) => (Kind::Truncate, id_body(kept)),
            Self::Purge(purged) => (Kind::Purge, id_body(Some(purged))),
            Self::Sync => (Kind::Sync, Vec::new()),
        }
    }

    pub(super) fn decode(kind: Kind, body: &[u8]) -> Option<Self> {
        if kind == Kind::Sync {
            return body.is_empty().then_some(Self::Sync);
        }
        let body: &[u8; CONTROL_BODY_BYTES] = body.try_into().ok()?;
        let words: [u64; 3] = [0, 8, 16].map(|at| u64::from_le_bytes(array_at(body, at)));
        let [first, second, third] = words;
        let id = |present: u64| match present {
            0 if second == 0 && third == 0 => Some(None),
            1 if second.max(third) < NUMBERS_END => {
                Some(Some(LogId { term: second, index: third }))
            }
            _ => None,
        };
        match kind {
            Kind::Vote if third <= 1 && first < NUMBERS_END => {
                Some(Self::Vote(Vote { term: first, replica: second, is_committed: third == 1 }))
            }
            Kind::Truncate => id(first).map(Self::Truncate),
            Kind::Purge => id(first).flatten().map(Self::Purge),
            _ => None,
        }
    }
}

const PADDING: [u8; 8] = [0; 8];

/// Returns how many zeros follow a body.
pub(super) fn padding_of(body_len: usize) -> usize {
    (ENTRY_HEADER_BYTES + body_len).next_multiple_of(8) - (ENTRY_HEADER_BYTES + body_len)
}

/// Casts a length the sequencer has bounded (entries are at most 64 MiB).
fn short(len: usize) -> u32 {
    u32::try_from(len).expect("an entry is far below 4 GiB: the sequencer bounds it")
}

fn encode_plain(kind: Kind, id: LogId, body: &[u8], stamp: Stamp, seed: &Seed) -> Encoded {
    let padding = PADDING.get(..padding_of(body.len())).unwrap_or_default();
    let header = EntryHeader {
        kind,
        is_void: false,
        body_len: short(body.len()),
        frame_count: 0,
        lsn: stamp.lsn,
        term: id.term,
        index: id.index,
        synced_lsn: stamp.synced_lsn,
        committed: stamp.committed,
        prev_crc: stamp.prev_crc,
        body_crc: seed.checksum(&[body, padding]),
    };
    let (head, header_crc) = header.encode(seed);
    let mut out = BytesMut::with_capacity(ENTRY_HEADER_BYTES + body.len() + padding.len());
    out.put_slice(&head);
    out.put_slice(body);
    out.put_slice(padding);
    Encoded {
        len: out.len() as u64,
        parts: vec![out.freeze()],
        header_crc,
        batch_positions: Vec::new(),
    }
}

/// A batch smaller than this is copied beside its header: one slice costs more than the copy.
const COPY_BELOW: usize = 4096;

fn encode_write(entry: &Entry, write: &Write, stamp: Stamp, seed: &Seed) -> Encoded {
    let body_len = WRITE_PREFIX_BYTES
        + write.frames.iter().map(|f| FRAME_HEADER_BYTES + f.batch.len()).sum::<usize>();
    let padding = PADDING.get(..padding_of(body_len)).unwrap_or_default();
    let heads_len = WRITE_PREFIX_BYTES + FRAME_HEADER_BYTES * write.frames.len();
    let mut heads = BytesMut::with_capacity(heads_len);
    heads.put_u64_le(write.sequencer_term);
    heads.put_u64_le(write.sequence);
    heads.put_i64_le(write.append_time_ms);
    for frame in &write.frames {
        heads.put_u32_le(frame.partition);
        heads.put_u32_le(frame.record_count);
        heads.put_u64_le(frame.base_offset);
        heads.put_u32_le(short(frame.batch.len()));
        heads.put_u32_le(0);
    }
    let mut crc = seed.start();
    crc.update(&heads);
    for frame in &write.frames {
        crc.update(frame.batch.head());
    }
    crc.update(padding);
    let header = EntryHeader {
        kind: Kind::Normal,
        is_void: entry.is_void,
        body_len: short(body_len),
        frame_count: short(write.frames.len()),
        lsn: stamp.lsn,
        term: entry.id.term,
        index: entry.id.index,
        synced_lsn: stamp.synced_lsn,
        committed: stamp.committed,
        prev_crc: stamp.prev_crc,
        body_crc: crc.finish(),
    };
    let (head, header_crc) = header.encode(seed);
    let mut parts = Vec::with_capacity(2 * write.frames.len() + 2);
    let mut copied = BytesMut::with_capacity(ENTRY_HEADER_BYTES + heads_len + COPY_BELOW);
    copied.put_slice(&head);
    copied.put_slice(&heads);
    let mut position = ENTRY_HEADER_BYTES + heads_len;
    let mut batch_positions = Vec::with_capacity(write.frames.len());
    for frame in &write.frames {
        batch_positions.push(short(position));
        position += frame.batch.len();
        copied.put_slice(frame.batch.head());
        if frame.batch.tail().len() < COPY_BELOW {
            copied.put_slice(frame.batch.tail());
        } else {
            parts.push(copied.split().freeze());
            parts.push(frame.batch.tail().clone());
        }
    }
    copied.put_slice(padding);
    if !copied.is_empty() {
        parts.push(copied.freeze());
    }
    let len = (ENTRY_HEADER_BYTES + body_len + padding.len()) as u64;
    Encoded { parts, len, header_crc, batch_positions }
}

/// Returns where each batch of a normal entry starts inside the entry.
pub fn batch_positions(write: &Write) -> impl Iterator<Item = u32> {
    let mut position =
        ENTRY_HEADER_BYTES + WRITE_PREFIX_BYTES + FRAME_HEADER_BYTES * write.frames.len();
    write.frames.iter().map(move |frame| {
        let at = short(position);
        position += frame.batch.len();
        at
    })
}
