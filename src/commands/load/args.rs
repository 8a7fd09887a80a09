//! The flags of `batch-put`, and what they mean together.

use std::{ffi::OsString, num::NonZeroU64, os::unix::ffi::OsStrExt as _, path::PathBuf};

use super::read::{ColumnName, TableOptions};
use crate::commands::{
    failure::{Failure, Result},
    input,
    output::Object,
    session::CollectionArg,
    values,
};

/// The most records a batch with keys may have.
const BATCH_RECORDS_MAX: u32 = 4096;

/// The most batches a partition may have under way: as many as a server remembers of a producer.
pub(super) const WINDOW_BATCHES: usize = 16;

const EXAMPLES: &str = "\
Examples:
  prkdb batch-put data.txt --separator=,
  prkdb batch-put data.csv --key-column id --checkpoint c.json
  prkdb batch-put data.csv --key-column id --checkpoint c.json --resume
  prkdb scan -o ndjson | prkdb batch-put --format jsonl -c copy

Each batch is applied whole or not at all; the command as a whole is not atomic.";

/// Arguments of `batch-put`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Args {
    /// File; '-' is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Where the records go.
    #[command(flatten)]
    pub collection: CollectionArg,
    /// Format of the file; auto goes by its extension, else delimited
    #[arg(long, value_name = "FMT", value_enum, default_value = "auto")]
    pub format: FormatArg,
    /// Between key and value, or between fields; \t \0 \n \\ \xNN are read [default: ',', tsv: a tab]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub separator: Option<OsString>,
    /// Records end with NUL instead of a line break
    #[arg(short = '0', long)]
    pub null: bool,
    /// C escapes in keys and values; a backslash before the separator makes it part of the key
    #[arg(long, value_name = "KIND", value_enum, default_value = "none")]
    pub escape: Escape,
    /// The first row names the columns; implied where a column is given by name
    #[arg(long)]
    pub header_row: bool,
    /// Columns of the key, by number from 1 or by name
    #[arg(long, value_name = "C[,C...]", value_delimiter = ',')]
    pub key_column: Vec<String>,
    /// Column of the value [default: 2; with a named key column the row as a JSON object]
    #[arg(long, value_name = "C")]
    pub value_column: Option<String>,
    /// Between two key columns
    #[arg(long, value_name = "STR", default_value = "|")]
    pub key_separator: OsString,
    /// Pass over lines that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub comment: Option<OsString>,
    /// Only keys without a value; each record is a request of its own
    #[arg(long, conflicts_with_all = ["checkpoint", "resume"])]
    pub if_absent: bool,
    /// Most records in a batch, up to 4096
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    pub batch_size: u32,
    /// Most bytes in a batch
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = values::size)]
    pub batch_bytes: u64,
    /// Batches under way for each partition, up to 16; the order of a partition is kept
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=16))]
    pub concurrency: u16,
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

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatArg {
    /// By the extension of the file.
    Auto,
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

/// How the input is read.
#[derive(Clone, Debug)]
pub enum Parsing {
    /// Key, separator, value.
    Delimited {
        /// Between key and value.
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
    /// JSON lines.
    Jsonl {
        /// What a line begins with to be passed over.
        comment: Vec<u8>,
    },
    /// Frames.
    Frames,
}

impl Args {
    /// Returns whether the input is standard input.
    pub fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// Returns how the input is called in messages.
    pub fn input_name(&self) -> String {
        if self.is_stdin() { "stdin".to_owned() } else { self.file.display().to_string() }
    }

    /// Checks what the parser cannot, and returns how the input is read.
    ///
    /// # Errors
    /// Exit 2.
    pub fn parsing(&self) -> Result<Parsing> {
        if self.is_stdin() && self.checkpoint.is_some() {
            let failure = Failure::usage("--checkpoint: standard input cannot be read again");
            return Err(failure.hint("name a FILE, or pass over records with --skip").into());
        }
        if self.is_stdin() {
            input::refuse_terminal("batch-put", "name a FILE, or give records by a pipe")?;
        }
        if self.max_errors > 0 && self.on_error == OnError::Stop {
            return Err(Failure::usage("--max-errors: needs --on-error continue").into());
        }
        let comment = self.comment.as_ref().map(|prefix| prefix.as_bytes().to_vec());
        let comment = comment.unwrap_or_default();
        let format = self.resolved_format();
        self.refuse_foreign_flags(format)?;
        match format {
            FormatArg::Auto | FormatArg::Delimited => self.delimited(comment),
            FormatArg::Csv => Ok(Parsing::Table(self.table(b',', comment)?)),
            FormatArg::Tsv => Ok(Parsing::Table(self.table(b'\t', comment)?)),
            FormatArg::Jsonl => Ok(Parsing::Jsonl { comment }),
            FormatArg::Frames => Ok(Parsing::Frames),
        }
    }

    fn resolved_format(&self) -> FormatArg {
        if self.format != FormatArg::Auto {
            return self.format;
        }
        match self.file.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => FormatArg::Csv,
            Some("tsv") => FormatArg::Tsv,
            Some("jsonl" | "ndjson") => FormatArg::Jsonl,
            Some("frames") => FormatArg::Frames,
            _ => FormatArg::Delimited,
        }
    }

    /// A flag that a format does not know is refused, not ignored.
    fn refuse_foreign_flags(&self, format: FormatArg) -> Result {
        let is_table = matches!(format, FormatArg::Csv | FormatArg::Tsv);
        let is_delimited = matches!(format, FormatArg::Auto | FormatArg::Delimited);
        let has_columns =
            self.header_row || !self.key_column.is_empty() || self.value_column.is_some();
        let wrong = [
            ("--separator", self.separator.is_some() && !is_table && !is_delimited),
            ("--null", self.null && !is_delimited),
            ("--escape", self.escape != Escape::None && !is_delimited),
            ("--header-row, --key-column, --value-column", has_columns && !is_table),
            ("--comment", self.comment.is_some() && format == FormatArg::Frames),
        ];
        match wrong.iter().find(|(_, is_wrong)| *is_wrong) {
            Some((flag, _)) => {
                Err(Failure::usage(format!("{flag}: not for the format of {}", self.input_name()))
                    .hint("choose the format with --format")
                    .into())
            }
            None => Ok(()),
        }
    }

    fn separator(&self, default: u8) -> Result<Vec<u8>> {
        let Some(text) = &self.separator else { return Ok(vec![default]) };
        input::unescape(text.as_bytes())
            .map_err(|why| Failure::usage(format!("--separator: {why}")).into())
    }

    fn delimited(&self, comment: Vec<u8>) -> Result<Parsing> {
        let separator = self.separator(b',')?;
        let terminator = if self.null { 0 } else { b'\n' };
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
        match problem {
            Some(problem) => Err(Failure::usage(format!("--separator: {problem}")).into()),
            None => Ok(Parsing::Delimited { separator, terminator, is_escaped, comment }),
        }
    }

    fn table(&self, default: u8, comment: Vec<u8>) -> Result<TableOptions> {
        let separator = match *self.separator(default)? {
            [byte] if byte != b'\n' && byte != b'"' && byte != b'\r' => byte,
            _ => {
                let message = "--separator: must be one byte, no quote and no line break";
                return Err(Failure::usage(message).into());
            }
        };
        let mut key_columns: Vec<ColumnName> =
            self.key_column.iter().map(|name| column(name)).collect::<Result<_>>()?;
        if key_columns.is_empty() {
            key_columns.push(ColumnName::Number(1));
        }
        let is_named = |column: &ColumnName| matches!(column, ColumnName::Name(_));
        let has_named_key = key_columns.iter().any(is_named);
        let value_column = match &self.value_column {
            Some(name) => Some(column(name)?),
            None if has_named_key => None,
            None => Some(ColumnName::Number(2)),
        };
        let has_header =
            self.header_row || has_named_key || value_column.as_ref().is_some_and(is_named);
        let key_separator = self.key_separator.as_bytes().to_vec();
        Ok(TableOptions {
            separator,
            has_header,
            key_columns,
            key_separator,
            value_column,
            comment,
        })
    }

    /// Returns what decides how records are read and cut, for a checkpoint to compare.
    pub fn fingerprint(&self, parsing: &Parsing) -> Object {
        let mut object = Object::default();
        object
            .add("parsing", format!("{parsing:?}"))
            .add("skip", self.skip)
            .add("batch_size", self.batch_size)
            .add("batch_bytes", self.batch_bytes);
        object
    }
}

fn column(text: &str) -> Result<ColumnName> {
    if text.is_empty() {
        return Err(Failure::usage("a column has no empty name").into());
    }
    match text.parse::<usize>() {
        Ok(0) => Err(Failure::usage("columns count from 1").into()),
        Ok(number) => Ok(ColumnName::Number(number)),
        Err(_) => Ok(ColumnName::Name(text.to_owned())),
    }
}
