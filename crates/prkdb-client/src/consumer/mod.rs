//! Reading the records of a collection by their offsets.
//!
//! A [`Consumer`] keeps a place in each partition and one stream to each server that leads some of them.
//! Replies come as opaque batches; each is checked when it is handed out, and only then does the place of its
//! partition move. A break therefore costs nothing but time: new streams begin at the places.

mod options;

mod fetched;
mod reader;

mod feeds;
mod parts;
mod places;

pub use fetched::{ConsumedRecord, FetchedBatch, FetchedRecords};
pub use options::{ConsumerOptions, StartAt};
pub use reader::Consumer;

pub(crate) use parts::Parts;
