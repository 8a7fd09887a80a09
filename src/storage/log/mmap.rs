//! Maps of sealed segments: the only file with `unsafe`.
//!
//! What is mapped is read-only, sealed (no writer of ours changes it; trimming its unused tail
//! happens behind the mapped length), and in a directory whose lock we hold. What remains is another
//! program that truncates the file, or a disk that cannot be read: the kernel then raises SIGBUS at
//! the access. The handler installed here at the first map writes one fixed line and ends the
//! process with code 12; the next start reads the segment by `pread` and finds the damage.
//! See `docs/internals/unsafe.md`.
#![allow(unsafe_code, reason = "the one file that may: see the module's text")]

use std::{fs::File, io, sync::Once};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

const SIGBUS_LINE: &[u8] =
    b"prkdb: read mapped segment: the file was cut or cannot be read (SIGBUS); start again to verify the log\n";
const SIGBUS_EXIT_CODE: i32 = 12;

static HANDLER: Once = Once::new();

/// Maps the first `len` bytes of a sealed segment, or of a sidecar.
///
/// # Errors
/// What the system says, or that the file is shorter than `len`.
pub(in crate::storage) fn map_sealed(file: &File, len: u64) -> io::Result<Bytes> {
    if file.metadata()?.len() < len {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "segment is shorter than sealed"));
    }
    let len = usize::try_from(len).map_err(io::Error::other)?;
    HANDLER.call_once(install_handler);
    // SAFETY: the segment is sealed, so no writer of ours changes or cuts the first `len` bytes (a
    // sidecar is written once under another name, and replaced by a rename, never in place), and
    // the directory's lock keeps other nodes out. The map is private to reading; a foreign truncation
    // raises SIGBUS, which the handler turns into an exit.
    let map: Mmap = unsafe { MmapOptions::new().len(len).map(file) }?;
    Ok(Bytes::from_owner(map))
}

extern "C" fn on_sigbus(_signal: libc::c_int) {
    // SAFETY: write(2) is async-signal-safe and reads a static buffer of the length given.
    let _written = unsafe { libc::write(2, SIGBUS_LINE.as_ptr().cast(), SIGBUS_LINE.len()) };
    // SAFETY: _exit(2) is async-signal-safe and does not return.
    unsafe { libc::_exit(SIGBUS_EXIT_CODE) }
}

fn install_handler() {
    let handler: extern "C" fn(libc::c_int) = on_sigbus;
    // SAFETY: a zeroed sigaction is a valid one (no flags, empty mask, default action).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: `action` is initialised and lives across the call; no old action is asked for. The
    // handler calls only async-signal-safe functions.
    let _installed =
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_map_reads_what_was_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let map = map_sealed(&file, 5000).unwrap();
        assert_eq!(map.len(), 5000);
        assert!(map.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_file_shorter_than_sealed_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(map_sealed(&file, 1).is_err());
    }
}
