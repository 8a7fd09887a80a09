//! Many records from a file or standard input: what `batch-put` and `produce` have in common.
//!
//! A command makes a [`Job`] of its arguments; [`run()`] does it. A thread reads and parses ([`read`],
//! [`source`]); the pipeline sorts records into one lane per partition, cuts batches by count and bytes
//! alone, sends them in order and takes their answers ([`pipeline`]). Because the cut depends on nothing
//! else, and records without a key find their partition by the cut alone ([`sticky`]), and a run with a
//! checkpoint stamps all its records with one time, a resumed run makes the same batches under the same
//! sequences: nothing is written twice ([`checkpoint`]).
//!
//! Each batch is applied whole or not at all; a run as a whole is not.

pub mod args;
pub(crate) mod job;
pub(crate) mod parsing;
pub mod read;

mod command_line;
mod end;
mod prepare;
mod resume;
mod run;

mod answers;
mod conditional;
mod lane;
mod link;
mod pipeline;
mod send;
mod source;
mod sticky;

mod checkpoint;
#[doc(hidden)]
pub mod fuzz;
mod offsets;
mod progress;
mod rejects;
mod report;

pub use args::{Format, InputArgs, RunArgs};
pub use report::Tally;

pub(crate) use job::{Job, Kind, Sending};
pub(crate) use parsing::{Parsing, column};
pub(crate) use run::{from_memory, run};
