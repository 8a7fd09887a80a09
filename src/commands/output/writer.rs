//! Where results go, in which form.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use serde::Serialize;

use super::{
    cell::{TimeStyle, UnitStyle},
    json,
};
use crate::commands::{
    exit,
    failure::{Failure, Result, Stop},
};

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: aligned, with units.
    Table,
    /// Tab-separated lines, the default where stdout is not a terminal.
    Plain,
    /// One JSON document.
    Json,
    /// One JSON object on each line.
    Ndjson,
    /// RFC 4180.
    Csv,
    /// Exact bytes; only `get`.
    Raw,
    /// The text of /metrics; only `metrics`.
    Prometheus,
}

impl Format {
    /// Returns whether it is one of the two JSON forms.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson)
    }
}

/// How results are written.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// The form.
    pub format: Format,
    /// A header over tables, plain lines and CSV.
    pub has_headers: bool,
    /// The columns asked for, in order; empty = the command's own.
    pub columns: Vec<String>,
    /// The column to sort by, and whether downwards.
    pub sort: Option<(String, bool)>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Units or integers.
    pub units: UnitStyle,
    /// How moments are printed.
    pub time: TimeStyle,
    /// Escape sequences for colours.
    pub is_coloured: bool,
    /// No confirmations such as `OK`.
    pub is_quiet: bool,
    /// Integers of JSON as strings.
    pub has_int_strings: bool,
    /// Columns of the terminal, where stdout is one.
    pub width: Option<u16>,
}

impl OutputOptions {
    /// Plain lines with a header, all columns, in UTC.
    pub fn plain() -> Self {
        Self {
            format: Format::Plain,
            has_headers: true,
            columns: Vec::new(),
            sort: None,
            limit: None,
            units: UnitStyle::Raw,
            time: TimeStyle::Utc,
            is_coloured: false,
            is_quiet: false,
            has_int_strings: false,
            width: None,
        }
    }
}

/// The writer of results.
pub struct Output {
    /// How results are written.
    pub options: OutputOptions,
    /// Whether stdout is a terminal.
    pub is_terminal: bool,
    writer: Box<dyn Write>,
    /// Holds a document until it is whole.
    scratch: Vec<u8>,
}

impl Output {
    /// Writes to stdout.
    pub fn stdout(options: OutputOptions) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        // The lock is held as long as the program runs: nothing else writes there.
        let writer = Box::new(BufWriter::with_capacity(64 << 10, stdout.lock()));
        Self { options, is_terminal, writer, scratch: Vec::new() }
    }

    /// Writes elsewhere; stdout counts as no terminal.
    pub fn to(writer: Box<dyn Write>, options: OutputOptions) -> Self {
        Self { options, is_terminal: false, writer, scratch: Vec::new() }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Stops quietly where the reader went away; else exit 13.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result {
        self.writer.write_all(bytes).map_err(|error| stopped(&error))
    }

    /// Writes one line of text for people, such as `OK`; nothing with `--quiet`.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn confirmation(&mut self, text: &str) -> Result {
        if self.options.is_quiet { Ok(()) } else { self.line(text) }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn line(&mut self, text: &str) -> Result {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes a document: over several lines as `json`, on one as `ndjson`.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn document(&mut self, document: &impl Serialize) -> Result {
        let is_pretty = self.options.format == Format::Json;
        let has_int_strings = self.options.has_int_strings;
        self.scratch.clear();
        let written = json::write(&mut self.scratch, document, is_pretty, has_int_strings);
        written.map_err(|error| stopped(&error.into()))?;
        self.scratch.push(b'\n');
        self.writer.write_all(&self.scratch).map_err(|error| stopped(&error))
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn flush(&mut self) -> Result {
        self.writer.flush().map_err(|error| stopped(&error))
    }
}

/// A reader that went away is no error; everything else is.
fn stopped(error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Stop::Quiet(exit::OK)
    } else {
        Failure::io("write to standard output", error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn end(kind: io::ErrorKind) -> Stop {
        let mut output = Output::to(Box::new(Broken(kind)), OutputOptions::plain());
        output.line("x").unwrap_err()
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        assert!(matches!(end(io::ErrorKind::BrokenPipe), Stop::Quiet(exit::OK)));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let Stop::Failed(failure) = end(io::ErrorKind::StorageFull) else { panic!("no failure") };
        assert_eq!(failure.exit(), exit::IO);
    }
}
