//! The storage engine.

pub mod kv;
