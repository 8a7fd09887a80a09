//! Record batches: the unit of compression, idempotence and transfer.
//!
//! One binary form on the wire, in the log and on disk: Kafka's RecordBatch, version 2, a public
//! format (big-endian inside). Its checksum covers everything from the attributes on; base offset
//! and leader epoch lie before that, so a server stamps them without touching the payload. That is
//! why a [`Batch`] keeps its first 21 bytes apart from the rest.
//!
//! A batch is encoded once, by its producer, and from then on only checked, stamped and copied.
//! Nothing here believes a length before it has been checked against the bytes that are there.

mod error;
mod varint;

mod header;

mod record;

mod cursor;

mod builder;
mod compress;
mod retain;

pub use builder::{BatchBuilder, ProducerStamp, sequence_after};
pub use compress::{Compression, DecompressLimit};
pub use cursor::{RecordCursor, SharedHeaders, SharedRecord};
pub use error::{BatchError, RecordProblem};
pub use header::{Batch, BatchHeader, HEAD_LEN, HEADER_LEN};
pub use record::{HeaderIter, RecordIter, RecordView, Records};
pub use retain::Retained;
