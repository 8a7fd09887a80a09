//! The one writer of results.
//!
//! Everything a command prints on stdout goes through [`Output`]: as a table for people, as `plain`
//! tab-separated lines, as one JSON document, as JSON lines, as CSV, or as raw bytes. It owns the
//! rules that scripts rely on: stored bytes are never changed without a sign, a terminal never gets
//! a control character of stored data, a reader that goes away is no error, a full disk is one.
//!
//! It does not know any command: commands describe rows as [`Cell`]s under [`Column`]s.

mod cell;
mod escape;
mod json;
mod listing;
mod object;
mod table;
mod writer;

pub use cell::{Cell, Column, Kind, TimeStyle, UnitStyle, readable_duration, readable_size};
pub use escape::{escape_bytes, escape_into, one_line};
pub use listing::{Listing, Rows};
pub use object::Object;
pub use writer::{Format, Output, OutputOptions};
