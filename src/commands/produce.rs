//! `prkdb produce`: events from a file or standard input.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, time::Duration};

use prkdb_client::Client;
use prkdb_types::Compression;

use crate::commands::{
    complete,
    failure::{Failure, Result},
    load::{
        self, Format, InputArgs, Job, Kind, Parsing, RunArgs, Sending, Tally, column,
        read::{ColumnName, Header, ObjectFields, Shape, TimestampFormat},
    },
    session::Session,
    values,
};

const EXAMPLES: &str = "\
Examples:
  prkdb produce events events.jsonl --create
  prkdb produce events data.csv --key-column id --checkpoint c.json
  echo 'door opened' | prkdb produce events --key door-7 --header room=lab
  prkdb produce events readings.jsonl --key-field sensor --timestamp-field at --print-offsets

Duplicates are kept, and a key is optional. With --checkpoint a run that is resumed appends nothing twice.";

const KEY_FIELD: &str = "jsonl: the line is the value, this field of it the key; else \
    {\"key\",\"value\",\"headers\":[[\"k\",\"v\"]],\"timestamp\",\"partition\"}, with key_b64, value_b64, \
    headers_b64 for bytes";

/// What `--create` stands for alone.
const PARTITIONS: &str = "3";
/// The most records that a batch may be told to have.
const BATCH_SIZE_MAX: i64 = 1_000_000;

/// Arguments of `produce`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Collection to append to
    #[arg(add = complete::collections())]
    collection: String,
    /// What is read.
    #[command(flatten)]
    input: InputArgs,
    /// Format of the file; auto goes by its extension, else lines: each is a value
    #[arg(long, value_name = "FMT", value_enum, default_value = "auto")]
    format: FormatArg,
    /// Column of the value [default: the row as a JSON object, named by the first row]
    #[arg(long, value_name = "C")]
    value_column: Option<String>,
    /// Column of the time
    #[arg(long, value_name = "C")]
    timestamp_column: Option<String>,
    /// The field of the key.
    #[arg(long, value_name = "F", help = KEY_FIELD)]
    key_field: Option<String>,
    /// jsonl: the line is the value, this field of it the time
    #[arg(long, value_name = "F")]
    timestamp_field: Option<String>,
    /// How times are written, as in strftime [default: RFC 3339, or 10, 13 or 16 digits since 1970]
    #[arg(long, value_name = "STRFTIME", value_parser = TimestampFormat::parse)]
    timestamp_format: Option<TimestampFormat>,
    /// Key of every record
    #[arg(long, value_name = "K", conflicts_with_all = ["key_column", "key_field"])]
    key: Option<OsString>,
    /// Partition of every record; with a key index it must be the one of its key
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Time of every record [default: when it is read; with --checkpoint when the run began]
    #[arg(long, value_name = "T", conflicts_with_all = ["timestamp_column", "timestamp_field"])]
    timestamp: Option<String>,
    /// Header of every record; repeat for more
    #[arg(long = "header", value_name = "K=V")]
    headers: Vec<OsString>,
    /// This text of a key means that there is none
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    null_key: Option<OsString>,
    /// This text of a value means that there is none
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    tombstone: Option<OsString>,
    /// How batches are compressed
    #[arg(long, value_name = "CODEC", value_enum, default_value = "none")]
    compression: CompressionArg,
    /// Most records in a batch; 4096 with a key index
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=BATCH_SIZE_MAX))]
    batch_size: u32,
    /// How long a record that came by a pipe waits for others
    #[arg(long, value_name = "DUR", default_value = "0ms", value_parser = values::duration)]
    linger: Duration,
    /// Batches under way for each partition, up to 16; the order of a partition is kept
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=16))]
    in_flight: u16,
    /// Create the collection if it does not exist, with 3 partitions unless told
    #[arg(long, value_name = "PARTITIONS", num_args = 0..=1, require_equals = true,
        default_missing_value = PARTITIONS, value_parser = clap::value_parser!(u32).range(1..))]
    create: Option<u32>,
    /// Print partition, offset, time and key of each record
    #[arg(long, conflicts_with = "dry_run")]
    print_offsets: bool,
    /// How it goes.
    #[command(flatten)]
    run: RunArgs,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FormatArg {
    /// By the extension of the file.
    Auto,
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

/// `--compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CompressionArg {
    /// Not at all.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
    /// Gzip.
    Gzip,
    /// Snappy.
    Snappy,
}

/// Runs `produce`.
///
/// # Errors
/// As [`load::run()`]; 3 where the collection does not exist and is not to be created.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    load::run(session, &args.job()?)
}

/// Produces records of a table in memory, as the command does with a file.
///
/// # Errors
/// As [`run`].
pub async fn from_memory(
    session: &Session,
    client: &Client,
    bytes: Vec<u8>,
    args: &Args,
) -> Result<Tally> {
    load::from_memory(session, client, bytes, &args.job()?).await
}

