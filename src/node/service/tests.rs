//! Every method there is, asked of a node that has no shards yet.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes};
use futures_util::stream;
use prkdb_proto::DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::{
    node::{
        Config, Node,
        core::Phase,
        limits::Limits,
        metrics::Metrics,
        router::Routes,
        security::{AllowAll, DenyAll, Policy},
        server,
    },
    storage::clock::{Clock, SystemClock},
};

/// Messages as bytes: what is asked need not be known.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let count = from.remaining();
        Ok(Some(from.copy_to_bytes(count)))
    }
}

/// The paths of every method of the package, as the descriptors have them.
fn paths() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap().file;
    let mut paths = Vec::new();
    for file in files.iter().filter(|file| file.package() == "prkdb.v1") {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/prkdb.v1.{}/{}", service.name(), method.name()));
            }
        }
    }
    paths
}

/// Asks a method with an empty message, as a stream in both directions: the transport is the same.
async fn ask(channel: &Channel, path: &str) -> Status {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path: PathAndQuery = path.parse().unwrap();
    let messages = stream::iter([Bytes::new()]);
    let answered = client.streaming(Request::new(messages), path, Raw).await;
    match answered {
        Err(status) => status,
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
    }
}

/// Asks every method of a node in a phase, under a policy.
async fn ask_all(phase: Phase, policy: Arc<dyn Policy>) -> Vec<(String, Status)> {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path().join("data"), 1 << 30);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let node = Arc::new(Node {
        limits: Limits::new(&config),
        config,
        cluster_id: [7; 16],
        advertised: "127.0.0.1:0".to_owned(),
        started: clock.monotonic(),
        clock,
        node_id: 1,
        phase: watch::Sender::new(Phase::Replaying),
        shards: OnceLock::new(),
        routes: arc_swap::ArcSwap::from_pointee(Routes::default()),
        metrics: Arc::new(Metrics::new()),
        admin: tokio::sync::Mutex::new(()),
    });
    node.enter(phase);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(server::serve(node, policy, listener, stop.clone()));
    let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    let mut answers = Vec::new();
    for path in paths() {
        let status = ask(&channel, &path).await;
        answers.push((path, status));
    }
    drop(channel);
    stop.cancel();
    served.await.unwrap().unwrap();
    answers
}

#[tokio::test]
async fn no_method_is_answered_to_whom_the_policy_denies_it() {
    let answers = ask_all(Phase::Serving, Arc::new(DenyAll)).await;
    assert!(answers.len() >= 15, "{answers:?}");
    for (path, status) in answers {
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status:?}");
    }
}

#[tokio::test]
async fn a_node_that_reads_its_log_says_so_to_every_method() {
    for (path, status) in ask_all(Phase::Replaying, Arc::new(AllowAll)).await {
        assert_eq!(status.code(), Code::Unavailable, "{path}: {status:?}");
        let carried = prkdb_proto::RpcStatus::decode(status.details()).unwrap();
        let detail = carried.details.first().unwrap().value.as_slice();
        let detail = prkdb_proto::v1::ErrorDetail::decode(detail).unwrap();
        assert_eq!(detail.code, "replaying", "{path}");
    }
}

#[tokio::test]
async fn what_the_policy_denies_is_denied_before_the_node_tells_how_it_is() {
    for (path, status) in ask_all(Phase::Replaying, Arc::new(DenyAll)).await {
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status:?}");
    }
}
