//! `prkdb bench`: what this machine can do, and what a node does on it.
//!
//! Every figure can be printed with its ratio to a limit of the machine that was measured in the same
//! run ([`limits`]): the disk without a database, a call without work. The other side of a call is a
//! child process, as a node is. A busy machine is no result ([`machine`]).

mod args;
mod echo;
mod events;
mod latencies;
mod limits;
mod load;
mod machine;
mod made;
mod node;
mod report;
mod run;

pub use args::Args;
pub use run::run;
