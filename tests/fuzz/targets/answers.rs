//! What a client reads of a server: refusals with their details, and batches in parts.

use bytes::Bytes;
use prkdb_client::fuzz;
use prkdb_proto::v1::{self, ErrorDetail};
use prkdb_types::{BatchBuilder, Compression, ErrorCode, ProducerStamp};
use prost::Message as _;

use super::source::{Source, text};

/// What is read, and its bytes.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(4) {
        0 => {
            let code = i32::from(source.byte());
            let message = text(source.piece());
            let refusal = fuzz::refusal(code, message, Bytes::copy_from_slice(source.rest()));
            let _exit = refusal.code.exit_code();
        }
        1 => {
            if let Ok(detail) = ErrorDetail::decode(source.rest()) {
                let refusal = fuzz::refusal_in_stream(detail.clone());
                let known = ErrorCode::from_name(&detail.code);
                assert_eq!(refusal.code, known.unwrap_or(ErrorCode::Internal));
                assert!(refusal.detailed);
            }
        }
        2 => {
            let size = usize::from(source.byte()).max(1);
            let whole = Bytes::copy_from_slice(source.rest());
            let cut = |size| (0..whole.len()).step_by(size).map(move |at| (at, size));
            let parts = |size| -> Vec<Bytes> {
                cut(size).map(|(at, len)| whole.slice(at..(at + len).min(whole.len()))).collect()
            };
            let (one, many) =
                (fuzz::batches(parts(whole.len().max(1))), fuzz::batches(parts(size)));
            match (one, many) {
                (Ok(one), Ok(many)) => assert_eq!(one, many, "parts of {size}"),
                (Err(_), Err(_)) => {}
                (one, many) => panic!("whole {one:?}, in parts of {size} {many:?}"),
            }
        }
        _ => {
            let bytes = source.rest();
            let _fetched = v1::FetchReply::decode(bytes);
            let _exchanged = v1::ExchangeReply::decode(bytes);
            let _produced = v1::ProduceReply::decode(bytes);
            let _scanned = v1::ScanReply::decode(bytes);
            let _metadata = v1::MetadataReply::decode(bytes);
            let _status = v1::StatusReply::decode(bytes);
        }
    }
}

/// A refusal both ways, and two batches.
pub fn seeds() -> Vec<Vec<u8>> {
    let detail = ErrorDetail {
        code: "version_mismatch".to_owned(),
        message: "key 'a' has version 7".to_owned(),
        hint: "prkdb get a".to_owned(),
        outcome: v1::Outcome::NotApplied.into(),
        current_version: Some(7),
        ..ErrorDetail::default()
    };
    let detail = detail.encode_to_vec();
    let status = prkdb_proto::RpcStatus {
        code: 10,
        message: "key 'a' has version 7".to_owned(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/prkdb.v1.ErrorDetail".to_owned(),
            value: detail.clone(),
        }],
    };
    let mut batches = Vec::new();
    for offset in 0..2_u8 {
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        builder.push(7, None, Some(&[offset; 9]), &[]).expect("it fits");
        let mut batch = builder.finish().expect("it holds a record");
        batch.set_base_offset(offset.into());
        batches.extend_from_slice(&batch.to_bytes());
    }
    vec![
        [&[0, 10, 0][..], &status.encode_to_vec()].concat(),
        [&[1][..], &detail].concat(),
        [&[2, 50][..], &batches].concat(),
        [&[2, 21][..], &batches].concat(),
    ]
}
