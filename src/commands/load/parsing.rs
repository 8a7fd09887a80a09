//! How an input is read: what the flags mean together, and the reader they make.

use std::{io, os::unix::ffi::OsStrExt as _};

use super::{
    args::{Escape, Format, InputArgs, OnError, RunArgs},
    read::{
        ColumnName, Delimited, Envelopes, Frames, Input, JsonLines, ObjectFields, Objects, Place,
        Reader, Scanner, Table, TableOptions, TimestampFormat,
    },
};
use crate::commands::{
    failure::{Failure, Result},
    input,
};

/// How the input is read.
#[derive(Clone, Debug)]
pub(crate) enum Parsing {
    /// Values alone, or key, separator, value.
    Delimited {
        /// Between key and value; empty where the whole line is the value.
        separator: Vec<u8>,
        /// At the end of a record.
        terminator: u8,
        /// With C escapes.
        is_escaped: bool,
        /// What a line begins with to be passed over.
        comment: Vec<u8>,
    },
    /// CSV or TSV.
    Table(TableOptions),
    /// JSON lines of keys and values.
    Jsonl {
        /// What a line begins with to be passed over.
        comment: Vec<u8>,
    },
    /// JSON lines of events.
    Envelopes {
        /// What a line begins with to be passed over.
        comment: Vec<u8>,
        /// How times are read.
        format: TimestampFormat,
    },
    /// JSON lines that are values.
    Objects {
        /// What a line begins with to be passed over.
        comment: Vec<u8>,
        /// The fields that are read.
        fields: ObjectFields,
    },
    /// Frames.
    Frames,
}

impl Parsing {
    /// Returns what ends a record in a file of rejected ones; nothing where a record ends itself.
    pub(crate) fn terminator(&self) -> Option<u8> {
        match self {
            Self::Delimited { terminator, .. } => Some(*terminator),
            Self::Frames => None,
            _ => Some(b'\n'),
        }
    }

    /// Returns a reader from a place on; a table begins with its first row.
    ///
    /// # Errors
    /// Those of the input, and `InvalidInput` where its first row lacks a column.
    pub(crate) fn reader(&self, input: Input, place: Place) -> io::Result<Box<dyn Reader>> {
        let scanner = Scanner::new(input, place)?;
        Ok(match self {
            Self::Delimited { separator, terminator, is_escaped, comment } => Box::new(
                Delimited::new(scanner, separator.clone(), *terminator)
                    .escaped(*is_escaped)
                    .comment(comment.clone()),
            ),
            Self::Table(options) => Box::new(Table::new(scanner, options.clone())?),
            Self::Jsonl { comment } => Box::new(JsonLines::new(scanner, comment.clone())),
            Self::Envelopes { comment, format } => {
                Box::new(Envelopes::new(scanner, comment.clone(), format.clone()))
            }
            Self::Objects { comment, fields } => {
                Box::new(Objects::new(scanner, comment.clone(), fields.clone()))
            }
            Self::Frames => Box::new(Frames::new(scanner)),
        })
    }
}

impl InputArgs {
    /// Checks what the parser cannot: inputs that cannot be read, flags that say nothing together.
    ///
    /// # Errors
    /// Exit 2.
    pub(crate) fn check(&self, run: &RunArgs, command: &str) -> Result {
        if self.is_stdin() && run.checkpoint.is_some() {
            let failure = Failure::usage("--checkpoint: standard input cannot be read again");
            return Err(failure.hint("name a FILE, or pass over records with --skip").into());
        }
        if self.is_stdin() {
            input::refuse_terminal(command, "name a FILE, or give records by a pipe")?;
        }
        if run.max_errors > 0 && run.on_error == OnError::Stop {
            return Err(Failure::usage("--max-errors: needs --on-error continue").into());
        }
        Ok(())
    }

