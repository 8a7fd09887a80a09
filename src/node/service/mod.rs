//! The data plane: each handler decodes, authorises, makes one call, encodes.
//!
//! Does not know: how a write is decided, who leads, what a terminal shows.

mod context;
mod convert;
mod exchange;
mod expire;
mod kv;
mod produce;
mod scan;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod txn;

pub use context::Context;
pub use convert::limits as limits_message;
pub use kv::KvService;
pub use status::{to_detail, to_status};
pub use stream::StreamService;
pub use txn::TxnService;
