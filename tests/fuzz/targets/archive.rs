//! The file of a backup.

use prkdb::commands::fuzz::{archive, write_archive};

use super::source::Source;

const BLOCK: usize = 512;

/// A flag: the sums of the headers of the archive are made right.
const SEALED: u8 = 1;
/// A flag: it is packed.
const PACKED: u8 = 2;

/// Makes the checksum of every header right, as far as sizes lead from one to the next.
fn seal_headers(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + BLOCK) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or_default();
        let Some(next) = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|len| at.checked_add(BLOCK).and_then(|start| start.checked_add(len)))
        else {
            return;
        };
        at = next;
    }
}

/// Edits of a backup that is there, or the bytes of a file.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let flags = source.byte();
    let mut bytes = if flags & 4 != 0 {
        let mut base = base();
        while !source.is_empty() {
            let at = usize::from(source.short()) % base.len();
            let edit = source.piece();
            let end = (at + edit.len()).min(base.len());
            base[at..end].copy_from_slice(&edit[..end - at]);
        }
        base
    } else {
        source.rest().to_vec()
    };
    if flags & SEALED != 0 {
        seal_headers(&mut bytes);
    }
    if flags & PACKED != 0 {
        // Not compressed in fact: a frame with the bytes as they are.
        let Ok(packed) = zstd_frame(&bytes) else { return };
        bytes = packed;
    }
    let read = archive(&bytes).expect("what was read is written");
    let Some((files, written)) = read else { return };
    let again = archive(&written).expect("what was read is written");
    let (files_again, written_again) = again.expect("what is written is read");
    assert_eq!((files_again, written_again), (files, written));
}

/// Wraps bytes in a frame of zstd without compressing them: raw blocks.
fn zstd_frame(bytes: &[u8]) -> Result<Vec<u8>, std::num::TryFromIntError> {
    // A window of 128 KiB, no size of the content.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let count = bytes.chunks(100_000).count();
    for (number, block) in bytes.chunks(100_000).enumerate() {
        let last = u32::from(number + 1 == count);
        let head = u32::try_from(block.len())? << 3 | last;
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    Ok(frame)
}

fn base() -> Vec<u8> {
    let files = [
        (0, "MANIFEST".to_owned(), b"manifest".to_vec()),
        (0, "a-1.log".to_owned(), vec![7; 700]),
        (1, "MANIFEST".to_owned(), Vec::new()),
    ];
    write_archive(&files).expect("the names are short")
}

/// A backup as it is, packed, and edited.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![4],
        vec![4 | PACKED],
        vec![4 | SEALED, 0, 2, 1, b's'],
        vec![4 | SEALED | PACKED, 124, 0, 3, b'0', b'0', b'1'],
        [&[0][..], &base()[..1024]].concat(),
    ]
}
