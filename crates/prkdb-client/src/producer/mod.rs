//! Sending records: batches are made, sent and answered behind one call per record.
//!
//! A [`Producer`] keeps a queue of batches for each partition. A record is encoded into the last of them at once; a task
//! takes batches out as the windows of their partitions have room, and another tells each batch's fate, which
//! the [`Delivery`] of each record refers to.

mod options;
mod record;

mod delivery;
mod handle;

mod outbox;
mod queue;
mod settings;

pub use delivery::{Delivered, Delivery};
pub use handle::{Producer, ProducerCounts};
pub use options::ProducerOptions;
pub use record::Record;
