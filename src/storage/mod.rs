//! The storage engine.

pub mod clock;
pub mod dir;
pub mod disk;
