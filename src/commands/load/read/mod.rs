//! Reading records from a file or a stream, one record at a time, in several formats.
//!
//! A reader yields [`Item`]s: a record, or a record that cannot be used with the reason. It knows where
//! each began, so that an error names its line and a resumed run finds its place. Memory is bounded:
//! what is longer than [`RECORD_BYTES_MAX`] is passed over and rejected. What a command says of every
//! record, such as a key for all of them, is added by a [`Shape`].

mod delimited;
mod envelope;
mod frames;
mod json;
mod jsonl;
mod objects;
mod scanner;
mod shape;
mod table;
mod timestamp;

#[cfg(test)]
mod event_tests;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Read};

pub use delimited::Delimited;
pub use envelope::Envelopes;
pub use frames::Frames;
pub use jsonl::JsonLines;
pub use objects::{ObjectFields, Objects};
pub use scanner::Scanner;
pub use shape::Shape;
pub use table::{ColumnName, Table, TableOptions};
pub use timestamp::TimestampFormat;

pub(crate) use timestamp::{digits, moment};

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

/// A record header: its name and its value.
pub type Header = (String, Vec<u8>);

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key; `None` makes it an event.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Its time in milliseconds since 1970, where it has one of its own.
    pub timestamp_ms: Option<i64>,
    /// Its partition, where it names one.
    pub partition: Option<u32>,
}

impl Record {
    /// A key and its value.
    pub fn new(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { key: Some(key), value: Some(value), ..Self::default() }
    }

    /// A value without a key.
    pub fn event(value: Vec<u8>) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// Returns how many bytes key, value and headers have.
    pub fn payload(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + headers.sum::<usize>()
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

    /// Returns whether the next item has to be waited for, as far as can be seen.
    fn may_wait(&self) -> bool;
}

/// An input that readers read.
pub type Input = BufReader<Box<dyn Read + Send>>;
