//! What PrkDB's client and server both know: the binary form of record batches, the partitioners,
//! the table of errors, and the descriptors of collections.

mod error;

pub use error::{ErrorCode, ErrorKind, Retry};
