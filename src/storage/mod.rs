//! The storage engine.

pub mod clock;
pub mod disk;
