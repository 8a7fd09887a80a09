//! The flags that all commands share that read records and send them.

use std::{ffi::OsString, num::NonZeroU64, path::PathBuf};

use crate::commands::values;

/// The most records a batch may have where the collection has a key index.
pub(crate) const BATCH_RECORDS_MAX: u32 = prkdb_types::limits::MAX_KEYED_BATCH_RECORDS;

/// How the input is read.
#[derive(Clone, Debug, clap::Args)]
pub struct InputArgs {
    /// File; '-' is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Between key and value, or between fields; \t \0 \n \\ \xNN are read [default: ',', tsv: a tab]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub separator: Option<OsString>,
    /// Records end with NUL instead of a line break
    #[arg(short = '0', long)]
    pub null: bool,
    /// C escapes in keys and values; a backslash before the separator makes it part of the key
    #[arg(long, value_name = "KIND", value_enum, default_value = "none")]
    pub escape: Escape,
    /// Pass over lines that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub comment: Option<OsString>,
    /// The first row names the columns; implied where a column is given by name
    #[arg(long)]
    pub header_row: bool,
    /// Columns of the key, by number from 1 or by name
    #[arg(long, value_name = "C[,C...]", value_delimiter = ',')]
    pub key_column: Vec<String>,
    /// Between two key columns
    #[arg(long, value_name = "STR", default_value = "|")]
    pub key_separator: OsString,
}

/// How a run goes.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Most bytes in a batch
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = values::size)]
    pub batch_bytes: u64,
    /// Most records in a second
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate: Option<NonZeroU64>,
    /// At a record that is rejected: send those before it and stop, or go on
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stop")]
    pub on_error: OnError,
    /// With --on-error continue: stop after so many; 0 = never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_errors: u64,
    /// Write rejected records here, and why to FILE.reasons
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Note here how far it came; a finished run removes it
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Go on where the checkpoint says
    #[arg(long, requires = "checkpoint")]
    pub resume: bool,
    /// Pass over the first N records
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u64,
    /// Read and check only; no server is asked
    #[arg(long)]
    pub dry_run: bool,
    /// Succeed where there is no record
    #[arg(long)]
    pub allow_empty: bool,
}

/// `--escape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Escape {
    /// Bytes as they stand.
    None,
    /// C escapes.
    C,
}

/// `--on-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Nothing after the record is sent.
    Stop,
    /// The record is left out.
    Continue,
}

impl InputArgs {
    /// Returns whether the input is standard input.
    pub(crate) fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// Returns how the input is called in messages.
    pub(crate) fn name(&self) -> String {
        if self.is_stdin() { "stdin".to_owned() } else { self.file.display().to_string() }
    }

    /// Returns the format that the extension of the file stands for.
    pub(crate) fn format_by_extension(&self) -> Option<Format> {
        match self.file.extension().and_then(|extension| extension.to_str())? {
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "frames" => Some(Format::Frames),
            _ => None,
        }
    }
}

/// The format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Values alone.
    Lines,
    /// Key, separator, value.
    Delimited,
    /// RFC 4180.
    Csv,
    /// RFC 4180 with tabs.
    Tsv,
    /// JSON objects.
    Jsonl,
    /// Lengths and bytes.
    Frames,
}

impl Format {
    /// Returns whether it has rows and columns.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv)
    }

    /// Returns whether records end with a terminator of the caller's choice.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Lines | Self::Delimited)
    }
}
