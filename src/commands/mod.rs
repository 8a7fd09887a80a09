//! The command line: what people and scripts type, and what they get back.
//!
//! A command is one file: its arguments, and a `run` that calls the client and describes its result.
//! Everything that commands share stands beside them once: the tree of commands ([`tree`]), the way
//! from arguments to an exit code ([`mod@run`]), settings and connection ([`session`]), results on
//! stdout ([`output`]), talk on stderr ([`talk`]), errors ([`failure`]) and their numbers ([`exit`]).
//!
//! Promises: stdout is data, and the same data in the same order every time; an error is one line and
//! one exit code, both from one table; stored bytes are never changed without a sign; nothing waits
//! for a terminal without a person knowing it.
//!
//! It does not know how anything is stored: except `serve`, which starts a node, and `wal` and
//! `doctor`, which look at the directory of one, commands know only the client.

pub mod complete;
pub mod config;
pub mod confirm;
pub mod exit;
pub mod failure;
#[doc(hidden)]
pub mod fuzz;
pub mod input;
mod logging;
pub mod output;
pub mod panic;
pub mod run;
pub mod session;
mod shell;
pub mod talk;
pub mod tree;
mod usage;
pub mod values;

pub mod backup;
pub mod batch_put;
pub mod bench;
pub mod collection;
pub mod completions;
pub mod consume;
pub mod consumer;
pub mod delete;
pub mod demo;
pub mod doctor;
pub mod get;
pub mod health;
pub mod help;
pub mod load;
pub mod man;
pub mod metrics;
pub mod produce;
pub mod put;
pub mod reference;
pub mod scan;
pub mod serve;
pub mod snapshot;
pub mod status;
pub mod ttl;
pub mod version;
pub mod wal;
mod watch;

pub use run::run;
pub use tree::cli;
