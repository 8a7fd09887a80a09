//! Binary records.
//!
//! | size | field | byte order |
//! |---|---|---|
//! | 4 | length of the key | big-endian |
//! | n | key | |
//! | 4 | length of the value | big-endian |
//! | m | value | |

use std::io;

use super::{Item, Reader, Record, Scanner};

/// Reads frames.
pub struct Frames {
    scanner: Scanner,
}

impl Frames {
    /// Reads frames one after the other.
    pub fn new(scanner: Scanner) -> Self {
        Self { scanner }
    }

    /// Reads a length and so many bytes; adds both to `raw`.
    fn part(&mut self, raw: &mut Vec<u8>) -> io::Result<Part> {
        let got = self.scanner.take(4)?;
        raw.extend_from_slice(&self.scanner.raw);
        let Ok(length) = <[u8; 4]>::try_from(self.scanner.raw.as_slice()) else {
            return Ok(if got == 0 { Part::Nothing } else { Part::Truncated });
        };
        let length = u64::from(u32::from_be_bytes(length));
        let got = self.scanner.take(length)?;
        if got < length {
            return Ok(Part::Truncated);
        }
        if self.scanner.is_too_long && length > 0 {
            return Ok(Part::TooLong);
        }
        raw.extend_from_slice(&self.scanner.raw);
        Ok(Part::Bytes(self.scanner.raw.clone()))
    }
}

enum Part {
    Nothing,
    Truncated,
    TooLong,
    Bytes(Vec<u8>),
}

impl Reader for Frames {
    fn next(&mut self) -> io::Result<Option<Item>> {
        let start = self.scanner.place;
        let mut raw = Vec::new();
        let key = self.part(&mut raw)?;
        if matches!(key, Part::Nothing) {
            return Ok(None);
        }
        let value = match key {
            Part::Truncated => Part::Truncated,
            _ => self.part(&mut raw)?,
        };
        let content = match (key, value) {
            (Part::Bytes(key), Part::Bytes(value)) => Ok(Record::new(key, value)),
            (Part::TooLong, _) | (_, Part::TooLong) => Err(super::delimited::too_long()),
            _ => Err(format!("truncated frame at byte {}", start.offset)),
        };
        // Lines mean nothing here: errors count records.
        self.scanner.place.record += 1;
        self.scanner.place.line = self.scanner.place.record;
        Ok(Some(Item { start, end: self.scanner.place, content, raw }))
    }

    fn skipped(&self) -> u64 {
        0
    }

    fn may_wait(&self) -> bool {
        // A frame that has begun is rarely cut short.
        self.scanner.is_drained()
    }
}
