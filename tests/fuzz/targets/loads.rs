//! The loads of the crash tests, as they are.
#![expect(dead_code, reason = "the crash tests use the rest")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "as in the crash tests")]
#![allow(missing_docs, unreachable_pub, reason = "as in the crash tests")]

#[path = "../../crash/load.rs"]
pub mod load;
#[path = "../../crash/model.rs"]
pub mod model;
#[path = "../../crash/rig.rs"]
pub mod rig;
#[path = "../../crash/shard.rs"]
pub mod shard;
#[path = "../../crash/state.rs"]
pub mod state;
