//! PrkDB stores keys and streams of events on a replicated log: one binary, one engine.

pub mod admin;
#[cfg(feature = "cli")]
pub mod commands;
pub mod db;
mod driver;
pub mod node;
pub mod storage;

#[cfg(feature = "cli")]
pub use commands::cli;
pub use db::PrkDb;

/// The programs of the guide, compiled.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/guide/embedded.md")]
    struct Embedded;
    #[doc = include_str!("../docs/guide/adapters.md")]
    struct Adapters;
}
