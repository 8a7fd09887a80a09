//! The client against a scripted server in the same process.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]

mod server;

mod batches;
mod connects;
mod errors;
mod reads;
mod writes;
