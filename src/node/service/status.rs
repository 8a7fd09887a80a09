//! A failure on the wire: the same detail in a status and inside a stream.

use prkdb_proto::{RpcStatus, v1};
use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::node::outcome::{Failure, Outcome};

/// Names the detail's type, as `google.protobuf.Any` does.
const DETAIL_TYPE: &str = "type.googleapis.com/prkdb.v1.ErrorDetail";

/// Returns the detail of a failure.
pub fn to_detail(failure: &Failure) -> v1::ErrorDetail {
    let outcome = match failure.outcome {
        Outcome::None => v1::Outcome::Unspecified,
        Outcome::NotApplied => v1::Outcome::NotApplied,
        Outcome::Unknown => v1::Outcome::Unknown,
    };
    let conflict = failure.conflict.as_deref();
    v1::ErrorDetail {
        code: failure.code.name().to_owned(),
        message: failure.message.clone().into_owned(),
        hint: failure.hint.clone().into_owned(),
        leader_address: String::new(),
        outcome: outcome.into(),
        current_version: failure.current_version,
        conflict_collection: conflict.map(|key| key.collection.clone()).unwrap_or_default(),
        conflict_key: conflict.map(|key| key.key.clone()).unwrap_or_default(),
    }
}

/// Returns the status of a failure, its detail inside.
pub fn to_status(failure: &Failure) -> Status {
    // A code that never travels would be a defect here; a client sees it as an internal error.
    let code = failure.code.grpc_code().map_or(Code::Internal, Code::from);
    let detail = prost_types::Any {
        type_url: DETAIL_TYPE.to_owned(),
        value: to_detail(failure).encode_to_vec(),
    };
    let message = failure.message.clone().into_owned();
    let status = RpcStatus { code: code.into(), message: message.clone(), details: vec![detail] };
    let bytes = status.encode_to_vec().into();
    Status::with_details_and_metadata(code, message, bytes, MetadataMap::new())
}

#[cfg(test)]
mod tests {
    use prkdb_types::ErrorCode;

    use super::*;

    #[test]
    fn every_code_keeps_its_number_and_name() {
        for code in ErrorCode::ALL {
            let status = to_status(&Failure::new(*code, "why").with_hint("do"));
            let expected = code.grpc_code().map_or(Code::Internal, Code::from);
            assert_eq!(status.code(), expected);
            let decoded = RpcStatus::decode(status.details()).unwrap();
            let detail = v1::ErrorDetail::decode(decoded.details[0].value.as_slice()).unwrap();
            assert_eq!((detail.code.as_str(), detail.hint.as_str()), (code.name(), "do"));
            assert_eq!(detail.outcome(), v1::Outcome::NotApplied);
        }
    }
}
