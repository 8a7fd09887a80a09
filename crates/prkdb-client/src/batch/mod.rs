//! Sending record batches over one stream, in order per partition, applied once.
//!
//! A [`BatchWriter`] hands out a [`Slot`] of a partition: the caller encodes its batch under the slot's
//! producer and sequence and sends it. Answers come from [`BatchAnswers`], in order per partition.
//! A partition whose batch failed is halted, and everything sent after that batch comes back as not
//! applied, until the caller has decided and says [`BatchWriter::resume`].

mod answer;
mod driver;
mod window;
mod writer;

pub use answer::{Acked, BatchAnswer, BatchAnswers, BatchFailed, BatchNotApplied};
pub use writer::{BatchWriter, Purpose, Slot, WriterOptions};

#[cfg(test)]
mod window_tests;