    /// A flag that a format does not know is refused, not ignored. `foreign` are a command's own.
    ///
    /// # Errors
    /// Exit 2.
    pub(crate) fn refuse_foreign_flags(
        &self,
        format: Format,
        foreign: &[(&'static str, bool)],
    ) -> Result {
        let has_columns = self.header_row || !self.key_column.is_empty();
        let has_separator = format.is_table() || format == Format::Delimited;
        let wrong = [
            ("--separator", self.separator.is_some() && !has_separator),
            ("--null", self.null && !format.is_plain()),
            ("--escape", self.escape != Escape::None && !format.is_plain()),
            ("--header-row, --key-column", has_columns && !format.is_table()),
            ("--comment", self.comment.is_some() && format == Format::Frames),
        ];
        match wrong.iter().chain(foreign).find(|(_, is_wrong)| *is_wrong) {
            Some((flag, _)) => {
                Err(Failure::usage(format!("{flag}: not for the format of {}", self.name()))
                    .hint("choose the format with --format")
                    .into())
            }
            None => Ok(()),
        }
    }

    /// Returns what a line begins with to be passed over; empty for none.
    pub(crate) fn comment(&self) -> Vec<u8> {
        self.comment.as_ref().map(|prefix| prefix.as_bytes().to_vec()).unwrap_or_default()
    }

    fn separator(&self, default: u8) -> Result<Vec<u8>> {
        let Some(text) = &self.separator else { return Ok(vec![default]) };
        input::unescape(text.as_bytes())
            .map_err(|why| Failure::usage(format!("--separator: {why}")).into())
    }

    fn terminator(&self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    /// Returns how values alone are read.
    pub(crate) fn lines(&self) -> Parsing {
        Parsing::Delimited {
            separator: Vec::new(),
            terminator: self.terminator(),
            is_escaped: self.escape == Escape::C,
            comment: self.comment(),
        }
    }

    /// Returns how keys and values are read.
    ///
    /// # Errors
    /// Exit 2.
    pub(crate) fn delimited(&self) -> Result<Parsing> {
        let separator = self.separator(b',')?;
        let terminator = self.terminator();
        let is_escaped = self.escape == Escape::C;
        let problem = if separator.is_empty() || separator.len() > 8 {
            Some("must have 1 to 8 bytes")
        } else if separator.contains(&terminator) {
            Some("holds what ends a record")
        } else if is_escaped && separator.contains(&b'\\') {
            Some("holds a backslash, which --escape c reads")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Failure::usage(format!("--separator: {problem}")).into());
        }
        let comment = self.comment();
        Ok(Parsing::Delimited { separator, terminator, is_escaped, comment })
    }

    /// Returns how a table is read whose other columns are not decided yet.
    ///
    /// # Errors
    /// Exit 2.
    pub(crate) fn table(&self, format: Format) -> Result<TableOptions> {
        let default = if format == Format::Tsv { b'\t' } else { b',' };
        let separator = match *self.separator(default)? {
            [byte] if byte != b'\n' && byte != b'"' && byte != b'\r' => byte,
            _ => {
                let message = "--separator: must be one byte, no quote and no line break";
                return Err(Failure::usage(message).into());
            }
        };
        let key_columns = self.key_column.iter().map(|name| column(name)).collect::<Result<_>>()?;
        Ok(TableOptions {
            separator,
            has_header: self.header_row,
            key_columns,
            key_separator: self.key_separator.as_bytes().to_vec(),
            value_column: None,
            timestamp_column: None,
            comment: self.comment(),
        })
    }
}

/// Reads a column's number or name.
///
/// # Errors
/// Exit 2.
pub(crate) fn column(text: &str) -> Result<ColumnName> {
    if text.is_empty() {
        return Err(Failure::usage("a column has no empty name").into());
    }
    match text.parse::<usize>() {
        Ok(0) => Err(Failure::usage("columns count from 1").into()),
        Ok(number) => Ok(ColumnName::Number(number)),
        Err(_) => Ok(ColumnName::Name(text.to_owned())),
    }
}
