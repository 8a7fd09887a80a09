//! Every method of every service asks the policy: walked from the descriptors, so that a new one
//! cannot be forgotten.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use prkdb_proto::{DESCRIPTOR_SET, RpcStatus, v1};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Endpoint,
};

use super::{security::DenyAll, server, tests::unbooted};

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Returns the path of every method of ours.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "prkdb.v1") {
        for service in &file.service {
            for method in &service.method {
                methods.push(format!("/prkdb.v1.{}/{}", service.name(), method.name()));
            }
        }
    }
    methods
}

#[tokio::test]
async fn every_method_is_refused_where_the_policy_allows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _directory) = unbooted(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(server::serve(node, Arc::new(DenyAll), listener, stop.clone()));
    let channel =
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let methods = methods();
    assert_eq!(methods.len(), 30, "{methods:#?}");
    for method in methods {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let request = Request::new(tokio_stream::once(Bytes::new()));
        let path = method.parse().unwrap();
        let status = client.streaming(request, path, Raw).await.map(drop).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
        let detail = RpcStatus::decode(status.details()).unwrap().details;
        let detail = v1::ErrorDetail::decode(detail[0].value.as_slice()).unwrap();
        assert_eq!(detail.code, "permission_denied", "{method}");
    }
    stop.cancel();
    drop(channel);
    served.await.unwrap().unwrap();
}
