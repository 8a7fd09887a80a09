//! What a producer is told when it is opened.

use std::time::Duration;

use prkdb_types::{Compression, limits::PRODUCER_WINDOW_BATCHES};

/// How a [`crate::Producer`] makes its batches.
#[derive(Clone, Copy, Debug)]
pub struct ProducerOptions {
    /// How many bytes a batch may have, before compression. Default 1 MiB; never more than the server's
    /// limit for messages, whatever is asked for.
    pub batch_bytes: usize,
    /// How many records a batch may have. Default 10,000; in a collection with a key index never more than
    /// the server's limit for keyed batches (4,096).
    pub batch_records: u32,
    /// How long a batch that is not full waits for more records. Default 0: it goes out as soon as the
    /// window of its partition has room, a small one (64 KiB) as soon as fewer than two are under way, and
    /// what waits meanwhile makes the next one.
    pub linger: Duration,
    /// How many batches of a partition may wait for their answer. Default and limit 16, at least 1.
    pub in_flight: usize,
    /// How the records of a batch are compressed. Default: not at all.
    pub compression: Compression,
    /// The producer to write as, of 63 bits; `None`, the default, draws a new one. Its sequences begin at 0.
    pub producer_id: Option<u64>,
    /// How many bytes of records may wait for their answer before [`crate::Producer::send`] waits for room.
    /// Default 32 MiB.
    pub buffer_bytes: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 1 << 20,
            batch_records: 10_000,
            linger: Duration::ZERO,
            in_flight: PRODUCER_WINDOW_BATCHES,
            compression: Compression::None,
            producer_id: None,
            buffer_bytes: 32 << 20,
        }
    }
}
