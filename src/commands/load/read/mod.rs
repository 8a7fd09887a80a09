//! Reading records from a file or a stream: five formats, one record at a time.
//!
//! A reader yields [`Item`]s: a record, or a record that cannot be used with the reason. It knows where
//! each began, so that an error names its line and a resumed run finds its place. Memory is bounded:
//! what is longer than [`RECORD_BYTES_MAX`] is passed over and rejected.

mod delimited;
mod frames;
mod jsonl;
mod scanner;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

pub use delimited::Delimited;
pub use frames::Frames;
pub use jsonl::JsonLines;
pub use scanner::Scanner;
pub use table::{ColumnName, Table, TableOptions};

/// The longest record that is read: twice the largest value, for escapes and base64.
pub const RECORD_BYTES_MAX: usize = 34 << 20;

/// A position between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes before it.
    pub offset: u64,
    /// Records before it, used or not.
    pub record: u64,
    /// Its line, from 0.
    pub line: u64,
}

/// A key and what to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Returns how many bytes key and value have.
    pub fn payload(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What stands at one place of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it begins.
    pub start: Place,
    /// Where it ends.
    pub end: Place,
    /// The record, or why it is none.
    pub content: Result<Record, String>,
    /// Its bytes as they stand, with the terminator; empty where it was too long to keep.
    pub raw: Vec<u8>,
}

/// Yields the records of an input.
pub trait Reader: Send {
    /// Returns the next item; `None` at the end.
    ///
    /// # Errors
    /// Those of the input.
    fn next(&mut self) -> io::Result<Option<Item>>;

    /// Returns how many empty lines and comments were passed over.
    fn skipped(&self) -> u64;
}

/// An input that readers read.
pub type Input = Box<dyn BufRead + Send>;
