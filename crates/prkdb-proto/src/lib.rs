//! The wire protocol of PrkDB: messages, services and clients of the package `prkdb.v1`.
//!
//! The code under `gen/` is generated from `proto/` and committed, so that nobody needs `protoc`;
//! `tests/generated.rs` keeps it fresh (`UPDATE=1 cargo test -p prkdb-proto` writes it).

/// The package `prkdb.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    include!("gen/prkdb.v1.rs");
}

/// The descriptor set of every file in `proto/`, for reflection and for tests that walk the services.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor_set.bin");

/// The `google.rpc.Status` that carries an [`v1::ErrorDetail`] in `grpc-status-details-bin`.
///
/// Source: google/rpc/status.proto of the public googleapis definitions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// The gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message, as in the status itself.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Details, each behind its type's name.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}
