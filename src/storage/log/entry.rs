//! Entries of the log in memory, and their bodies on disk.
//!
//! The body of a normal entry: sequencer term u64, sequence u64, append time i64, then a header of
//! 24 bytes for each frame (partition u32, record count u32, base offset u64, batch length u32,
//! zero u32), then the batches end to end. Its `body_crc` covers all but the batches' own payload:
//! the first 21 bytes of each batch (which its CRC leaves out) and the padding are under it, the
//! rest is under the batch's CRC. So each byte lies under exactly one checksum.

use std::{io::IoSlice, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use prkdb_types::batch::{Batch, HEAD_LEN};

use super::header::{ENTRY_HEADER_BYTES, EntryHeader, Kind, Lsn, Seed, array_at, padded};
use crate::storage::bug::bug;

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

    fn decode(kind: Kind, body: &[u8]) -> Option<Self> {
        if kind == Kind::Sync {
            return body.is_empty().then_some(Self::Sync);
        }
        let body: &[u8; CONTROL_BODY_BYTES] = body.try_into().ok()?;
        let words: [u64; 3] = [0, 8, 16].map(|at| u64::from_le_bytes(array_at(body, at)));
        let [first, second, third] = words;
        let id = |present: u64| match present {
            0 if second == 0 && third == 0 => Some(None),
            1 => Some(Some(LogId { term: second, index: third })),
            _ => None,
        };
        match kind {
            Kind::Vote if third <= 1 => {
                Some(Self::Vote(Vote { term: first, replica: second, is_committed: third == 1 }))
            }
            Kind::Truncate => id(first).map(Self::Truncate),
            Kind::Purge => id(first).flatten().map(Self::Purge),
            _ => None,
        }
    }
}

const PADDING: [u8; 8] = [0; 8];

fn padding_of(body_len: usize) -> usize {
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

/// Why a body does not belong to its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The checksum of the body, or of the batch in this frame.
    Checksum {
        /// What is stored.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The checksum holds and a length or field contradicts another.
    Shape,
    /// A batch in this frame does not verify.
    Batch {
        /// Counts from 0.
        frame: u32,
    },
}

/// How much of a body is checked when it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Everything: after a crash, and on the first read.
    Full,
    /// The body's own checksum, not those of the batches.
    Body,
}

/// Decodes what stands behind `header`. `body` has the body and its padding, and nothing more.
///
/// # Errors
/// Says what does not verify.
pub fn decode_body(
    header: &EntryHeader,
    body: &Bytes,
    seed: &Seed,
    check: Check,
) -> Result<Item, BodyFault> {
    let body_len = usize::try_from(header.body_len).map_err(|_| BodyFault::Shape)?;
    if body.len() != body_len + padding_of(body_len) {
        return Err(BodyFault::Shape);
    }
    let id = LogId { term: header.term, index: header.index };
    if header.kind == Kind::Normal {
        let write = decode_write(header, body, body_len, seed, check)?;
        let payload = Payload::Normal(Arc::new(write));
        return Ok(Item::Entry(Entry { id, is_void: header.is_void, payload }));
    }
    let found = seed.checksum(&[body]);
    if found != header.body_crc && !bug!(CrcNotChecked) {
        return Err(BodyFault::Checksum { expected: header.body_crc, found });
    }
    let (own, padding) = body.split_at_checked(body_len).ok_or(BodyFault::Shape)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(BodyFault::Shape);
    }
    match header.kind {
        Kind::Blank if own.is_empty() => {
            Ok(Item::Entry(Entry { id, is_void: false, payload: Payload::Blank }))
        }
        Kind::Membership => {
            let payload = Payload::Membership(Bytes::copy_from_slice(own));
            Ok(Item::Entry(Entry { id, is_void: false, payload }))
        }
        kind => Control::decode(kind, own).map(Item::Control).ok_or(BodyFault::Shape),
    }
}

