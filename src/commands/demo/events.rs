//! The flights as a stream of events: produced, and consumed from a date.

use std::time::Duration;

use prkdb_client::{Client, Consumer, ConsumerOptions, StartAt, wire};
use prkdb_types::ErrorCode;
use tokio::time::Instant;

use super::{flights, milliseconds, per_second, shown, step};
use crate::commands::{
    failure::{Failure, Result},
    output::{Object, readable_size},
    produce,
    session::{self, Session},
};

const COLLECTION: &str = "departures";
/// 2013-06-01T00:00:00Z.
const JUNE_MS: i64 = 1_370_044_800_000;

/// Produces every flight, with the aircraft as the key and the hour of departure as the time.
pub(super) async fn produce(session: &mut Session, client: &Client, report: &mut Object) -> Result {
    let settings = wire::CollectionSettings {
        partitions: 3,
        key_index: wire::KeyIndex::Off.into(),
        ..Default::default()
    };
    client
        .create_collection(COLLECTION, settings)
        .await
        .map_err(|error| session::failure(&error))?;
    let words = [
        "produce",
        COLLECTION,
        "flights.csv",
        "--key-column",
        "tailnum",
        "--timestamp-column",
        "time_hour",
    ];
    let parsed = <produce::Args as clap::Args>::augment_args(clap::Command::new("produce"))
        .try_get_matches_from(words)
        .and_then(|matches| <produce::Args as clap::FromArgMatches>::from_arg_matches(&matches));
    let args = parsed.map_err(|error| Failure::of(ErrorCode::Internal, error.to_string()))?;
    let csv = flights()?;
    let begun = Instant::now();
    let tally = produce::from_memory(session, client, csv, &args).await?;
    let taken = begun.elapsed();
    let rate = per_second(tally.written, taken);
    step(
        session,
        &format!(
            "produce {COLLECTION} --key-column tailnum --timestamp-column time_hour: {} events, {} in {}: {rate} records/s (sync)",
            tally.written,
            readable_size(tally.bytes),
            shown(taken)
        ),
    )?;
    report.add("events", tally.written).add("events_per_second", rate);
    Ok(())
}

/// Reads from the first flight of June on.
pub(super) async fn consume_from_june(
    session: &mut Session,
    client: &Client,
    report: &mut Object,
) -> Result {
    let (records, taken) = consume(client, StartAt::TimestampMs(JUNE_MS)).await?;
    let rate = per_second(records, taken);
    step(
        session,
        &format!(
            "consume {COLLECTION} --from @2013-06-01T00:00:00Z --exit-at-end: {records} events in {}: {rate} records/s",
            shown(taken)
        ),
    )?;
    report.add("events_from_june", records).add("consumed_per_second", rate);
    Ok(())
}

/// Reads everything there is.
pub(super) async fn consume_all(
    session: &mut Session,
    client: &Client,
    report: &mut Object,
) -> Result {
    let (records, taken) = consume(client, StartAt::Earliest).await?;
    step(session, &format!("consume {COLLECTION}: {records} events in {}", shown(taken)))?;
    report.add("events_after", records).add("consume_ms", milliseconds(taken));
    Ok(())
}

/// Reads up to the ends that the partitions have now; returns how many records, and how long it took.
async fn consume(client: &Client, start: StartAt) -> Result<(u64, Duration)> {
    let failed = |error: prkdb_client::ClientError| session::failure(&error);
    let begun = Instant::now();
    let items = client.list_offsets(COLLECTION, Vec::new()).await.map_err(failed)?;
    let until = items.iter().map(|item| (item.partition, item.log_end)).collect();
    let options = ConsumerOptions { start, until, ..ConsumerOptions::default() };
    let mut consumer = Consumer::open(client, COLLECTION, options).await.map_err(failed)?;
    let mut records = 0;
    while let Some(batch) = consumer.next_batch().await.map_err(failed)? {
        for record in batch.records() {
            let _record = record.map_err(failed)?;
            records += 1;
        }
    }
    Ok((records, begun.elapsed()))
}
