//! `prkdb get`: the values of keys.

use std::ffi::OsString;

use prkdb_client::{Consistency, Get, MultiGet, Read, Value};
use prkdb_types::ErrorCode;

use crate::commands::{
    exit,
    failure::{Failure, Result, Stop},
    input::{self, Encoding},
    output::{Cell, Column, Format, Kind, Listing, Object, escape_bytes},
    session::{self, CollectionArg, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb get user:101
  prkdb get --raw blob > blob.bin
  prkdb get user:101 user:102 -o ndjson
  prkdb get --exists user:101";

const LISTING: Listing = Listing {
    schema: "prkdb.get/1",
    columns: &[Column::new("KEY", "key", Kind::Bytes), Column::new("VALUE", "value", Kind::Bytes)],
    empty: "(no keys)",
};

const LISTING_WITH_META: Listing = Listing {
    schema: "prkdb.get/1",
    columns: &[
        Column::new("KEY", "key", Kind::Bytes),
        Column::new("VALUE", "value", Kind::Bytes),
        Column::new("VERSION", "version", Kind::Number),
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("TIMESTAMP", "timestamp", Kind::Time),
        TTL,
    ],
    empty: "(no keys)",
};

/// How long a value lasts.
pub(super) const TTL: Column = Column::new("TTL", "ttl", Kind::Duration);

fn left(found: &Value) -> Cell {
    found.expires.map_or(Cell::Absent, |expires| {
        Cell::Duration(u64::try_from(expires.remaining.as_millis()).unwrap_or(u64::MAX))
    })
}

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    collection: CollectionArg,
    /// Encoding of KEY; without it, its bytes as they are
    #[arg(long, visible_alias = "encoding", value_name = "ENC", value_enum)]
    key_encoding: Option<Encoding>,
    /// Print the exact bytes of one value, without a line break
    #[arg(long)]
    raw: bool,
    /// How fresh the read must be
    #[arg(long, value_name = "LEVEL", default_value = "linearizable")]
    consistency: Level,
    /// Print this where a key has no value
    #[arg(long, value_name = "STR")]
    default: Option<OsString>,
    /// Print version, partition, timestamp and remaining time to live too
    #[arg(long)]
    with_meta: bool,
    /// Print nothing: exit code 0 if every key has a value, else 3
    #[arg(long, conflicts_with_all = ["raw", "default", "with_meta"])]
    exists: bool,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Sees every write acknowledged before it.
    Linearizable,
    /// What the node asked has now.
    Stale,
    /// As linearizable, served by whichever replica is asked.
    Follower,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Linearizable => Self::Linearizable,
            Level::Stale => Self::Stale,
            Level::Follower => Self::Follower,
        }
    }
}

/// Runs `get`.
///
/// # Errors
/// 3 where a key has no value and there is no default for it.
pub async fn run(session: &mut Session, mut args: Args) -> Result {
    args.raw |= session.output.options.format == Format::Raw;
    if args.raw && args.keys.len() > 1 {
        return Err(Failure::usage("get --raw: takes one KEY").into());
    }
    if !args.raw {
        session.output.refuse_special_formats()?;
    }
    let encoding = args.key_encoding.unwrap_or_default();
    let keys: Vec<Vec<u8>> =
        args.keys.iter().map(|key| input::key(key, encoding)).collect::<Result<_>>()?;
    let mut reads = read(session, &args, &keys).await?;
    if args.exists {
        let has_all = reads.iter().all(|read| read.value.is_some());
        return if has_all { Ok(()) } else { Err(Stop::Quiet(exit::NOT_FOUND)) };
    }
    if let Some(default) = &args.default {
        let default = input::decode(default, Encoding::Bytes).unwrap_or_default();
        for read in &mut reads {
            read.value.get_or_insert_with(|| Value {
                value: default.clone().into(),
                version: 0,
                partition: 0,
                timestamp_ms: 0,
                expires: None,
            });
        }
    }
    print(session, &args, &keys, &reads)?;
    missing(&keys, &reads)
}

