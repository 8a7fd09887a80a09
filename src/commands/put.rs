//! `prkdb put`: one value under one key.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use prkdb_client::Put;

use crate::commands::{
    failure::{Failure, Result},
    input::{self, Encoding},
    output::Object,
    session::{self, CollectionArg, Session},
    values,
};

/// More than any node takes: what is longer is refused without reading it all.
const VALUE_BYTES_MAX: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  prkdb put user:101 '{\"name\": \"Alice\"}'
  prkdb put blob < blob.bin
  prkdb put --key-encoding hex 00ff0a x
  prkdb put lock me --if-absent --ttl 30s
  prkdb put k -- --text";

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Args {
    /// Key
    key: OsString,
    /// Value; omitted or '-' reads standard input
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    #[command(flatten)]
    collection: CollectionArg,
    /// Encoding of KEY; without it, its bytes as they are
    #[arg(long, value_name = "ENC", value_enum, conflicts_with = "encoding")]
    key_encoding: Option<Encoding>,
    /// Encoding of VALUE; without it, its bytes as they are
    #[arg(long, value_name = "ENC", value_enum, conflicts_with = "encoding")]
    value_encoding: Option<Encoding>,
    /// Encoding of both
    #[arg(long, value_name = "ENC", value_enum)]
    encoding: Option<Encoding>,
    /// Read the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    value_file: Option<PathBuf>,
    /// Drop one line break at the end of the value
    #[arg(long)]
    chomp: bool,
    /// How long the value lasts, such as 30s or 1h; without it, as the collection says
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    ttl: Option<Duration>,
    /// Only if the key has no value
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the key has this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Refuse a value that is not JSON
    #[arg(long)]
    json: bool,
    /// Print the value that was replaced
    #[arg(long)]
    print_prev: bool,
}

/// Runs `put`.
///
/// # Errors
/// As the table of exit codes says; 7 where a condition does not hold.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    let key = input::key(&args.key, args.key_encoding.or(args.encoding).unwrap_or_default())?;
    let value = value(&args)?;
    let collection = session.collection(&args.collection);
    let mut put = Put::new(collection.clone(), key, value);
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    if args.if_absent {
        put = put.if_absent();
    }
    if let Some(version) = args.if_version {
        put = put.if_version(version);
    }
    if args.print_prev {
        put = put.return_previous();
    }
    let client = session.client().await?;
    let written =
        session.writing(Box::pin(client.put(put))).await.map_err(|e| session::failure(&e))?;
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.put/1");
        document
            .add("collection", collection)
            .add("partition", written.partition)
            .add("version", written.offset)
            .add("applied", true);
        if args.print_prev {
            match &written.previous {
                Some(previous) => document.add_bytes("previous", previous),
                None => document.add("previous", serde_json::Value::Null),
            };
        }
        return session.output.document(&document);
    }
    match written.previous.filter(|_| args.print_prev) {
        Some(previous) => super::get::print_value(session, &previous),
        None if args.print_prev => Ok(()),
        None => session.output.confirmation("OK"),
    }
}

fn value(args: &Args) -> Result<Vec<u8>> {
    let mut value = match (&args.value, &args.value_file) {
        (_, Some(path)) => input::file(path, VALUE_BYTES_MAX)?,
        (Some(value), None) if value != "-" => {
            let encoding = args.value_encoding.or(args.encoding).unwrap_or_default();
            input::decode(value, encoding).map_err(|why| Failure::usage(format!("value: {why}")))?
        }
        _ => input::stdin(
            "put",
            "give VALUE as an argument, with --value-file, or by a pipe",
            VALUE_BYTES_MAX,
        )?,
    };
    if args.chomp && value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    if args.json {
        serde_json::from_slice::<serde::de::IgnoredAny>(&value)
            .map_err(|error| Failure::usage(format!("value is not JSON: {error}")))?;
    }
    Ok(value)
}
