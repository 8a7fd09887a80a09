//! What mutated bytes are given to: decoders of this crate that are not part of its interface.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_proto::v1::ErrorDetail;
use prkdb_types::{Batch, BatchError};
use tonic::{Code, Status};

use crate::{consumer::Parts, detail, error::Refusal};

/// Reads a status with these details, as an answer to a call has it.
pub fn refusal(code: i32, message: &str, details: Bytes) -> Refusal {
    let status = Status::with_details(Code::from_i32(code), message, details);
    let _code = detail::broken_code(&status);
    detail::of_status(&status)
}

/// Reads a detail inside of a stream.
pub fn refusal_in_stream(detail: ErrorDetail) -> Refusal {
    detail::refusal(detail, None)
}

/// Reads the batches of a reply that came in parts.
///
/// # Errors
/// The first batch that is none.
pub fn batches(parts: Vec<Bytes>) -> Result<Vec<Batch>, Arc<BatchError>> {
    Parts::new(parts).collect::<Result<_, _>>().map_err(Arc::new)
}
