//! Client for PrkDB nodes.
//!
//! A [`Client`] sends single operations over one multiplexed stream per connection and repeats them,
//! within a deadline, under the same producer and sequence, so that a write is applied at most once.
//! A [`Producer`] makes batches of records and sends them; a [`BatchWriter`] sends batches that are made
//! already. A [`Consumer`] reads the records of a collection by their offsets and follows what is appended.
//! A [`Transaction`] reads one snapshot and applies what it wrote as one.
//! [`blocking`] has the same for programs without an async runtime. Every failure is a [`ClientError`] that
//! says what is known about the write.
//!
//! ```no_run
//! use prkdb_client::{Client, ClientOptions, Get, Put};
//!
//! # async fn example() -> Result<(), prkdb_client::ClientError> {
//! let client = Client::connect(ClientOptions::default()).await?;
//! let written = client.put(Put::new("default", "user:1", "Ada").if_absent()).await?;
//! let read = client.get(Get::new("default", "user:1")).await?;
//! assert_eq!(read.value.map(|value| value.version), Some(written.offset));
//! # Ok(())
//! # }
//! ```

pub mod blocking;

mod address;
mod backup;
mod batch;
mod client;
mod clock;
mod consumer;
mod kv;
mod options;
mod producer;
mod scan;
mod transaction;

mod attempts;
mod exchange;
mod lanes;
mod link;
mod pool;
mod read;
mod routes;
mod shared;
mod write;

mod detail;
mod error;
#[doc(hidden)]
pub mod fuzz;

pub use address::{DEFAULT_PORT, Endpoint};
pub use backup::BackupStream;
pub use batch::{
    Acked, BatchAnswer, BatchAnswers, BatchFailed, BatchNotApplied, BatchWriter, Purpose, Slot,
    WriterOptions,
};
pub use client::{Client, Health, Listing};
pub use clock::{Clock, SystemClock};
pub use consumer::{
    ConsumedRecord, Consumer, ConsumerOptions, FetchedBatch, FetchedRecords, StartAt,
};
pub use error::{Attempt, ClientError, ConflictKey, Outcome, Refusal};
pub use kv::{
    Condition, Consistency, Delete, Expire, Expiry, Get, MultiGet, Put, Read, Renewed, Value,
    Written,
};
pub use options::{ClientOptions, Transport};
pub use prkdb_types::{
    CollectionChanges, Compression, ErrorCode, ErrorKind, Isolation, RecordView, Retry,
    headers::Ttl, transaction::Order,
};
pub use producer::{Delivered, Delivery, Producer, ProducerCounts, ProducerOptions, Record};
pub use routes::Partitions;
pub use scan::{Row, Scan, ScanStream, ShardRevision};
pub use transaction::{Committed, Transaction, TransactionOptions};

/// The messages of the wire that collections and administration are described with.
pub use prkdb_proto::v1 as wire;

/// The programs of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The programs of the guide, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/transactions.md")]
struct Transactions;
