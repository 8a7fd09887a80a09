//! A whole node in this process, asked over its own ports.
//!
//! The tests know the wire, the configuration and how a node is run, and nothing that is inside. Every
//! node has a directory of its own and takes free ports.

#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]

mod rig;

mod batches;
mod cleaning;
mod collections;
mod conditions;
mod exchange;
mod http;
mod kv;
mod limits;
mod operators;
mod producers;
mod replaced;
mod restart;
mod scan;
mod service;
mod start;
mod streams;
mod ttl;
