//! What operators and other programs ask of a node.

use prkdb_proto::v1::{
    MetadataRequest, MetricsRequest, Role, StatusRequest, VersionRequest,
    admin_client::AdminClient, admin_server, collections_server, kv_server,
};
use tokio_stream::iter;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::rig::{Rig, put, refused};

/// The full names of the services that the wire's definition has.
const SERVICES: [&str; 3] =
    [admin_server::SERVICE_NAME, collections_server::SERVICE_NAME, kv_server::SERVICE_NAME];

async fn metadata(
    admin: &mut AdminClient<Channel>,
    names: &[&str],
) -> Result<prkdb_proto::v1::MetadataReply, tonic::Status> {
    let collections = names.iter().map(|name| (*name).to_owned()).collect();
    admin.metadata(MetadataRequest { collections }).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn metadata_says_where_things_are() {
    let rig = Rig::start().await;
    let mut admin = rig.admin();
    let reply = metadata(&mut admin, &["default"]).await.unwrap();
    assert_eq!(reply.cluster_id.len(), 16);
    assert_eq!(reply.node_id, 1);
    let nodes: Vec<_> = reply.nodes.iter().map(|node| (node.id, node.address.clone())).collect();
    assert_eq!(nodes, [(1, rig.grpc.to_string())]);
    let limits = reply.limits.unwrap();
    assert_eq!((limits.max_key_bytes, limits.max_value_bytes), (4 << 10, 1 << 20));
    assert_eq!((limits.max_message_bytes, limits.max_keyed_batch_records), (8 << 20, 4096));
    assert!(!reply.version.is_empty());
    let [collection] = reply.collections.as_slice() else { panic!("{:?}", reply.collections) };
    assert_eq!((collection.name.as_str(), collection.partitions.len()), ("default", 3));

    assert!(metadata(&mut admin, &[]).await.unwrap().collections.is_empty());
    let error = metadata(&mut admin, &["default", "nowhere"]).await.unwrap_err();
    refused(&error, Code::NotFound, "collection_not_found");
    rig.stop().await;
}

#[tokio::test]
async fn a_healthy_node_leads_its_shards_and_has_no_reasons() {
    let rig = Rig::with(|settings| settings.shards = 2).await;
    let reply = rig.admin().status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.reasons, []);
    assert_eq!(reply.nodes.len(), 1);
    let node = reply.node.unwrap();
    assert_eq!((node.id, node.role()), (1, Role::Leader));
    assert_eq!(node.address, rig.grpc.to_string());
    assert_eq!((node.shards, node.leads, node.lag), (3, 3, 0));
    assert!(node.disk_used_bytes > 0 && node.disk_free_bytes > 0);
    rig.stop().await;
}

#[tokio::test]
async fn metrics_count_what_was_written() {
    let rig = Rig::start().await;
    rig.kv().put(put("k", "v")).await.unwrap();
    let text = rig.admin().metrics(MetricsRequest {}).await.unwrap().into_inner().exposition;
    for name in [
        "prkdb_rpc_requests_total",
        "prkdb_rpc_seconds",
        "prkdb_append_bytes_total",
        "prkdb_fsync_seconds",
        "prkdb_fsync_entries",
        "prkdb_tail_cache_bytes",
        "prkdb_segment_count",
        "prkdb_prepared_bytes",
        "prkdb_recovery_seconds",
        "prkdb_recovered_cut_bytes",
        "prkdb_keys",
        "prkdb_index_bytes",
        "prkdb_producers",
        "prkdb_limit_rejections_total",
        "prkdb_open_connections",
        "prkdb_in_flight_bytes",
    ] {
        // A family without samples is announced all the same.
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {family} ")), "{name} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let keys: f64 = text
        .lines()
        .filter(|line| line.starts_with("prkdb_keys"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!((keys - 1.0).abs() < f64::EPSILON, "{keys} keys");
    rig.stop().await;
}

#[tokio::test]
async fn the_version_is_that_of_the_package() {
    let rig = Rig::start().await;
    let reply = rig.admin().version(VersionRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.version, env!("CARGO_PKG_VERSION"));
    assert!(reply.target.contains('-'), "{}", reply.target);
    rig.stop().await;
}

#[tokio::test]
async fn health_is_told_for_the_node_and_every_service() {
    let rig = Rig::start().await;
    let mut health = HealthClient::new(rig.channel().await);
    for service in std::iter::once("").chain(SERVICES) {
        // Health follows the node, service by service: it is told a moment after the node is ready.
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut told = health.watch(request).await.unwrap().into_inner();
        while told.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        let request = HealthCheckRequest { service: service.to_owned() };
        let reply = health.check(request).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "prkdb.v1.Nothing".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    rig.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let rig = Rig::start().await;
    let mut reflection = ServerReflectionClient::new(rig.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = reflection.server_reflection_info(iter([ask])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}")
    };
    let listed: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES {
        assert!(listed.iter().any(|name| name == service), "{service} is not in {listed:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_method_of_another_version_is_not_known() {
    let rig = Rig::start().await;
    let mut grpc = tonic::client::Grpc::new(rig.channel().await);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<VersionRequest, VersionRequest>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/prkdb.v1.Kv/Frobnicate");
    let error = grpc.unary(tonic::Request::new(VersionRequest {}), path, codec).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    rig.stop().await;
}
