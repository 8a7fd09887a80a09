//! `prkdb consume`: the records of a collection in the order of their partitions.
//!
//! [`args`] says which records ([`place`]) and in which form; [`mod@run`] reads them through the client's
//! consumer and hands each to the printer ([`print`]), or to a format of the person's own ([`template`]).
//! Nothing is allocated for a record where it is printed as a line or as a JSON object, and what was
//! printed is handed over whenever the next batch has to be waited for.

mod args;
#[doc(hidden)]
pub mod fuzz;
mod place;
mod print;
mod run;
mod template;

pub use args::Args;
pub(crate) use place::At;
pub use run::run;
