//! The engine inside of a program: no server, no network, no Raft.
//!
//! [`PrkDb`] opens a directory that is its own and writes the same log as a node, with one shard that holds
//! the catalogue and all data. What is acknowledged is durable and applied.
//!
//! Every call that waits returns a [`Reply`]: `.await` it, on any runtime, or `.wait()` for it on a thread.
//! A write is on its way when the call returns, so many can be under way at once, and one sync covers all
//! that wait for it.
//!
//! ```
//! use prkdb::PrkDb;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! let db = PrkDb::builder().with_data_dir(&path).build()?;
//! db.kv().put("user:1", "Ada").wait()?;
//!
//! let mut tx = db.begin();
//! let name = tx.get("user:1")?;
//! tx.put("user:2", name.unwrap_or_default())?;
//! tx.commit().wait()?;
//!
//! assert_eq!(db.kv().get("user:2").wait()?.map(|found| found.value), Some("Ada".into()));
//! # Ok(())
//! # }
//! ```
//!
//! - `builder`, `database`: opening, closing, the handles.
//! - `kv`, `stream`, `transaction`: what is done with a collection, byte for byte.
//! - `catalog`: which collections there are.
//! - `adapter`: the engine as others see it that could have another.
//! - `engine`: decides and appends; `applier`: the thread that applies and answers; `janitor`: the one that
//!   writes what is due; `trim`: how a partition begins later.
//!
//! Does not know: nodes, gRPC, the command line, a runtime.

mod builder;
mod database;

mod catalog;
mod kv;
mod stream;
mod transaction;

mod applier;
mod engine;
mod janitor;
mod reply;
mod trim;

mod error;

pub mod adapter;

pub use self::{
    builder::{Builder, Durability},
    catalog::Collection,
    database::{PrkDb, Stats},
    error::DbError,
    kv::{Kv, Scan, Value, Written},
    reply::Reply,
    stream::{Event, Events, Stream},
    transaction::{Transaction, TransactionConfig},
};
