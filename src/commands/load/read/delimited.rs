//! `key SEPARATOR value`, or a value alone, on each line. Bytes, not text: nothing is trimmed or unquoted.

use std::io;

use memchr::memmem;

use super::{Item, Reader, Record, Scanner, scanner::Terminator};
use crate::commands::input::{unescape, unescape_before};

/// Reads records of which the first separator ends the key.
pub struct Delimited {
    scanner: Scanner,
    /// Between key and value; empty where the whole line is the value.
    separator: Vec<u8>,
    /// How the separator is shown in errors.
    shown: String,
    terminator: u8,
    is_escaped: bool,
    comment: Vec<u8>,
    skipped: u64,
}

impl Delimited {
    /// Reads lines whose first separator ends the key.
    pub fn new(scanner: Scanner, separator: Vec<u8>, terminator: u8) -> Self {
        let shown = crate::commands::output::escape_bytes(&separator);
        Self {
            scanner,
            separator,
            shown,
            terminator,
            is_escaped: false,
            comment: Vec::new(),
            skipped: 0,
        }
    }

    /// Reads lines that are values without keys.
    pub fn lines(scanner: Scanner, terminator: u8) -> Self {
        Self::new(scanner, Vec::new(), terminator)
    }

    /// Resolves C escapes in keys and values.
    #[must_use]
    pub fn escaped(mut self, is_escaped: bool) -> Self {
        self.is_escaped = is_escaped;
        self
    }

    /// Passes over lines that begin with this, unless it is empty.
    #[must_use]
    pub fn comment(mut self, prefix: Vec<u8>) -> Self {
        self.comment = prefix;
        self
    }

    fn parse(&self) -> Result<Record, String> {
        if self.scanner.is_too_long {
            return Err(too_long());
        }
        let content = self.scanner.content(self.terminator);
        if self.separator.is_empty() {
            let unescaped = |content| unescape(content).map_err(|why| format!("value: {why}"));
            let value = if self.is_escaped { unescaped(content)? } else { content.to_vec() };
            return Ok(Record::event(value));
        }
        let at = self.find_separator(content);
        let at = at.ok_or_else(|| format!("no separator '{}' in record", self.shown))?;
        let (key, rest) = content.split_at_checked(at).unwrap_or((content, b""));
        let value = rest.get(self.separator.len()..).unwrap_or_default();
        let (key, value) = if self.is_escaped {
            let key = unescape_before(key, &self.separator).map_err(|why| format!("key: {why}"))?;
            (key, unescape(value).map_err(|why| format!("value: {why}"))?)
        } else {
            (key.to_vec(), value.to_vec())
        };
        Ok(Record::new(key, value))
    }

    /// The first separator; with escapes, one behind a backslash belongs to the key.
    fn find_separator(&self, content: &[u8]) -> Option<usize> {
        if !self.is_escaped {
            return memmem::find(content, &self.separator);
        }
        let mut at = 0;
        while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with(&self.separator) {
                return Some(at);
            }
            at += match rest.strip_prefix(b"\\") {
                Some(next) if next.starts_with(&self.separator) => 1 + self.separator.len(),
                Some(_) => 2,
                None => 1,
            };
        }
        None
    }
}

impl Reader for Delimited {
    fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            let start = self.scanner.place;
            if !self.scanner.next(&mut Terminator(self.terminator))? {
                return Ok(None);
            }
            let content = self.scanner.content(self.terminator);
            let is_comment = !self.comment.is_empty() && content.starts_with(&self.comment);
            if !self.scanner.is_too_long && (content.is_empty() || is_comment) {
                self.skipped += 1;
                continue;
            }
            self.scanner.place.record += 1;
            let content = self.parse();
            let raw = std::mem::take(&mut self.scanner.raw);
            return Ok(Some(Item { start, end: self.scanner.place, content, raw }));
        }
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn may_wait(&self) -> bool {
        self.scanner.may_wait(self.terminator)
    }
}

/// Why a record that is passed over is rejected.
pub(super) fn too_long() -> String {
    format!("record is longer than {} bytes; not kept", super::RECORD_BYTES_MAX)
}
