//! The real binary, killed and cut off from its clients.
//!
//! Nothing that was acknowledged may be lost, and nothing that was sent again may be there twice. The
//! tests know the binary and the client crate. Figures: `cargo test --test kill -- --nocapture`; more
//! kills: `PRKDB_KILLS=100` before it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up should stop the test"
)]

mod files;
mod ledger;
mod lost;
mod proxy;
mod rounds;
mod server;
mod streams;
mod transactions;
mod writers;
