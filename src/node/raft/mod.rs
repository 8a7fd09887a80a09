//! Consensus: the only place that names openraft.
//!
//! One [`Group`] per shard. Its log store and state machine are views of the shard's log and applied
//! state; nothing is kept twice. What the rest of the node sees has no type of openraft in it.
//!
//! Does not know: what the frames of an entry hold, who asked for them.

mod group;
mod log_store;
mod network;
mod runtime;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod suite;
mod types;

/// The filter of a node's log: the library tells each of its own steps at `info`.
pub const LOG_FILTER: &str = "info,openraft=warn";

pub use types::Members;
pub(in crate::node) use types::{membership_from_bytes, membership_to_bytes};

pub(crate) use group::{Group, GroupOptions, Leadership, LeadershipWatch, ProposalEnd};
