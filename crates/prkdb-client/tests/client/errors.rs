//! Every status becomes an error with the right name and exit code.

use prkdb_client::{ClientError, ErrorCode, Outcome};
use prkdb_proto::{
    RpcStatus,
    v1::{self, ErrorDetail},
};
use prost::Message as _;
use tonic::{Code, Status};

use crate::server::refusal;

/// Makes a status as a server sends it.
pub(crate) fn status_with(code: Code, detail: &ErrorDetail) -> Status {
    let any = prost_types::Any {
        type_url: "type.googleapis.com/prkdb.v1.ErrorDetail".to_owned(),
        value: detail.encode_to_vec(),
    };
    let message = "the status's own words".to_owned();
    let status = RpcStatus { code: code.into(), message: message.clone(), details: vec![any] };
    Status::with_details(code, message, status.encode_to_vec().into())
}

#[test]
fn a_bare_grpc_code_decides_the_exit_code() {
    let exit_codes = [
        (Code::Ok, 1),
        (Code::Cancelled, 5),
        (Code::Unknown, 1),
        (Code::InvalidArgument, 1),
        (Code::DeadlineExceeded, 5),
        (Code::NotFound, 3),
        (Code::AlreadyExists, 7),
        (Code::PermissionDenied, 6),
        (Code::ResourceExhausted, 1),
        (Code::FailedPrecondition, 7),
        (Code::Aborted, 7),
        (Code::OutOfRange, 1),
        (Code::Unimplemented, 14),
        (Code::Internal, 1),
        (Code::Unavailable, 4),
        (Code::DataLoss, 12),
        (Code::Unauthenticated, 6),
    ];
    for (index, (code, exit_code)) in exit_codes.into_iter().enumerate() {
        assert_eq!(usize::try_from(i32::from(code)).unwrap(), index, "all 17 in order");
        let error = ClientError::from_status(&Status::new(code, "words"));
        assert_eq!(error.exit_code(), exit_code, "{code:?}");
        assert_eq!(error.to_string(), "words");
    }
    let too_long = ClientError::from_status(&Status::out_of_range("decoded message length"));
    assert_eq!(too_long.code(), ErrorCode::MessageTooLarge);
}

#[test]
fn a_detail_wins_over_the_grpc_code() {
    for code in ErrorCode::ALL {
        let mut detail = refusal(*code, v1::Outcome::Unknown);
        detail.hint = "prkdb help".to_owned();
        detail.current_version = Some(9);
        let error = ClientError::from_status(&status_with(Code::Unknown, &detail));
        assert_eq!((error.code(), error.exit_code()), (*code, code.exit_code()));
        assert_eq!(error.kind(), code.kind());
        assert_eq!(error.to_string(), format!("scripted {}", code.name()));
        assert_eq!(error.hint(), Some("prkdb help"));
        assert_eq!(error.outcome(), Some(Outcome::Unknown));
        assert_eq!(error.current_version(), Some(9));
    }
}

#[test]
fn a_detail_without_words_takes_those_of_the_status() {
    let mut detail = refusal(ErrorCode::Internal, v1::Outcome::NotApplied);
    detail.message.clear();
    let error = ClientError::from_status(&status_with(Code::Internal, &detail));
    assert_eq!(error.to_string(), "the status's own words");
}

#[test]
fn a_code_of_a_newer_server_falls_back_to_the_grpc_code() {
    let mut detail = refusal(ErrorCode::Internal, v1::Outcome::NotApplied);
    detail.code = "from_the_future".to_owned();
    let error = ClientError::from_status(&status_with(Code::NotFound, &detail));
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("from_the_future"), "{error}");
}

#[test]
fn damaged_details_are_passed_over() {
    let status = Status::with_details(Code::NotFound, "words", vec![0xff; 9].into());
    assert_eq!(ClientError::from_status(&status).exit_code(), 3);
}
