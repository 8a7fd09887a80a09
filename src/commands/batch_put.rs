//! `prkdb batch-put`: the next values of many keys, from a file or standard input.

use std::time::Duration;

use prkdb_client::{Client, Ttl};
use prkdb_types::Compression;

use crate::commands::{
    failure::Result,
    load::{
        self, Format, InputArgs, Job, Kind, Parsing, RunArgs, Sending, Tally,
        args::BATCH_RECORDS_MAX, column, read::ColumnName, read::Shape,
    },
    session::{CollectionArg, Session},
    values,
};

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
pub struct Args {
    /// Where the records go.
    #[command(flatten)]
    collection: CollectionArg,
    /// Format of the file; auto goes by its extension, else delimited
    #[arg(long, value_name = "FMT", value_enum, default_value = "auto")]
    format: FormatArg,
    /// What is read.
    #[command(flatten)]
    input: InputArgs,
    /// Column of the value [default: 2; with a named key column the row as a JSON object]
    #[arg(long, value_name = "C")]
    value_column: Option<String>,
    /// How long the values last, such as 30s or 1h; without it, as the collection says
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    ttl: Option<Duration>,
    /// Only keys without a value; each record is a request of its own
    #[arg(long, conflicts_with_all = ["checkpoint", "resume"])]
    if_absent: bool,
    /// Most records in a batch, up to 4096
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    batch_size: u32,
    /// Batches under way for each partition, up to 16; the order of a partition is kept
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=16))]
    concurrency: u16,
    /// How it goes.
    #[command(flatten)]
    run: RunArgs,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FormatArg {
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

/// Runs `batch-put`.
///
/// # Errors
/// As [`load::run()`].
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let job = args.job(session.collection(&args.collection))?;
    load::run(session, &job)
}

/// Puts the records of a file in memory into a collection, as the command does with one on disk.
///
/// # Errors
/// As [`run`].
pub async fn from_memory(
    session: &Session,
    client: &Client,
    collection: &str,
    bytes: Vec<u8>,
    args: &Args,
) -> Result<Tally> {
    load::from_memory(session, client, bytes, &args.job(collection.to_owned())?).await
}

impl Args {
    fn job(&self, collection: String) -> Result<Job<'_>> {
        self.input.check(&self.run, "batch-put")?;
        Ok(Job {
            input: &self.input,
            run: &self.run,
            parsing: self.parsing()?,
            shape: Shape { ttl: self.ttl.map(Ttl::of), ..Shape::default() },
            collection,
            sending: Sending {
                batch_records: self.batch_size,
                window: self.concurrency,
                compression: Compression::None,
                linger: None,
            },
            kind: Kind::Puts { if_absent: self.if_absent },
        })
    }

    fn format(&self) -> Format {
        match self.format {
            FormatArg::Auto => self.input.format_by_extension().unwrap_or(Format::Delimited),
            FormatArg::Delimited => Format::Delimited,
            FormatArg::Csv => Format::Csv,
            FormatArg::Tsv => Format::Tsv,
            FormatArg::Jsonl => Format::Jsonl,
            FormatArg::Frames => Format::Frames,
        }
    }

    fn parsing(&self) -> Result<Parsing> {
        let format = self.format();
        let has_value_column = self.value_column.is_some();
        let foreign = [("--value-column", has_value_column && !format.is_table())];
        self.input.refuse_foreign_flags(format, &foreign)?;
        match format {
            Format::Lines | Format::Delimited => self.input.delimited(),
            Format::Csv | Format::Tsv => self.table(format),
            Format::Jsonl => Ok(Parsing::Jsonl { comment: self.input.comment() }),
            Format::Frames => Ok(Parsing::Frames),
        }
    }

    fn table(&self, format: Format) -> Result<Parsing> {
        let mut table = self.input.table(format)?;
        if table.key_columns.is_empty() {
            table.key_columns.push(ColumnName::Number(1));
        }
        let has_named_key = table.key_columns.iter().any(ColumnName::is_name);
        table.value_column = match &self.value_column {
            Some(name) => Some(column(name)?),
            None if has_named_key => None,
            None => Some(ColumnName::Number(2)),
        };
        let has_named_value = table.value_column.as_ref().is_some_and(ColumnName::is_name);
        table.has_header = table.has_header || has_named_key || has_named_value;
        Ok(Parsing::Table(table))
    }
}
