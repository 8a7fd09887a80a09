//! The storage engine.

pub mod disk;
