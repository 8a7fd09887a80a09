//! From the wire's errors to ours.
//!
//! Knows where a detail travels (`grpc-status-details-bin`, or inside a stream) and the table of gRPC
//! codes for answers without one. Decides nothing about retries.

use prkdb_proto::{
    RpcStatus,
    v1::{ErrorDetail, Outcome as WireOutcome},
};
use prkdb_types::ErrorCode;
use prost::Message as _;
use tonic::{Code, Status};

use crate::error::{ConflictKey, Outcome, Refusal};

/// The type that names our detail inside `google.rpc.Status`.
const DETAIL_TYPE: &str = "type.googleapis.com/prkdb.v1.ErrorDetail";

/// Reads the detail of a status, where it has one.
pub(crate) fn in_status(status: &Status) -> Option<ErrorDetail> {
    let status = RpcStatus::decode(status.details()).ok()?;
    let found = status.details.into_iter().find(|any| any.type_url == DETAIL_TYPE)?;
    ErrorDetail::decode(found.value.as_slice()).ok()
}

/// Turns a status into a refusal: its detail, else what its gRPC code says.
pub(crate) fn of_status(status: &Status) -> Refusal {
    match in_status(status) {
        Some(mut detail) => {
            if detail.message.is_empty() {
                status.message().clone_into(&mut detail.message);
            }
            refusal(detail, Some(status.code()))
        }
        None => Refusal {
            code: code_of(status.code()),
            message: bare_message(status),
            hint: String::new(),
            leader_address: String::new(),
            outcome: None,
            current_version: None,
            conflict: None,
            detailed: false,
        },
    }
}

/// Turns a detail into a refusal. A name of a newer server falls back to the gRPC code it came with.
pub(crate) fn refusal(detail: ErrorDetail, status: Option<Code>) -> Refusal {
    let outcome = match detail.outcome() {
        WireOutcome::Unspecified => None,
        WireOutcome::NotApplied => Some(Outcome::NotApplied),
        WireOutcome::Unknown => Some(Outcome::Unknown),
        WireOutcome::Applied => Some(Outcome::Applied),
    };
    let known = ErrorCode::from_name(&detail.code);
    let message = match known {
        Some(code) if detail.message.is_empty() => code.summary().to_owned(),
        Some(_) => detail.message,
        None => format!("{} ({})", detail.message, detail.code),
    };
    let is_conflict = known == Some(ErrorCode::ConflictDetected);
    let conflict = is_conflict.then_some(ConflictKey {
        collection: detail.conflict_collection,
        key: detail.conflict_key,
    });
    Refusal {
        code: known.or(status.map(code_of)).unwrap_or(ErrorCode::Internal),
        message,
        hint: detail.hint,
        leader_address: detail.leader_address,
        outcome,
        current_version: detail.current_version,
        conflict,
        detailed: true,
    }
}

/// Returns the code that stands for a gRPC code without a detail: one with the right kind and exit code.
pub(crate) fn code_of(code: Code) -> ErrorCode {
    match code {
        Code::Ok | Code::Unknown | Code::Internal => ErrorCode::Internal,
        Code::Cancelled | Code::DeadlineExceeded => ErrorCode::Deadline,
        Code::InvalidArgument => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::CollectionNotFound,
        Code::AlreadyExists => ErrorCode::CollectionExists,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        Code::FailedPrecondition => ErrorCode::IdentityMismatch,
        Code::Aborted => ErrorCode::VersionMismatch,
        // The transport refuses a message above the decode limit by its length, before any handler.
        Code::OutOfRange => ErrorCode::MessageTooLarge,
        Code::Unimplemented => ErrorCode::Unsupported,
        Code::Unavailable => ErrorCode::Unreachable,
        Code::DataLoss => ErrorCode::Corrupt,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
    }
}

/// Returns the code of a connection that broke with this status.
///
/// A break is `Unreachable`, whatever code the transport gave it, unless a server chose the status.
pub(crate) fn broken_code(status: &Status) -> ErrorCode {
    if is_transport(status) { ErrorCode::Unreachable } else { of_status(status).code }
}

/// Tells a status that the transport made from one that a server answered with.
pub(crate) fn is_transport(status: &Status) -> bool {
    let code = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    );
    code && in_status(status).is_none()
}

fn bare_message(status: &Status) -> String {
    if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    }
}
