//! Transactions of one shard: what each isolation keeps from happening, and that the tests would see it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up should stop the test"
)]

mod anomalies;
mod history;
mod planted;
mod rig;
mod sequencer;
