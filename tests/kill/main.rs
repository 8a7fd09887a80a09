//! The real binary, killed and cut off from its clients.
//!
//! Nothing that was acknowledged may be lost, and nothing that was sent again may be there twice. The
//! tests know the binary and the client crate. Figures: `cargo test --test kill -- --nocapture`; more
//! kills: `PRKDB_KILLS=100` before it.

#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::disallowed_methods, reason = "a test gives up by the clock of the machine")]

mod files;
mod ledger;
mod lost;
mod proxy;
mod rounds;
mod server;
mod streams;
mod transactions;
mod writers;
