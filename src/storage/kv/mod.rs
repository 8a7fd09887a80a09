//! The key index: which record of the log is the latest of a key.

pub mod tree;
