//! `prkdb delete`: keys, one by one or by what they begin with.

use std::ffi::OsString;

use prkdb_client::{Client, ClientError, Delete, Scan};
use prkdb_types::ErrorCode;
use serde_json::Value;

use crate::commands::{
    failure::{Failure, Result},
    input::{self, Encoding},
    output::{Cell, Column, Kind, Listing, Object, escape_bytes},
    session::{self, CollectionArg, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb delete user:101
  prkdb delete user:101 --must-exist
  prkdb delete --prefix session: --dry-run
  prkdb delete --prefix session: --yes";

const LISTING: Listing = Listing {
    schema: "prkdb.delete/1",
    columns: &[
        Column::new("KEY", "key", Kind::Bytes),
        Column::new("VERSION", "version", Kind::Number),
        Column::new("PARTITION", "partition", Kind::Number),
    ],
    empty: "(no keys)",
};

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Keys
    #[arg(required_unless_present = "prefix", value_name = "KEY", conflicts_with = "prefix")]
    keys: Vec<OsString>,
    #[command(flatten)]
    collection: CollectionArg,
    /// Encoding of KEY and PREFIX; without it, their bytes as they are
    #[arg(long, visible_alias = "encoding", value_name = "ENC", value_enum)]
    key_encoding: Option<Encoding>,
    /// Delete all keys that begin with it; asks first
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// Print what --prefix would delete, and delete nothing
    #[arg(long, requires = "prefix")]
    dry_run: bool,
    /// Fail with exit code 3 if a key has no value
    #[arg(long, conflicts_with = "prefix")]
    must_exist: bool,
    /// Only if the key has this version
    #[arg(long, value_name = "N", conflicts_with = "prefix")]
    if_version: Option<u64>,
}

/// Runs `delete`.
///
/// # Errors
/// 3 with `--must-exist`, 7 where the version differs, 8 where some keys are deleted and one is not, 9 where
/// `--prefix` is not confirmed.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    if args.if_version.is_some() && args.keys.len() > 1 {
        return Err(Failure::usage("delete --if-version: takes one KEY").into());
    }
    let encoding = args.key_encoding.unwrap_or_default();
    if let Some(prefix) = &args.prefix {
        let prefix = input::key(prefix, encoding)?;
        return Box::pin(by_prefix(session, &args, prefix)).await;
    }
    let keys: Vec<Vec<u8>> =
        args.keys.iter().map(|key| input::key(key, encoding)).collect::<Result<_>>()?;
    let collection = session.collection(&args.collection);
    let client = session.client().await?;
    let mut missing = Vec::new();
    let mut deleted = 0;
    for key in keys {
        let existed = delete(session, &client, &collection, &key, args.if_version).await;
        if existed.map_err(|failure| midway(failure, deleted))? {
            deleted += 1;
        } else {
            missing.push(key);
        }
    }
    report(session, deleted, &missing)?;
    if args.must_exist && !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|key| escape_bytes(key)).collect();
        let message = format!("key not found: {}", names.join(", "));
        return Err(Failure::of(ErrorCode::KeyNotFound, message).into());
    }
    Ok(())
}

/// Says how many keys were deleted before it; where some were, that is what the exit code tells.
fn midway(failure: Failure, deleted: u64) -> Failure {
    if deleted == 0 {
        return failure;
    }
    let mut details = Object::default();
    details.add("deleted", deleted);
    failure.into_partial(format!("{deleted} deleted before it")).details(details.into())
}

/// Returns whether the key had a value.
async fn delete(
    session: &Session,
    client: &Client,
    collection: &str,
    key: &[u8],
    version: Option<u64>,
) -> std::result::Result<bool, Failure> {
    let mut delete = Delete::new(collection, key.to_vec());
    if let Some(version) = version {
        delete = delete.if_version(version);
    }
    let deleted = session.writing(Box::pin(client.delete(delete))).await;
    let context = || format!("delete {}", escape_bytes(key));
    Ok(deleted.map_err(|error| session::failure(&error).context(context()))?.existed)
}

/// Keys are counted first, then deleted as they are found; one that came in between is deleted too.
async fn by_prefix(session: &mut Session, args: &Args, prefix: Vec<u8>) -> Result {
    let collection = session.collection(&args.collection);
    let client = session.streaming_client().await?;
    let scan = Scan::new(collection.clone()).prefix(prefix.clone());
    if args.dry_run {
        return list(session, &client, scan.keys_only()).await;
    }
    let failed = |error: ClientError| session::failure(&error);
    let count = client.scan(scan.clone().count_only()).await.map_err(failed)?.finish().await;
    let count = count.map_err(failed)?;
    let mut deleted = 0;
    if count > 0 {
        let keys = if count == 1 { "key" } else { "keys" };
        session.confirmation.destructive(&format!(
            "delete {count} {keys} of collection '{collection}' that begin with '{}'",
            escape_bytes(&prefix)
        ))?;
        let mut rows = client.scan(scan.keys_only()).await.map_err(failed)?;
        loop {
            let row = rows.next_row().await.map_err(|error| midway(failed(error), deleted))?;
            let Some(row) = row else { break };
            // The whole may take as long as it takes; each of them may not.
            let client = client.with_deadline(session.deadline());
            let existed = delete(session, &client, &collection, &row.key, None).await;
            deleted += u64::from(existed.map_err(|failure| midway(failure, deleted))?);
        }
    }
    report(session, deleted, &[])
}

async fn list(session: &mut Session, client: &Client, scan: Scan) -> Result {
    let failed = |error| session::failure(&error);
    let mut rows = client.scan(scan).await.map_err(failed)?;
    let mut listing = session.output.begin(LISTING)?;
    while let Some(row) = rows.next_row().await.map_err(failed)? {
        let cells = vec![
            Cell::Bytes(row.key.to_vec()),
            Cell::Number(row.version),
            Cell::Number(u64::from(row.partition)),
        ];
        listing.row(&mut session.output, &cells)?;
    }
    listing.end(&mut session.output, &session.talk)
}

fn report(session: &mut Session, deleted: u64, missing: &[Vec<u8>]) -> Result {
    if !session.output.options.format.is_json() {
        return session.output.confirmation(&format!("deleted {deleted}"));
    }
    let missing: Vec<Value> = missing.iter().map(|key| bytes_value(key)).collect();
    let mut document = Object::document("prkdb.delete/1");
    document.add("deleted", deleted).add("missing", missing);
    session.output.document(&document)
}

/// A key in a list of keys: text, or an object with its base64 form.
fn bytes_value(bytes: &[u8]) -> Value {
    let mut object = Object::default();
    object.add_bytes("key", bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => object.into(),
    }
}
