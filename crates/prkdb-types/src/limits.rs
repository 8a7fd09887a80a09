//! The limits that client and server agree on, each with its reason.
//!
//! A default is what a node enforces unless it is configured otherwise; a ceiling is what no
//! configuration may exceed.

/// One KiB in bytes.
const KIB: usize = 1024;

/// One MiB in bytes.
const MIB: usize = 1024 * KIB;

/// The longest key a node takes by default: keys are held in memory, inline in the index.
pub const MAX_KEY_DEFAULT: usize = 4 * KIB;

/// The highest setting for the longest key: a node of the index must still fit some keys.
pub const MAX_KEY_CEILING: usize = 64 * KIB;

/// The longest value a node takes by default. Larger things belong into an object store.
pub const MAX_VALUE_DEFAULT: usize = MIB;

/// The highest setting for the longest value.
pub const MAX_VALUE_CEILING: usize = 16 * MIB;

/// The longest message, and so the largest entry of the log, by default. Never below the limit for
/// values + 1 MiB, so that whatever a value limit allows fits into an entry.
pub const MAX_MESSAGE_DEFAULT: usize = 8 * MIB;

/// How many records a batch of keyed records may hold: a key's place in its batch is a short number,
/// and reading one value walks the records before it.
pub const MAX_KEYED_BATCH_RECORDS: u32 = 4096;

/// How many batches per producer and partition are remembered, and so may be in flight: a repeat of
/// any of them gets its original answer.
pub const PRODUCER_WINDOW_BATCHES: usize = 16;

/// How many keys a transaction may write: its batches of one partition are all remembered, so that a
/// repeat of the commit gets its original answer.
pub const MAX_TRANSACTION_WRITES: usize = 65_536;

/// How many keys a serializable transaction may read one by one: each is looked at again at the commit,
/// while the shard decides nothing else.
pub const MAX_TRANSACTION_READS: usize = 65_536;

/// How many ranges a serializable transaction may read, for the same reason.
pub const MAX_TRANSACTION_RANGES: usize = 1024;

/// How many savepoints a transaction may have at once.
pub const MAX_SAVEPOINTS: usize = 1024;

/// How many lanes, and so single writes at once, a client keeps on its connection.
pub const EXCHANGE_LANES_MAX: usize = 256;

/// How many bytes of batches a stream may have unacknowledged: the width of the HTTP/2 window.
pub const STREAM_CREDIT_BYTES: usize = 16 * MIB;

/// How many partitions a collection may have: each costs a counter and a row of the catalogue.
pub const MAX_PARTITIONS: u32 = 100_000;

/// How many partitions a ring may have: its table holds 150 points for each, 1.2 MB at this count.
pub const MAX_RING_PARTITIONS: u32 = 1024;

/// The longest name of a collection in bytes, as in Kafka.
pub const MAX_COLLECTION_NAME: usize = 249;

/// The longest time to live: 100 years of 365 days. What is meant to last longer has none.
pub const MAX_TTL_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

const _: () = assert!(MAX_KEY_DEFAULT <= MAX_KEY_CEILING);
const _: () = assert!(MAX_VALUE_DEFAULT <= MAX_VALUE_CEILING);
const _: () = assert!(MAX_MESSAGE_DEFAULT >= MAX_VALUE_DEFAULT + MIB);
const _: () =
    assert!(MAX_TRANSACTION_WRITES <= PRODUCER_WINDOW_BATCHES * MAX_KEYED_BATCH_RECORDS as usize);
const _: () = assert!(MAX_KEYED_BATCH_RECORDS <= 65_536, "an ordinal is a u16");
