//! Records under a condition: each is a request of its own, many at a time, in order per key.

use std::time::Duration;

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use prkdb_client::{Acked, BatchAnswer, BatchFailed, Client, Put};
use prkdb_types::{headers::TTL_MS, murmur2};

use super::{lane::Batch, read::Record};

/// Lanes for each unit of `--concurrency`: keys of one lane go one after the other.
const LANES: u32 = 16;

/// Puts under way.
pub(crate) struct Puts {
    client: Client,
    collection: String,
    timestamp_ms: i64,
    lanes: u32,
    running: FuturesUnordered<BoxFuture<'static, BatchAnswer>>,
}

/// A put states a time to live in a field of its own.
fn ttl(record: &Record) -> Option<Duration> {
    let (_, text) = record.headers.iter().rfind(|(name, _)| name == TTL_MS)?;
    str::from_utf8(text).ok()?.parse().ok().map(Duration::from_millis)
}

impl Puts {
    /// Prepares puts into a collection.
    pub(crate) fn new(
        client: Client,
        collection: String,
        timestamp_ms: i64,
        concurrency: u16,
    ) -> Self {
        let lanes = u32::from(concurrency) * LANES;
        Self { client, collection, timestamp_ms, lanes, running: FuturesUnordered::new() }
    }

    /// Returns how many lanes there are.
    pub(crate) fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Returns the lane of a key.
    pub(crate) fn lane(&self, key: &[u8]) -> u32 {
        murmur2(key) % self.lanes
    }

    /// Sends a batch of one.
    pub(crate) fn start(&mut self, lane: u32, batch: &Batch) {
        let Some(entry) = batch.entries.first() else { return };
        let key = entry.record.key.clone().unwrap_or_default();
        let value = entry.record.value.clone().unwrap_or_default();
        let mut put = Put::new(self.collection.clone(), key, value)
            .timestamp_ms(self.timestamp_ms)
            .if_absent();
        if let Some(ttl) = ttl(&entry.record) {
            put = put.ttl(ttl);
        }
        let client = self.client.clone();
        self.running.push(Box::pin(async move {
            match client.put(put).await {
                Ok(written) => BatchAnswer::Acked(Acked {
                    token: 0,
                    partition: lane,
                    base_sequence: 0,
                    records: 1,
                    base_offset: written.offset,
                    revision: written.revision,
                    append_time_ms: written.append_time_ms,
                    duplicate: written.duplicate,
                }),
                Err(error) => BatchAnswer::Failed(BatchFailed {
                    token: 0,
                    partition: lane,
                    base_sequence: 0,
                    records: 1,
                    error,
                }),
            }
        }));
    }

    /// Waits for one of the puts under way; for ever where there is none.
    ///
    /// Cancel safety: dropping the future loses no answer.
    pub(crate) async fn next(&mut self) -> BatchAnswer {
        match self.running.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}
