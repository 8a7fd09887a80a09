//! A second decoder of the log, written from `docs/internals/log-format.md` alone: it shares no code
//! with the engine, down to the checksum.

use std::fmt::Write as _;

pub(crate) const PAGE: usize = 4096;
pub(crate) const HEADER: usize = 72;

/// CRC32C, bit by bit.
fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    crc = !crc;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap()
}

/// A part of a file and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: usize,
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) lsn: u64,
    pub(crate) synced_lsn: u64,
    /// Where each batch starts and ends in the file.
    pub(crate) batches: Vec<(usize, usize)>,
    header_crc: u32,
    text: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) log_id: u64,
    pub(crate) number: u64,
    /// `None`: the page is zero.
    pub(crate) page: Option<SegmentPage>,
    pub(crate) entries: Vec<Entry>,
    /// Where the last entry ends.
    pub(crate) end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPage {
    pub(crate) predecessor: u64,
    pub(crate) cut_lsn: u64,
    pub(crate) cut_position: u64,
    pub(crate) first_lsn: u64,
    pub(crate) synced_lsn: u64,
    prev_crc: u32,
    text: String,
}

impl Segment {
    /// Decodes a file that is undamaged.
    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let (log_id, number) =
            name.strip_suffix(".log").and_then(|s| s.split_once('-')).ok_or(name)?;
        assert_eq!((log_id.len(), number.len()), (16, 10));
        let log_id = u64::from_str_radix(log_id, 16).map_err(|e| e.to_string())?;
        let number: u64 = number.parse().map_err(|_| name.to_owned())?;
        let seed = crc32c(0, &[log_id.to_le_bytes(), number.to_le_bytes()].concat());
        let mut segment = Self { log_id, number, page: None, entries: Vec::new(), end: PAGE };
        if bytes.len() < PAGE || bytes[..PAGE].iter().all(|byte| *byte == 0) {
            return Ok(segment);
        }
        let page = page(&bytes[..PAGE], seed, log_id, number)?;
        let mut prev_crc = page.prev_crc;
        segment.page = Some(page);
        while let Some(header) = bytes.get(segment.end..segment.end + HEADER)
            && header.iter().any(|byte| *byte != 0)
        {
            let entry = entry(bytes, segment.end, seed, prev_crc)?;
            prev_crc = entry.header_crc;
            segment.end += entry.len;
            segment.entries.push(entry);
        }
        Ok(segment)
    }

    /// Says in words what the file holds.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("segment {} of log {:016x}\n", self.number, self.log_id);
        if let Some(page) = &self.page {
            writeln!(text, "{}", page.text).unwrap();
        }
        for entry in &self.entries {
            writeln!(text, "{:>6} {}", entry.position, entry.text).unwrap();
        }
        text
    }
}

fn page(bytes: &[u8], seed: u32, log_id: u64, number: u64) -> Result<SegmentPage, String> {
    let covered = [&bytes[..508], &bytes[512..]].concat();
    if crc32c(seed, &covered) != u32_at(bytes, 508) {
        return Err("page checksum".to_owned());
    }
    assert_eq!((&bytes[..4], bytes[4], u16_at(bytes, 6)), (&b"PrkS"[..], 1, 0));
    assert_eq!((u64_at(bytes, 32), u64_at(bytes, 40)), (log_id, number));
    assert!(bytes[144..508].iter().chain(&bytes[512..]).all(|byte| *byte == 0));
    let flags = bytes[5];
    let word = |at: usize| u64_at(bytes, at);
    let vote = (flags & 1 != 0).then(|| (word(96), word(104), flags & 2 != 0));
    let purged = (flags & 4 != 0).then(|| (word(120), word(128)));
    let text = format!(
        "     0 page: shard {}, cluster {:032x}, predecessor {}, cut {} at {}, first lsn {}, first \
         index {}, synced {}, vote {vote:?}, committed {:?}, purged {purged:?}, created {}",
        u32_at(bytes, 8),
        u128::from_be_bytes(bytes[16..32].try_into().unwrap()),
        word(48),
        word(56),
        word(64),
        word(72),
        word(80),
        word(88),
        word(112).checked_sub(1),
        word(136),
    );
    Ok(SegmentPage {
        predecessor: word(48),
        cut_lsn: word(56),
        cut_position: word(64),
        first_lsn: word(72),
        synced_lsn: word(88),
        prev_crc: u32_at(bytes, 12),
        text,
    })
}

