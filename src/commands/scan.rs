//! `prkdb scan`: keys in order.

use std::ffi::OsString;

use prkdb_client::{Row, Scan, ScanStream};

use crate::commands::{
    failure::{Failure, Result},
    get::Level,
    input::{self, Encoding},
    output::{Cell, Column, Kind, Listing, Object, Rows},
    session::{self, CollectionArg, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb scan user: --limit 10
  prkdb scan --from a --to b --reverse
  prkdb scan --count -c flights
  prkdb scan -o ndjson > backup.jsonl";

const KEY: Column = Column::new("KEY", "key", Kind::Bytes);
const VALUE: Column = Column::new("VALUE", "value", Kind::Bytes);
const VERSION: Column = Column::new("VERSION", "version", Kind::Number);
const PARTITION: Column = Column::new("PARTITION", "partition", Kind::Number);

const ROWS: Listing = Listing {
    schema: "prkdb.scan/1",
    columns: &[KEY, VALUE, VERSION, PARTITION],
    empty: "(no keys)",
};

const KEYS: Listing = Listing { schema: "prkdb.scan/1", columns: &[KEY], empty: "(no keys)" };

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only keys that begin with it
    prefix: Option<OsString>,
    #[command(flatten)]
    collection: CollectionArg,
    /// Encoding of PREFIX and of the keys in --from and --to; without it, their bytes as they are
    #[arg(long, visible_alias = "encoding", value_name = "ENC", value_enum)]
    key_encoding: Option<Encoding>,
    /// First key, inclusive
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// Last key, exclusive
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Print keys alone
    #[arg(long)]
    keys_only: bool,
    /// Print only how many keys there are
    #[arg(long, conflicts_with_all = ["keys_only", "reverse"])]
    count: bool,
    /// How fresh the read must be
    #[arg(long, value_name = "LEVEL", default_value = "linearizable")]
    consistency: Level,
}

/// Runs `scan`.
///
/// # Errors
/// 3 where the collection does not exist.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    if session.output.options.sort.is_some() {
        let failure = Failure::usage("scan --sort: keys come in their own order");
        return Err(failure.hint("--reverse turns it round").into());
    }
    let scan = request(session, &args)?;
    let listing = if args.keys_only { KEYS } else { ROWS };
    // Wrong columns are refused before anything is asked.
    let rows = session.output.begin(listing)?;
    let client = session.client().await?;
    let mut stream = client.scan(scan).await.map_err(|error| session::failure(&error))?;
    if args.count {
        let count = stream.finish().await.map_err(|error| session::failure(&error))?;
        return print_count(session, count);
    }
    print_rows(session, &args, rows, &mut stream).await
}

fn request(session: &Session, args: &Args) -> Result<Scan> {
    let encoding = args.key_encoding.unwrap_or_default();
    let mut scan =
        Scan::new(session.collection(&args.collection)).consistency(args.consistency.into());
    if let Some(prefix) = args.prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
        scan = scan.prefix(input::key(prefix, encoding)?);
    }
    if let Some(from) = &args.from {
        scan = scan.from(input::key(from, encoding)?);
    }
    if let Some(to) = &args.to {
        scan = scan.to(input::key(to, encoding)?);
    }
    if let Some(limit) = session.output.options.limit {
        scan = scan.limit(limit);
    }
    scan = if args.reverse { scan.reverse() } else { scan };
    scan = if args.keys_only { scan.keys_only() } else { scan };
    Ok(if args.count { scan.count_only() } else { scan })
}

async fn print_rows(
    session: &mut Session,
    args: &Args,
    mut rows: Rows,
    stream: &mut ScanStream,
) -> Result {
    while let Some(row) = stream.next_row().await.map_err(|error| session::failure(&error))? {
        rows.row(&mut session.output, &cells(args, &row))?;
    }
    rows.end(&mut session.output, &session.talk)?;
    if stream.revisions().len() > 1 {
        session
            .talk
            .hint("read at one revision per shard; a collection in one shard is read at one");
    }
    Ok(())
}

fn cells(args: &Args, row: &Row) -> Vec<Cell> {
    if args.keys_only {
        return vec![Cell::Bytes(row.key.to_vec())];
    }
    vec![
        Cell::Bytes(row.key.to_vec()),
        Cell::Bytes(row.value.to_vec()),
        Cell::Number(row.version),
        Cell::Number(u64::from(row.partition)),
    ]
}

fn print_count(session: &mut Session, count: u64) -> Result {
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.scan-count/1");
        document.add("count", count);
        return session.output.document(&document);
    }
    session.output.line(&count.to_string())
}
