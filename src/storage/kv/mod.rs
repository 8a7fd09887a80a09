//! The applied state of a shard: catalogue, producers' windows, and the key index, which says of
//! each key where in the log its latest record stands. No value is kept in memory.

pub mod catalog;
pub mod due;
pub mod range;
pub mod removals;
pub mod snapshot;
pub mod state;
pub mod tree;
pub mod window;
