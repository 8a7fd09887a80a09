//! The contract of the command line: what scripts may rely on.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]
#![expect(clippy::disallowed_methods, reason = "a test gives up by the clock of the machine")]

mod backup;
mod batch;
mod broken;
mod cases;
mod codes;
mod completing;
mod consume;
mod data;
mod directory;
mod doctor;
mod examples;
mod fake;
mod flights;
mod generated;
mod help;
mod input;
mod output;
mod produce;
mod rejected;
mod restarts;
mod schemas;
mod serve;
mod sessions;
mod signals;
mod snapshots;
mod startup;
mod supervised;
mod support;
mod terminal;
mod ttl;
mod wal;
mod watching;
