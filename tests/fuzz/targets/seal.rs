//! Checksums made right again, so that a mutation reaches what lies behind them.
//!
//! Written from the pages on the formats: where it and the engine disagree, nothing gets through, and
//! the counts of the corpus would show it.

use prkdb_types::crc::{Crc32c, crc32c};

/// Size of the first page of a segment.
pub const PAGE: usize = 4096;
/// Size of the header of an entry.
pub const HEADER: usize = 72;

/// Returns the 32 bits at a place.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(found) = bytes.get(at..at + 4) {
        word.copy_from_slice(found);
    }
    u32::from_le_bytes(word)
}

/// Writes 32 bits to a place, if it is there.
pub fn put_u32(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns the CRC that every checksum of a segment begins with.
pub fn seed(log_id: u64, number: u64) -> Crc32c {
    let mut crc = Crc32c::new();
    crc.update(&log_id.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc
}

fn sum(mut crc: Crc32c, slices: &[&[u8]]) -> u32 {
    for slice in slices {
        crc.update(slice);
    }
    crc.finish()
}

/// Seals the page of a segment.
pub fn page(file: &mut [u8], log_id: u64, number: u64) {
    let Some(page) = file.get_mut(..PAGE) else { return };
    let crc = sum(seed(log_id, number), &[&page[..508], &page[512..]]);
    put_u32(page, 508, crc);
}

/// Seals the entry at a place; returns where the next one begins, and the CRC of its header.
///
/// `before` is the CRC of the header before it. The batches of a normal entry get theirs too.
pub fn entry(
    file: &mut [u8],
    position: usize,
    seed: Crc32c,
    before: Option<u32>,
) -> Option<(usize, u32)> {
    let bytes = file.get_mut(position..)?;
    if bytes.len() < HEADER {
        return None;
    }
    let body_len = size(u32_at(bytes, 8));
    let len = HEADER.checked_add(body_len)?.checked_next_multiple_of(8)?;
    if len <= bytes.len() {
        let is_normal = bytes[5] == 2;
        let frames = if is_normal { size(u32_at(bytes, 12)) } else { 0 };
        let crc = body(&mut bytes[HEADER..len], body_len, is_normal.then_some(frames), seed);
        put_u32(bytes, 60, crc);
    }
    if let Some(before) = before {
        put_u32(bytes, 56, before);
    }
    let crc = sum(seed, &[&bytes[..68]]);
    put_u32(bytes, 68, crc);
    (len <= bytes.len()).then_some((position + len, crc))
}

fn body(body: &mut [u8], body_len: usize, frames: Option<usize>, seed: Crc32c) -> u32 {
    let whole = |body: &[u8]| sum(seed, &[body]);
    let Some(frames) = frames else { return whole(body) };
    let Some(heads) = frames.checked_mul(24).and_then(|len| len.checked_add(24)) else {
        return whole(body);
    };
    if heads > body_len {
        return whole(body);
    }
    let mut crc = seed;
    crc.update(&body[..heads]);
    let mut start = heads;
    for frame in 0..frames {
        let len = size(u32_at(body, 24 + 24 * frame + 16));
        let Some(end) = start.checked_add(len).filter(|end| *end <= body_len) else {
            return whole(body);
        };
        batch(&mut body[start..end]);
        crc.update(body.get(start..start + 21).unwrap_or_default());
        start = end;
    }
    crc.update(&body[body_len..]);
    crc.finish()
}

/// Seals a batch.
pub fn batch(batch: &mut [u8]) {
    if let Some((head, tail)) = batch.split_at_mut_checked(21) {
        head[17..].copy_from_slice(&crc32c(tail).to_be_bytes());
    }
}

/// Seals a whole segment, whose first entry follows a header with the CRC `before`; returns that of its
/// last one.
pub fn segment(file: &mut [u8], log_id: u64, number: u64, before: u32) -> u32 {
    put_u32(file, 12, before);
    page(file, log_id, number);
    let seed = seed(log_id, number);
    let (mut position, mut last) = (PAGE, before);
    while file.get(position..position + HEADER).is_some_and(|head| head.starts_with(b"PrkE")) {
        let Some((next, crc)) = entry(file, position, seed, Some(last)) else { break };
        (position, last) = (next, crc);
    }
    last
}

/// Returns where each entry of a segment begins.
pub fn entries(file: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut position = PAGE;
    while let Some(head) = file.get(position..position + HEADER) {
        if !head.starts_with(b"PrkE") {
            break;
        }
        found.push(position);
        position += (HEADER + size(u32_at(head, 8))).next_multiple_of(8);
    }
    found
}

/// Seals a manifest.
pub fn manifest(file: &mut [u8]) {
    if file.len() < 16 {
        return;
    }
    let len = u32::try_from(file.len() - 16).unwrap_or(u32::MAX);
    put_u32(file, 8, len);
    let crc = sum(Crc32c::new(), &[&file[..12], &file[16..]]);
    put_u32(file, 12, crc);
}

/// Seals a sidecar.
pub fn sidecar(file: &mut [u8], log_id: u64, number: u64) {
    if file.len() < 48 {
        return;
    }
    let seed = seed(log_id, number);
    let len = file.len() as u64;
    file[32..40].copy_from_slice(&len.to_le_bytes());
    let body = sum(seed, &[&file[48..]]);
    put_u32(file, 40, body);
    let header = sum(seed, &[&file[..44]]);
    put_u32(file, 44, header);
}

/// Seals a checkpoint of an entry: header, and every section that lies within the file.
pub fn checkpoint(file: &mut [u8], log_id: u64, index: u64) {
    if file.len() < 40 {
        return;
    }
    let seed = seed(log_id, index);
    let header = sum(seed, &[&file[..36]]);
    put_u32(file, 36, header);
    for (number, (start, end)) in (0..).zip(sections(file)) {
        put_u32(file, start + 8, number);
        let crc = sum(seed, &[&file[start..start + 12], &file[start + 16..end]]);
        put_u32(file, start + 12, crc);
    }
}

/// Returns where each section of a checkpoint begins and ends.
pub fn sections(file: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = 40;
    while start + 16 <= file.len() {
        let len = size(u32_at(file, start + 4));
        let Some(end) = (start + 16).checked_add(len).filter(|end| *end <= file.len()) else {
            break;
        };
        found.push((start, end));
        start = end;
    }
    found
}
