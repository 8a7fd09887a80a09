//! The header and the body of an entry of the log. What is read is written the same.

use bytes::Bytes;
use prkdb::storage::log::{
    body::{Check, decode_body},
    entry::{Entry, Item, Payload, Stamp, batch_positions},
    header::{ENTRY_HEADER_BYTES, EntryHeader, Seed},
};

use super::{base, seal, source::Source};

const LOG_ID: u64 = 0x9f3c_21a0_7be4_d815;
const NUMBER: u64 = 42;

/// A flag: the checksums are made right first.
const SEALED: u8 = 1;
/// A flag: the header says that the body is as long as it is.
const FITTED: u8 = 2;

/// Flags, header, body.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let flags = source.byte();
    let mut bytes = source.rest().to_vec();
    bytes.resize(bytes.len().max(ENTRY_HEADER_BYTES).next_multiple_of(8), 0);
    if flags & FITTED != 0 {
        let padding = usize::from(flags >> 5).min(bytes.len() - ENTRY_HEADER_BYTES);
        let len = u32::try_from(bytes.len() - ENTRY_HEADER_BYTES - padding).unwrap_or_default();
        seal::put_u32(&mut bytes, 8, len);
    }
    if flags & SEALED != 0 {
        let _sealed = seal::entry(&mut bytes, 0, seal::seed(LOG_ID, NUMBER), None);
    }
    let seed = Seed::new(LOG_ID, NUMBER);
    let Some((head, body)) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>() else { return };
    let (header, crc) = match EntryHeader::decode(head, &seed) {
        Ok(decoded) => decoded,
        Err(fault) => {
            let _newer = fault.is_verified();
            return;
        }
    };
    assert_eq!(header.encode(&seed), (*head, crc), "a header is written as it was read");
    assert_eq!(header.total_bytes() % 8, 0);
    let body = Bytes::copy_from_slice(body);
    let quick = decode_body(&header, &body, &seed, Check::Body);
    let Ok(item) = decode_body(&header, &body, &seed, Check::Full) else { return };
    assert_eq!(quick.as_ref(), Ok(&item), "what is whole is read the same without a look at it");
    let stamp = Stamp {
        lsn: header.lsn,
        synced_lsn: header.synced_lsn,
        committed: header.committed,
        prev_crc: header.prev_crc,
    };
    let written = item.encode(stamp, &seed);
    assert_eq!(written.parts.concat(), bytes, "an entry is written as it was read");
    assert_eq!((written.len, written.header_crc), (header.total_bytes(), crc));
    assert_eq!(item.encoded_bytes(), written.len);
    if let Item::Entry(Entry { payload: Payload::Normal(write), .. }) = &item {
        assert!(batch_positions(write).eq(written.batch_positions.iter().copied()));
        for frame in &write.frames {
            assert!(frame.batch.verify_crc().is_ok());
        }
    }
}

/// Entries of every kind, out of a log.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let mut kinds = Vec::new();
    for (_, file) in base::log_files() {
        for position in seal::entries(file) {
            let len = seal::HEADER + seal::u32_at(file, position + 8) as usize;
            let entry = &file[position..position + len.next_multiple_of(8)];
            let kind = (entry[5], entry[6], entry[12].min(2));
            if entry.len() < 700 && !kinds.contains(&kind) {
                kinds.push(kind);
                let flags = SEALED | FITTED | u8::try_from(entry.len() - len).unwrap_or(0) << 5;
                seeds.push([&[flags][..], entry].concat());
            }
        }
    }
    seeds
}