/// The heads of the frames, before it is known that the checksum over them holds.
struct FrameHead {
    partition: u32,
    record_count: u32,
    base_offset: u64,
    start: usize,
    end: usize,
}

fn decode_write(
    header: &EntryHeader,
    body: &Bytes,
    body_len: usize,
    seed: &Seed,
    check: Check,
) -> Result<Write, BodyFault> {
    let count = usize::try_from(header.frame_count).map_err(|_| BodyFault::Shape)?;
    let heads_len = count
        .checked_mul(FRAME_HEADER_BYTES)
        .and_then(|len| len.checked_add(WRITE_PREFIX_BYTES))
        .filter(|len| *len <= body_len)
        .ok_or(BodyFault::Shape)?;
    let heads = body.get(..heads_len).ok_or(BodyFault::Shape)?;
    let mut crc = seed.start();
    crc.update(heads);
    let frames = frame_heads(heads, heads_len, body_len)?;
    for frame in &frames {
        crc.update(body.get(frame.start..frame.start + HEAD_LEN).ok_or(BodyFault::Shape)?);
    }
    let padding = body.get(body_len..).ok_or(BodyFault::Shape)?;
    crc.update(padding);
    let found = crc.finish();
    if found != header.body_crc && !bug!(CrcNotChecked) {
        return Err(BodyFault::Checksum { expected: header.body_crc, found });
    }
    let mut out = Vec::with_capacity(frames.len());
    for (number, head) in frames.iter().enumerate() {
        let fault = || BodyFault::Batch { frame: u32::try_from(number).unwrap_or(u32::MAX) };
        let batch = Batch::parse(body.slice(head.start..head.end)).map_err(|_| fault())?;
        if check == Check::Full && !bug!(CrcNotChecked) {
            batch.verify_crc().map_err(|_| fault())?;
        }
        out.push(Frame {
            partition: head.partition,
            record_count: head.record_count,
            base_offset: head.base_offset,
            batch,
        });
    }
    Ok(Write {
        sequencer_term: u64::from_le_bytes(array_at(heads, 0)),
        sequence: u64::from_le_bytes(array_at(heads, 8)),
        append_time_ms: i64::from_le_bytes(array_at(heads, 16)),
        frames: out,
    })
}

fn frame_heads(
    heads: &[u8],
    heads_len: usize,
    body_len: usize,
) -> Result<Vec<FrameHead>, BodyFault> {
    let mut start = heads_len;
    let mut frames = Vec::with_capacity(heads_len / FRAME_HEADER_BYTES);
    for head in heads.get(WRITE_PREFIX_BYTES..).unwrap_or_default().chunks_exact(FRAME_HEADER_BYTES)
    {
        let len = usize::try_from(u32::from_le_bytes(array_at(head, 16)))
            .map_err(|_| BodyFault::Shape)?;
        let end = start.checked_add(len).filter(|end| *end <= body_len).ok_or(BodyFault::Shape)?;
        if len < HEAD_LEN || u32::from_le_bytes(array_at(head, 20)) != 0 {
            return Err(BodyFault::Shape);
        }
        frames.push(FrameHead {
            partition: u32::from_le_bytes(array_at(head, 0)),
            record_count: u32::from_le_bytes(array_at(head, 4)),
            base_offset: u64::from_le_bytes(array_at(head, 8)),
            start,
            end,
        });
        start = end;
    }
    if start == body_len { Ok(frames) } else { Err(BodyFault::Shape) }
}

/// Returns where each batch of a normal entry starts inside the entry.
pub fn batch_positions(write: &Write) -> Vec<u32> {
    let mut position =
        ENTRY_HEADER_BYTES + WRITE_PREFIX_BYTES + FRAME_HEADER_BYTES * write.frames.len();
    write
        .frames
        .iter()
        .map(|frame| {
            let at = short(position);
            position += frame.batch.len();
            at
        })
        .collect()
}
