//! PrkDB stores keys and streams of events on a replicated log: one binary, one engine.

pub mod admin;
pub mod node;
pub mod storage;
