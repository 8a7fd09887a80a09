//! `prkdb ttl`, `prkdb expire`, `prkdb persist`: how long a key's value lasts.

use std::{ffi::OsString, time::Duration};

use prkdb_client::{Expire, Get, Renewed};
use prkdb_types::ErrorCode;

use super::get::TTL;
use crate::commands::{
    failure::{Failure, Result},
    input::{self, Encoding},
    output::{Cell, Column, Kind, Object, escape_bytes},
    session::{self, CollectionArg, Session},
    values,
};

const EXPIRES_AT: Column = Column::new("EXPIRES-AT", "expires_at", Kind::Time);

/// The key that each of the commands is about.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// Key
    key: OsString,
    #[command(flatten)]
    collection: CollectionArg,
    /// Encoding of KEY; without it, its bytes as they are
    #[arg(long, visible_alias = "encoding", value_name = "ENC", value_enum)]
    key_encoding: Option<Encoding>,
}

/// Arguments of `ttl`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb ttl session:123\n  prkdb ttl session:123 -o json")]
pub struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

/// Arguments of `expire`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb expire session:123 --in 1h\n  prkdb expire session:123")]
pub struct ExpireArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// After so long, such as 30s or 1h; without it, now
    #[arg(long = "in", value_name = "DUR", value_parser = values::duration)]
    after: Option<Duration>,
}

/// Arguments of `persist`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb persist session:123\n  prkdb persist session:123 -o json"
)]
pub struct PersistArgs {
    #[command(flatten)]
    key: KeyArgs,
}

impl KeyArgs {
    fn parse(&self, session: &Session) -> Result<(String, Vec<u8>)> {
        let key = input::key(&self.key, self.key_encoding.unwrap_or_default())?;
        Ok((session.collection(&self.collection), key))
    }
}

fn not_found(key: &[u8]) -> Failure {
    Failure::of(ErrorCode::KeyNotFound, format!("key not found: {}", escape_bytes(key)))
}

/// Runs `ttl`.
///
/// # Errors
/// 3 where the key has no value.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    let (collection, key) = args.key.parse(session)?;
    let client = session.client().await?;
    let read = client.get(Get::new(collection, key.clone())).await;
    let found = read.map_err(|error| session::failure(&error))?.value;
    let expires = found.ok_or_else(|| not_found(&key))?.expires;
    let left = expires.map_or(Cell::Absent, |expires| {
        Cell::Duration(u64::try_from(expires.remaining.as_millis()).unwrap_or(u64::MAX))
    });
    let time = session.output.options.time;
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.ttl/1");
        document.add_bytes("key", &key);
        left.add_to(&mut document, &TTL, time);
        let at = expires.map_or(Cell::Absent, |expires| Cell::Time(expires.at_ms));
        at.add_to(&mut document, &EXPIRES_AT, time);
        return session.output.document(&document);
    }
    let units = session.output.options.units;
    session.output.line(&left.text(units, time))
}

/// Runs `expire`.
///
/// # Errors
/// 3 where the key has no value.
pub async fn expire(session: &mut Session, args: ExpireArgs) -> Result {
    session.output.refuse_special_formats()?;
    let (collection, key) = args.key.parse(session)?;
    let request = Expire::after(collection, key.clone(), args.after.unwrap_or_default());
    let renewed = renew(session, &key, request).await?;
    print(session, "prkdb.expire/1", &key, renewed, true)
}

/// Runs `persist`.
///
/// # Errors
/// 3 where the key has no value.
pub async fn persist(session: &mut Session, args: PersistArgs) -> Result {
    session.output.refuse_special_formats()?;
    let (collection, key) = args.key.parse(session)?;
    let renewed = renew(session, &key, Expire::never(collection, key.clone())).await?;
    print(session, "prkdb.persist/1", &key, renewed, renewed.expired_before)
}

async fn renew(session: &Session, key: &[u8], request: Expire) -> Result<Renewed> {
    let client = session.client().await?;
    let renewed = session.writing(client.expire(request)).await;
    let renewed = renewed.map_err(|error| session::failure(&error))?;
    if renewed.existed { Ok(renewed) } else { Err(not_found(key).into()) }
}

fn print(
    session: &mut Session,
    schema: &'static str,
    key: &[u8],
    renewed: Renewed,
    is_changed: bool,
) -> Result {
    if session.output.options.format.is_json() {
        let mut document = Object::document(schema);
        document.add_bytes("key", key).add("partition", renewed.partition);
        match renewed.version {
            0 if renewed.existed && is_changed && schema == "prkdb.expire/1" => {
                document.add("version", serde_json::Value::Null)
            }
            version => document.add("version", version),
        };
        document.add("changed", is_changed);
        return session.output.document(&document);
    }
    session.output.confirmation(if is_changed { "OK" } else { "it does not expire" })
}
