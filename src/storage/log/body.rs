//! Decoding the body of an entry: every length is checked before it is believed.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_types::batch::{Batch, HEAD_LEN};

use super::{
    entry::{
        Control, Entry, FRAME_HEADER_BYTES, Frame, Item, LogId, Payload, WRITE_PREFIX_BYTES, Write,
        padding_of,
    },
    header::{EntryHeader, Kind, Seed, array_at},
};
use crate::storage::bug::bug;

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
    if padding.iter().any(|byte| *byte != 0) {
        return Err(BodyFault::Shape);
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

#[cfg(test)]
mod tests {
    use prkdb_types::ProducerStamp;

    use super::*;
    use crate::storage::log::{
        entry::Stamp,
        header::{ENTRY_HEADER_BYTES, padded},
    };

    #[test]
    fn padding_that_is_not_zero_is_no_entry_whatever_its_checksum_says() {
        let batch = Batch::single(ProducerStamp::NONE, 1, None, Some(b"value"), &[]).unwrap();
        let frame = Frame { partition: 1, record_count: 1, base_offset: 0, batch };
        let write =
            Write { sequencer_term: 1, sequence: 1, append_time_ms: 1, frames: vec![frame] };
        let id = LogId { term: 1, index: 1 };
        let payload = Payload::Normal(Arc::new(write));
        let item = Item::Entry(Entry { id, is_void: false, payload });
        let seed = Seed::new(7, 1);
        let stamp = Stamp { lsn: 1, synced_lsn: 0, committed: None, prev_crc: 0 };
        let mut bytes = item.encode(stamp, &seed).parts.concat();
        let head = bytes.first_chunk::<ENTRY_HEADER_BYTES>().unwrap();
        let (header, _) = EntryHeader::decode(head, &seed).unwrap();
        assert!(padded(header.body_len.into()) > header.body_len.into(), "there is padding");
        let decode = |header: &EntryHeader, bytes: &[u8]| {
            let body = Bytes::copy_from_slice(&bytes[ENTRY_HEADER_BYTES..]);
            decode_body(header, &body, &seed, Check::Full)
        };
        assert_eq!(decode(&header, &bytes), Ok(item));
        *bytes.last_mut().unwrap() = 1;
        let start = ENTRY_HEADER_BYTES + WRITE_PREFIX_BYTES + FRAME_HEADER_BYTES;
        let end = ENTRY_HEADER_BYTES + usize::try_from(header.body_len).unwrap();
        let covered = [&bytes[ENTRY_HEADER_BYTES..start + HEAD_LEN], &bytes[end..]];
        let header = EntryHeader { body_crc: seed.checksum(&covered), ..header };
        assert_eq!(decode(&header, &bytes), Err(BodyFault::Shape));
    }
}
