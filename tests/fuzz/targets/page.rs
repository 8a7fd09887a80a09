//! The first page of a segment, and the names of files.

use prkdb::storage::log::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader};

use super::{base, seal, source::Source, source::text};

/// Whether it is sealed, where the bytes lie, the bytes; all others are zero.
pub fn run(data: &[u8]) {
    let name = text(data);
    if let Some((log_id, number)) = segment::parse_file_name(name) {
        assert_eq!(segment::file_name(log_id, number), name, "a number has one name");
    }
    let mut source = Source::new(data);
    let (is_sealed, start) = (source.byte() & 1 != 0, usize::from(source.short()));
    let rest = source.rest();
    let mut page = Box::new([0; SEGMENT_HEADER_BYTES]);
    let start = start.min(SEGMENT_HEADER_BYTES);
    let len = rest.len().min(SEGMENT_HEADER_BYTES - start);
    page[start..start + len].copy_from_slice(&rest[..len]);
    let word = |at: usize| {
        u64::from(seal::u32_at(&*page, at)) | u64::from(seal::u32_at(&*page, at + 4)) << 32
    };
    let (log_id, number) = (word(32), word(40));
    if is_sealed {
        seal::page(&mut *page, log_id, number);
    }
    let _misnamed = SegmentHeader::decode(&page, log_id ^ 1, number);
    let Ok(header) = SegmentHeader::decode(&page, log_id, number) else { return };
    let written = header.encode();
    let again = SegmentHeader::decode(&written, log_id, number);
    let kept = SegmentHeader { hard_state: header.hard_state, ..header };
    assert_eq!(again, Ok(kept), "what is written is read the same");
}

/// Pages of a log, and a name.
pub fn seeds() -> Vec<Vec<u8>> {
    let page = |file: &[u8]| [&[1, 0, 0][..], &file[..144]].concat();
    let mut seeds: Vec<Vec<u8>> = base::log_files().iter().map(|(_, file)| page(file)).collect();
    seeds.push(segment::file_name(0x9f3c_21a0_7be4_d815, 42).into_bytes());
    seeds
}
