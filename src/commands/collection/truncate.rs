//! `prkdb collection truncate`: the beginnings of partitions go.

use prkdb_client::wire::{TruncateCollectionRequest, truncate_collection_request::Before};

use crate::commands::{
    complete,
    consume::At,
    failure::Result,
    output::{Cell, Column, Kind, Listing},
    session::{self, Session},
};

const LISTING: Listing = Listing {
    schema: "prkdb.collection-truncate/1",
    columns: &[
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("LOG-START", "log_start", Kind::Number),
        Column::new("TRIMMED", "trimmed", Kind::Number),
    ],
    empty: "(no partitions)",
};

/// Arguments of `collection truncate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection truncate events --before 100 --partition 0 --yes\n  prkdb collection truncate events --before @2013-06-01T00:00:00Z --yes\n\nThe records before are gone, and keys whose latest record is among them."
)]
pub(super) struct Args {
    /// Name
    #[arg(add = complete::collections())]
    name: String,
    /// What is before this offset, or before the first record with this time or a later one
    #[arg(long, value_name = "latest|OFFSET|@TIME", value_parser = At::end)]
    before: At,
    /// One partition alone
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
}

/// Runs `collection truncate`.
///
/// # Errors
/// 3 where the collection or the partition does not exist, 9 where it is not confirmed.
pub(super) async fn run(session: &mut Session, args: &Args) -> Result {
    session.output.begin(LISTING)?;
    let before = match args.before {
        At::Time(time_ms) => Before::TimestampMs(time_ms),
        At::Offset(offset) => Before::Offset(offset),
        At::Earliest => Before::Offset(0),
        // What lies behind the end is the end.
        At::Latest => Before::Offset(u64::MAX),
    };
    let of = match args.partition {
        Some(partition) => format!("partition {partition} of "),
        None => String::new(),
    };
    let what = format!("let {of}collection '{}' begin later: what is before is gone", args.name);
    session.confirmation.destructive(&what)?;
    let client = session.client().await?;
    let request = TruncateCollectionRequest {
        name: args.name.clone(),
        partition: args.partition,
        before: Some(before),
    };
    let truncated = session.writing(client.truncate_collection(request)).await;
    let reply = truncated.map_err(|error| session::failure(&error))?;
    let row = |partition: &prkdb_client::wire::truncate_collection_reply::Partition| {
        vec![
            Cell::Number(partition.number.into()),
            Cell::Number(partition.log_start),
            Cell::Number(partition.trimmed),
        ]
    };
    let rows = reply.partitions.iter().map(row).collect();
    session.output.list(LISTING, rows, &session.talk)
}
