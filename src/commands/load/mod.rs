//! `prkdb batch-put`: many records from a file or standard input.
//!
//! A thread reads and parses ([`read`], [`source`]); the pipeline sorts records into one lane per
//! partition, cuts batches by count and bytes alone, sends them in order and takes their answers
//! ([`pipeline`]). Because the cut depends on nothing else, and a run stamps all its records with one
//! time, a resumed run makes the same batches under the same sequences: nothing is put twice
//! ([`checkpoint`]).
//!
//! Each batch is applied whole or not at all; the command as a whole is not.

mod answers;
mod args;
mod checkpoint;
mod conditional;
mod lane;
mod pipeline;
mod progress;
pub mod read;
mod rejects;
mod report;
mod run;
mod source;

pub use args::Args;
pub use run::{load, run};