fn entry(bytes: &[u8], position: usize, seed: u32, prev_crc: u32) -> Result<Entry, String> {
    let header = &bytes[position..position + HEADER];
    let at = |what: &str| format!("{what} at {position}");
    if crc32c(seed, &header[..68]) != u32_at(header, 68) {
        return Err(at("header checksum"));
    }
    assert_eq!((&header[..4], header[4], u32_at(header, 64)), (&b"PrkE"[..], 1, 0));
    if u32_at(header, 56) != prev_crc {
        return Err(at("chain"));
    }
    let body_len = size(u32_at(header, 8));
    let len = (HEADER + body_len).next_multiple_of(8);
    let body = bytes.get(position + HEADER..position + len).ok_or_else(|| at("length"))?;
    let kind = header[5];
    let frames = size(u32_at(header, 12));
    let (covered, batches, said) = match kind {
        2 => write(body, body_len, frames, position + HEADER)?,
        _ => (body.to_vec(), Vec::new(), control(kind, &body[..body_len])?),
    };
    if crc32c(seed, &covered) != u32_at(header, 60) {
        return Err(at("body checksum"));
    }
    assert!(body[body_len..].iter().all(|byte| *byte == 0), "padding is zero");
    let void = if u16_at(header, 6) == 1 { ", void" } else { "" };
    let (lsn, synced_lsn) = (u64_at(header, 16), u64_at(header, 40));
    let text = format!(
        "lsn {lsn} {said}{void}; term {}, index {}, synced {synced_lsn}, committed {:?}, body {body_len}",
        u64_at(header, 24),
        u64_at(header, 32),
        u64_at(header, 48).checked_sub(1),
    );
    let header_crc = u32_at(header, 68);
    Ok(Entry { position, len, kind, lsn, synced_lsn, batches, header_crc, text })
}

fn control(kind: u8, body: &[u8]) -> Result<String, String> {
    let id = || (body[0] == 1).then(|| (u64_at(body, 8), u64_at(body, 16)));
    Ok(match (kind, body.len()) {
        (1, 0) => "blank".to_owned(),
        (3, _) => format!("membership {body:02x?}"),
        (4, 24) => {
            format!("vote ({}, {}, {})", u64_at(body, 0), u64_at(body, 8), body[16] == 1)
        }
        (5, 24) => format!("truncate after {:?}", id()),
        (6, 24) => format!("purge up to {:?}", id()),
        (7, 0) => "sync".to_owned(),
        _ => return Err(format!("kind {kind} with {} bytes", body.len())),
    })
}

/// What the body's checksum covers, where the batches are, and words.
type Body = (Vec<u8>, Vec<(usize, usize)>, String);

fn write(body: &[u8], body_len: usize, frames: usize, origin: usize) -> Result<Body, String> {
    let heads = 24 + 24 * frames;
    let mut covered = body[..heads].to_vec();
    let mut said = format!(
        "normal: sequencer term {}, sequence {}, time {}",
        u64_at(body, 0),
        u64_at(body, 8),
        u64_at(body, 16)
    );
    let mut start = heads;
    let mut batches = Vec::new();
    for frame in body[24..heads].chunks(24) {
        assert_eq!(u32_at(frame, 20), 0);
        let end = start + size(u32_at(frame, 16));
        let batch = body.get(start..end).ok_or("batch length")?;
        covered.extend_from_slice(&batch[..21]);
        // Inside a batch: big-endian, and a checksum without a seed from byte 21 on.
        let stored = u32::from_be_bytes(batch[17..21].try_into().unwrap());
        if crc32c(0, &batch[21..]) != stored {
            return Err(format!("batch checksum at {}", origin + start));
        }
        assert_eq!(u64::from_be_bytes(batch[..8].try_into().unwrap()), u64_at(frame, 8));
        write!(
            said,
            ", partition {} from {} ({} records in {} bytes)",
            u32_at(frame, 0),
            u64_at(frame, 8),
            u32_at(frame, 4),
            batch.len()
        )
        .unwrap();
        batches.push((origin + start, origin + end));
        start = end;
    }
    if start != body_len {
        return Err("frames do not fill the body".to_owned());
    }
    covered.extend_from_slice(&body[body_len..]);
    Ok((covered, batches, said))
}

fn seed_of(name: &str) -> u32 {
    let (log_id, rest) = name.split_once('-').unwrap();
    let log_id = u64::from_str_radix(log_id, 16).unwrap();
    let number: u64 = rest.strip_suffix(".log").unwrap().parse().unwrap();
    crc32c(0, &[log_id.to_le_bytes(), number.to_le_bytes()].concat())
}

/// Makes the checksum of a changed page right.
pub(crate) fn reseal_page(name: &str, file: &mut [u8]) {
    let covered = [&file[..508], &file[512..PAGE]].concat();
    file[508..512].copy_from_slice(&crc32c(seed_of(name), &covered).to_le_bytes());
}

/// Makes the checksum of a changed entry header right.
pub(crate) fn reseal_entry(name: &str, file: &mut [u8], position: usize) {
    let crc = crc32c(seed_of(name), &file[position..position + 68]);
    file[position + 68..position + 72].copy_from_slice(&crc.to_le_bytes());
}
