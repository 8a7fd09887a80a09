//! Maps of segments: the only file with `unsafe`.
//!
//! What is mapped is read-only and in a directory whose lock we hold. Of a sealed segment no writer of
//! ours changes anything, and its unused tail is trimmed behind the mapped length. Of one that is still
//! written to nothing is looked at but what lies below the end of what was written, which is never
//! written again and never trimmed. What remains is another
//! program that truncates the file, or a disk that cannot be read: the kernel then raises SIGBUS at
//! the access. The handler installed here at the first map writes one fixed line and ends the
//! process with code 12; the next start reads the segment by `pread` and finds the damage.
//! See `docs/internals/unsafe.md`.
#![allow(unsafe_code, reason = "the one file that may: see the module's text")]

use std::{
    fs::File,
    io,
    sync::{Arc, Once},
};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions, MmapRaw};

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

/// A map of a segment that is still written to.
#[derive(Debug)]
pub(super) struct GrowingMap(MmapRaw);

/// Bytes of a map that do not change any more.
struct Part {
    map: Arc<GrowingMap>,
    start: usize,
    len: usize,
}

impl GrowingMap {
    /// Maps a file as long as it is now.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn of(file: &File) -> io::Result<Arc<Self>> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        HANDLER.call_once(install_handler);
        Ok(Arc::new(Self(MmapOptions::new().len(len).map_raw_read_only(file)?)))
    }

    /// Returns the bytes at `position`, fewer where less is written; `None` where nothing is. Up to
    /// `written` the writer has said that the file is written, and nothing is ever written again or cut.
    pub(super) fn read(self: &Arc<Self>, written: u64, position: u64, len: usize) -> Option<Bytes> {
        let (start, len) = self.place(written, position, len)?;
        Some(Bytes::from_owner(Part { map: Arc::clone(self), start, len }))
    }

    /// As [`GrowingMap::read`], for as long as the map is borrowed.
    pub(super) fn look(&self, written: u64, position: u64, len: usize) -> Option<&[u8]> {
        let (start, len) = self.place(written, position, len)?;
        Some(self.slice(start, len))
    }

    /// Returns where in the map the bytes lie that are written.
    fn place(&self, written: u64, position: u64, len: usize) -> Option<(usize, usize)> {
        let end = usize::try_from(written).ok()?.min(self.0.len());
        let start = usize::try_from(position).ok().filter(|start| *start < end)?;
        Some((start, len.min(end - start)))
    }

    /// Returns the bytes of a place that [`GrowingMap::place`] gave.
    fn slice(&self, start: usize, len: usize) -> &[u8] {
        // SAFETY: `start + len` lies within the map, as `place` has seen to.
        let first = unsafe { self.0.as_ptr().add(start) };
        // SAFETY: the bytes lie within the map and below what was written when the place was given. No writer
        // of ours changes or cuts that any more, so the slice is of memory that nobody changes, for as long
        // as the map is there. That the bytes are those that were written follows from `Release` and
        // `Acquire` of what the segment's writer says, and from the kernel: its page cache is what is mapped.
        unsafe { std::slice::from_raw_parts(first, len) }
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.map.slice(self.start, self.len)
    }
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
    fn a_map_that_grows_shows_what_was_written_and_nothing_else() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(9000).unwrap();
        let map = GrowingMap::of(&file).unwrap();
        assert!(map.read(0, 0, 10).is_none());
        file.write_all(&[1; 5000]).unwrap();
        let first = map.read(5000, 4990, 100).unwrap();
        assert_eq!(first.as_ref(), [1; 10]);
        assert_eq!(map.look(5000, 4990, 100), Some([1; 10].as_slice()));
        assert_eq!(map.look(5000, 5000, 1), None);
        assert!(map.read(5000, 5000, 1).is_none());
        file.write_all(&[2; 4000]).unwrap();
        assert_eq!(map.read(9000, 5000, usize::MAX).unwrap().as_ref(), [2; 4000]);
        assert_eq!(map.read(9000, 4999, 2).unwrap().as_ref(), [1, 2]);
        assert!(map.read(u64::MAX, 9000, 1).is_none(), "the map ends there");
        drop((file, map));
        assert_eq!(first.as_ref(), [1; 10], "a part holds its map");
    }

    #[test]
    fn a_file_shorter_than_sealed_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(map_sealed(&file, 1).is_err());
    }
}
