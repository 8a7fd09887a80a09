//! Errors of a server, by gRPC code and by detail, against a server that knows only errors.

use prkdb_proto::v1::{
    self, ErrorDetail,
    admin_server::{Admin, AdminServer},
};
use prkdb_types::ErrorCode;
use prost::Message as _;
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::support::{Home, said};

/// `google.rpc.Status`, as servers of other languages send it.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Can be connected to; answers everything else with one error.
#[derive(Clone)]
struct Refusing(Status);

#[tonic::async_trait]
impl Admin for Refusing {
    type BackupStream = tokio_stream::Empty<Result<v1::BackupReply, Status>>;

    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(self.0.clone())
    }

    async fn create_snapshot(
        &self,
        _: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotReply>, Status> {
        Err(self.0.clone())
    }

    async fn list_snapshots(
        &self,
        _: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsReply>, Status> {
        Err(self.0.clone())
    }

    async fn metadata(
        &self,
        _: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataReply>, Status> {
        Ok(Response::new(v1::MetadataReply::default()))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        Err(self.0.clone())
    }

    async fn metrics(
        &self,
        _: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        Err(self.0.clone())
    }

    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionReply>, Status> {
        Err(self.0.clone())
    }
}

/// Runs `prkdb ARGS` against a server that answers with a status.
fn against(status: Status, args: &[&str]) -> crate::support::Said {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let _enter = runtime.enter();
    let serving = Server::builder()
        .add_service(AdminServer::new(Refusing(status)))
        .serve_with_incoming(TcpIncoming::from(listener));
    let task = runtime.spawn(serving);
    let home = Home::new();
    let said = said(home.command(args).args(["-s", &address, "--retries", "0", "--timeout", "5s"]));
    task.abort();
    said
}

#[test]
fn every_grpc_code_has_its_exit_code() {
    for (code, exit) in [
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
    ] {
        let said = against(Status::new(code, "because"), &["metrics"]);
        assert_eq!(said.code, exit, "{code:?}\n{}", said.stderr);
        assert!(said.stderr.starts_with("prkdb: "), "{code:?}\n{}", said.stderr);
        assert!(said.stdout.is_empty(), "{code:?}");
    }
}

#[test]
fn the_detail_wins_over_the_grpc_code_for_every_error_of_the_table() {
    for error in ErrorCode::ALL.iter().filter(|error| error.grpc_code().is_some()) {
        let detail = ErrorDetail {
            code: error.name().to_owned(),
            message: "what: why".to_owned(),
            hint: "do that".to_owned(),
            ..ErrorDetail::default()
        };
        let any = Any {
            type_url: "type.googleapis.com/prkdb.v1.ErrorDetail".to_owned(),
            value: detail.encode_to_vec(),
        };
        let grpc = error.grpc_code().unwrap();
        let details = RpcStatus { code: grpc, message: "what: why".to_owned(), details: vec![any] };
        let status =
            Status::with_details(Code::from(grpc), "what: why", details.encode_to_vec().into());
        let said = against(status, &["metrics", "-o", "json"]);
        assert_eq!(said.code, i32::from(error.exit_code()), "{}\n{}", error.name(), said.stderr);
        let json: serde_json::Value =
            serde_json::from_str(said.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(json["error"]["code"], error.name());
    }
}
