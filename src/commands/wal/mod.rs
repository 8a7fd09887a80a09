//! `prkdb wal`: the logs of a stopped node, looked at and mended.
//!
//! - `args`: what is typed.
//! - `place`: the directory, its lock, its shards; errors of the storage engine in the words of commands.
//! - `told`: what is said of damage, the same in every verb.
//! - `info`, `dump`, `verify`: look, through a disk that refuses to be changed.
//! - `repair`, `truncate`: end a log behind an entry, after a plan and a question.

mod args;
mod dump;
mod info;
mod names;
mod place;
mod raw;
mod repair;
mod told;
mod truncate;
mod verify;

pub use args::{Args, run};
