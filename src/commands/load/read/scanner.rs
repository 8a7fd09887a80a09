//! Pieces of an input between terminators, in bounded memory, with their places.

use std::io::{self, BufRead as _, Read};

use super::{Input, Place, RECORD_BYTES_MAX};

/// A byte order mark, which some editors put at the start of a file.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads an input piece by piece.
pub struct Scanner {
    input: Input,
    /// Where the next piece begins.
    pub place: Place,
    /// The piece, with its terminator.
    pub raw: Vec<u8>,
    /// Whether the piece was longer than what is kept; `raw` is empty then.
    pub is_too_long: bool,
    limit: usize,
}

/// Decides where a piece ends.
pub trait Ends {
    /// Returns how many of the bytes belong to the piece, and whether it ends there.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool);
}

/// Ends at a byte.
pub(crate) struct Terminator(pub u8);

impl Ends for Terminator {
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        match memchr::memchr(self.0, bytes) {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        }
    }
}

/// Passes over a byte order mark; returns how many bytes that are.
fn behind_mark(mut input: Input) -> io::Result<(Input, u64)> {
    let begin = input.fill_buf()?;
    if begin.starts_with(BOM) {
        input.consume(BOM.len());
        return Ok((input, 3));
    }
    if begin.is_empty() || !BOM.starts_with(begin) {
        return Ok((input, 0));
    }
    // A pipe may hand over less than the mark at once.
    let capacity = input.capacity();
    let mut begin = Vec::with_capacity(BOM.len());
    input.by_ref().take(3).read_to_end(&mut begin)?;
    if begin == BOM {
        return Ok((input, 3));
    }
    let whole: Box<dyn Read + Send> = Box::new(io::Cursor::new(begin).chain(input));
    Ok((io::BufReader::with_capacity(capacity, whole), 0))
}

impl Scanner {
    /// Begins at a place; a byte order mark at the start of the input is dropped.
    ///
    /// # Errors
    /// Those of the input.
    pub fn new(input: Input, mut place: Place) -> io::Result<Self> {
        let mut input = input;
        if place.offset == 0 {
            (input, place.offset) = behind_mark(input)?;
        }
        Ok(Self { input, place, raw: Vec::new(), is_too_long: false, limit: RECORD_BYTES_MAX })
    }

    /// Reads one piece into `raw` and moves the place behind it; `false` at the end of the input.
    ///
    /// # Errors
    /// Those of the input.
    pub fn next(&mut self, ends: &mut impl Ends) -> io::Result<bool> {
        self.raw.clear();
        self.is_too_long = false;
        let begin = self.place.offset;
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return Ok(self.place.offset > begin);
            }
            let (taken, is_end) = ends.scan(bytes);
            let piece = bytes.get(..taken).unwrap_or(bytes);
            self.place.line += count_lines(piece);
            self.place.offset += u64::try_from(taken).unwrap_or(u64::MAX);
            if !self.is_too_long {
                if self.raw.len() + taken > self.limit {
                    self.is_too_long = true;
                    self.raw = Vec::new();
                } else {
                    self.raw.extend_from_slice(piece);
                }
            }
            self.input.consume(taken);
            if is_end {
                return Ok(true);
            }
        }
    }

    /// Returns whether no whole piece with this terminator is in the buffer.
    pub fn may_wait(&self, terminator: u8) -> bool {
        memchr::memchr(terminator, self.input.buffer()).is_none()
    }

    /// Returns whether nothing is in the buffer.
    pub fn is_drained(&self) -> bool {
        self.input.buffer().is_empty()
    }

    /// Reads exactly `count` bytes into `raw`, or fewer at the end; passes over what is too long.
    ///
    /// # Errors
    /// Those of the input.
    pub fn take(&mut self, count: u64) -> io::Result<u64> {
        struct Count(u64);
        impl Ends for Count {
            fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
                let wanted = usize::try_from(self.0).unwrap_or(usize::MAX).min(bytes.len());
                self.0 -= u64::try_from(wanted).unwrap_or(0);
                (wanted, self.0 == 0)
            }
        }
        let begin = self.place.offset;
        if count > 0 {
            self.next(&mut Count(count))?;
        } else {
            self.raw.clear();
        }
        Ok(self.place.offset - begin)
    }

    /// Keeps pieces up to another length.
    #[cfg(test)]
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the piece without the terminator, and for a line break without a carriage return.
    pub fn content(&self, terminator: u8) -> &[u8] {
        let Some(content) = self.raw.strip_suffix(&[terminator]) else { return &self.raw };
        if terminator == b'\n' { content.strip_suffix(b"\r").unwrap_or(content) } else { content }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    u64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(u64::MAX)
}
