//! PrkDB.

pub mod storage;