impl Args {
    fn job(&self) -> Result<Job<'_>> {
        self.input.check(&self.run, "produce")?;
        Ok(Job {
            input: &self.input,
            run: &self.run,
            parsing: self.parsing()?,
            shape: self.shape()?,
            collection: self.collection.clone(),
            sending: Sending {
                batch_records: self.batch_size,
                window: self.in_flight,
                compression: match self.compression {
                    CompressionArg::None => Compression::None,
                    CompressionArg::Lz4 => Compression::Lz4,
                    CompressionArg::Zstd => Compression::Zstd,
                    CompressionArg::Gzip => Compression::Gzip,
                    CompressionArg::Snappy => Compression::Snappy,
                },
                linger: Some(self.linger),
            },
            kind: Kind::Events { create: self.create, prints_offsets: self.print_offsets },
        })
    }

    fn format(&self) -> Format {
        match self.format {
            FormatArg::Auto => self.input.format_by_extension().unwrap_or(Format::Lines),
            FormatArg::Lines => Format::Lines,
            FormatArg::Delimited => Format::Delimited,
            FormatArg::Csv => Format::Csv,
            FormatArg::Tsv => Format::Tsv,
            FormatArg::Jsonl => Format::Jsonl,
            FormatArg::Frames => Format::Frames,
        }
    }

    fn times(&self) -> TimestampFormat {
        self.timestamp_format.clone().unwrap_or_default()
    }

    fn parsing(&self) -> Result<Parsing> {
        let format = self.format();
        let has_columns = self.value_column.is_some() || self.timestamp_column.is_some();
        let has_fields = self.key_field.is_some() || self.timestamp_field.is_some();
        let has_own_key = matches!(format, Format::Delimited | Format::Frames);
        let foreign = [
            ("--value-column, --timestamp-column", has_columns && !format.is_table()),
            ("--key-field, --timestamp-field", has_fields && format != Format::Jsonl),
            ("--key", self.key.is_some() && has_own_key),
        ];
        self.input.refuse_foreign_flags(format, &foreign)?;
        let comment = self.input.comment();
        match format {
            Format::Lines => Ok(self.input.lines()),
            Format::Delimited => self.input.delimited(),
            Format::Csv | Format::Tsv => self.table(format),
            Format::Jsonl if has_fields => {
                let fields = ObjectFields {
                    key: self.key_field.clone(),
                    timestamp: self.timestamp_field.clone(),
                    format: self.times(),
                };
                Ok(Parsing::Objects { comment, fields })
            }
            Format::Jsonl => Ok(Parsing::Envelopes { comment, format: self.times() }),
            Format::Frames => Ok(Parsing::Frames),
        }
    }

    fn table(&self, format: Format) -> Result<Parsing> {
        let mut table = self.input.table(format)?;
        table.value_column = self.value_column.as_deref().map(column).transpose()?;
        let timestamp_column = self.timestamp_column.as_deref().map(column).transpose()?;
        table.timestamp_column = timestamp_column.map(|column| (column, self.times()));
        let mut named = table.key_columns.iter().chain(&table.value_column);
        let is_time_named =
            table.timestamp_column.as_ref().is_some_and(|(column, _)| column.is_name());
        let is_named = named.any(ColumnName::is_name) || is_time_named;
        // Without a column for the value, the first row names the members of the object.
        table.has_header = table.has_header || is_named || table.value_column.is_none();
        Ok(Parsing::Table(table))
    }

    fn shape(&self) -> Result<Shape> {
        let bytes = |text: &OsString| text.as_bytes().to_vec();
        if self.key.as_ref().is_some_and(|key| key.is_empty()) {
            return Err(Failure::usage("--key: must have at least one byte").into());
        }
        let wrong_time = |why| Failure::usage(format!("--timestamp: {why}"));
        let timestamp = self.timestamp.as_ref();
        let timestamp_ms = timestamp.map(|text| self.times().read(text.as_bytes())).transpose();
        Ok(Shape {
            null_key: self.null_key.as_ref().map(bytes),
            tombstone: self.tombstone.as_ref().map(bytes),
            key: self.key.as_ref().map(bytes),
            partition: self.partition,
            timestamp_ms: timestamp_ms.map_err(wrong_time)?,
            headers: self.headers.iter().map(header).collect::<Result<_>>()?,
            ttl: None,
        })
    }
}

/// `name=value`; the value may hold more of `=` and any bytes.
fn header(text: &OsString) -> Result<Header> {
    let wrong = |why: &str| Failure::usage(format!("--header: {why}"));
    let bytes = text.as_bytes();
    let at = memchr::memchr(b'=', bytes).ok_or_else(|| wrong("write NAME=VALUE"))?;
    let (name, rest) = bytes.split_at_checked(at).unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| wrong("the name is not UTF-8"))?;
    if name.is_empty() {
        return Err(wrong("the name is empty").into());
    }
    Ok((name.to_owned(), rest.get(1..).unwrap_or_default().to_vec()))
}
