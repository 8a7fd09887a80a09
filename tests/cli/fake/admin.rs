//! What operators ask of the node in memory.

use std::pin::Pin;

use bytes::Bytes;
use prkdb_proto::v1::{self, admin_server};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Service, limits};

#[tonic::async_trait]
impl admin_server::Admin for Service {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupReply, Status>> + Send>>;

    /// A backup that is cut short.
    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        use v1::backup_reply::{Begin, File, Message};
        let name = "MANIFEST".to_owned();
        let messages = [
            Message::Begin(Begin { cluster_id: vec![7; 16].into(), ..Begin::default() }),
            Message::File(File { shard: 0, name, bytes: 10 }),
            Message::Data(Bytes::from_static(b"four")),
        ];
        let replies = messages.map(|message| Ok(v1::BackupReply { message: Some(message) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn create_snapshot(
        &self,
        _: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotReply>, Status> {
        Err(Status::unimplemented("a node in memory has none"))
    }

    async fn list_snapshots(
        &self,
        _: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsReply>, Status> {
        Err(Status::unimplemented("a node in memory has none"))
    }

    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataReply>, Status> {
        let state = self.0.lock().unwrap();
        let names = request.into_inner().collections;
        let found = names.iter().map(|name| state.collections.get(name).cloned());
        let collections: Option<Vec<_>> = found.collect();
        Ok(Response::new(v1::MetadataReply {
            cluster_id: vec![7; 16].into(),
            node_id: 1,
            nodes: vec![v1::Node { id: 1, address: state.address.clone() }],
            limits: Some(limits()),
            collections: collections.ok_or_else(|| Status::not_found("no such collection"))?,
            version: "0.1.0".to_owned(),
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let state = self.0.lock().unwrap();
        let mut node = v1::NodeStatus {
            id: 1,
            address: state.address.clone(),
            version: "0.1.0".to_owned(),
            shards: 2,
            leads: 2,
            disk_used_bytes: 1 << 30,
            uptime_ms: 61_000,
            ..v1::NodeStatus::default()
        };
        node.set_role(v1::Role::Leader);
        let mut reasons = Vec::new();
        if state.fails_after == Some(0) {
            let mut full = v1::Reason {
                code: "disk_full".to_owned(),
                message: "the disk has no room".to_owned(),
                ..v1::Reason::default()
            };
            full.set_severity(v1::Severity::Critical);
            reasons.push(full);
        }
        let nodes = vec![v1::Node { id: 1, address: state.address.clone() }];
        let cluster_id = vec![7; 16].into();
        Ok(Response::new(v1::StatusReply { cluster_id, node: Some(node), reasons, nodes }))
    }

    async fn metrics(
        &self,
        _: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        let exposition =
            "# HELP prkdb_keys Keys.\n# TYPE prkdb_keys gauge\nprkdb_keys{shard=\"1\"} 7\n# EOF\n";
        Ok(Response::new(v1::MetricsReply { exposition: exposition.to_owned() }))
    }

    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionReply>, Status> {
        let version = "0.1.0".to_owned();
        let target = "x86_64-linux".to_owned();
        Ok(Response::new(v1::VersionReply { version, commit: String::new(), target }))
    }
}
