//! The client against a scripted server in the same process.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]

mod proxy;
mod server;
mod server_batches;
mod server_collections;
mod server_stream;

mod batches;
mod blocks;
mod collections;
mod connects;
mod consumes;
mod errors;
mod produces;
mod reads;
mod writes;