async fn read(session: &Session, args: &Args, keys: &[Vec<u8>]) -> Result<Vec<Read>> {
    let collection = session.collection(&args.collection);
    let client = session.client().await?;
    let consistency = args.consistency.into();
    let read = match keys {
        [key] => {
            let get = Get::new(collection, key.clone()).consistency(consistency);
            client.get(get).await.map(|read| vec![read])
        }
        keys => {
            let keys = keys.iter().map(|key| key.clone().into()).collect();
            client.multi_get(MultiGet::new(collection, keys).consistency(consistency)).await
        }
    };
    read.map_err(|error| session::failure(&error).into())
}

fn print(session: &mut Session, args: &Args, keys: &[Vec<u8>], reads: &[Read]) -> Result {
    let format = session.output.options.format;
    if format.is_json() {
        return print_json(session, args, keys, reads);
    }
    if let ([read], false, Format::Table | Format::Plain | Format::Raw) =
        (reads, args.with_meta, format)
    {
        return match &read.value {
            Some(found) if args.raw => session.output.bytes(&found.value),
            Some(found) => print_value(session, &found.value),
            None => Ok(()),
        };
    }
    let listing = if args.with_meta { LISTING_WITH_META } else { LISTING };
    if !args.with_meta {
        session.output.options.has_headers = false;
    }
    let rows = keys.iter().zip(reads).filter_map(|(key, read)| {
        let found = read.value.as_ref()?;
        Some(vec![
            Cell::Bytes(key.clone()),
            Cell::Bytes(found.value.to_vec()),
            Cell::Number(found.version),
            Cell::Number(u64::from(found.partition)),
            Cell::Time(found.timestamp_ms),
            left(found),
        ])
    });
    session.output.list(listing, rows.collect(), &session.talk)
}

/// Prints one value and a line break: on a terminal without control characters, else as it is.
pub(super) fn print_value(session: &mut Session, value: &[u8]) -> Result {
    if session.output.is_terminal {
        let shown = escape_bytes(value);
        if shown.as_bytes() != value && std::str::from_utf8(value).is_ok_and(has_only_line_breaks) {
            // Text of several lines is shown as it is.
            session.output.bytes(value)?;
            return session.output.bytes(b"\n");
        }
        session.output.line(&shown)?;
        if shown.as_bytes() != value {
            session.talk.hint("escaped for the terminal; --raw prints the exact bytes");
        }
        return Ok(());
    }
    session.output.bytes(value)?;
    session.output.bytes(b"\n")
}

fn has_only_line_breaks(text: &str) -> bool {
    text.split(['\n', '\t']).all(|part| escape_bytes(part.as_bytes()) == part)
}

/// Several keys in one document; the order of the members is that of the fields.
#[derive(serde::Serialize)]
struct Document {
    schema: &'static str,
    items: Vec<Object>,
}

fn print_json(session: &mut Session, args: &Args, keys: &[Vec<u8>], reads: &[Read]) -> Result {
    let time = session.output.options.time;
    let mut items: Vec<Object> = Vec::new();
    let is_single = reads.len() == 1 || session.output.options.format == Format::Ndjson;
    for (key, read) in keys.iter().zip(reads) {
        let mut object =
            if is_single { Object::document("prkdb.get/1") } else { Object::default() };
        object.add_bytes("key", key).add("found", read.value.is_some());
        if let Some(found) = &read.value {
            object.add_bytes("value", &found.value);
            object.add("version", found.version).add("partition", found.partition);
            if args.with_meta {
                let column = Column::new("TIMESTAMP", "timestamp", Kind::Time);
                Cell::Time(found.timestamp_ms).add_to(&mut object, &column, time);
                left(found).add_to(&mut object, &TTL, time);
            }
        }
        items.push(object);
    }
    if is_single {
        return items.iter().try_for_each(|item| session.output.document(item));
    }
    session.output.document(&Document { schema: "prkdb.get/1", items })
}

fn missing(keys: &[Vec<u8>], reads: &[Read]) -> Result {
    let missing: Vec<String> = keys
        .iter()
        .zip(reads)
        .filter(|(_, read)| read.value.is_none())
        .map(|(key, _)| escape_bytes(key))
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        [key] => Err(Failure::of(ErrorCode::KeyNotFound, format!("key not found: {key}")).into()),
        keys => {
            let message = format!("keys not found: {}", keys.join(", "));
            Err(Failure::of(ErrorCode::KeyNotFound, message).into())
        }
    }
}
