//! The operator's plane, server half: one file per group of operations.
//!
//! Does not know: consensus, terminals. What changes the catalogue is proposed like any write.

mod alter;
mod backup;
mod collections;
mod describe;
mod groups;
mod settings;
mod snapshots;
mod status;
mod truncate;

use std::{collections::BTreeSet, pin::Pin};

use futures_util::Stream;
use prkdb_proto::v1::{self, admin_server::Admin};
use prkdb_types::ErrorCode;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::backup::Backup;
pub use collections::{CollectionsService, ensure_default, reconcile};
pub use groups::GroupsService;

use crate::node::{
    Node,
    metrics::Method,
    outcome::Failure,
    security::{Action, Resource},
    service::{Context, limits_message},
};

/// The service `Admin`.
#[derive(Clone, Debug)]
pub struct AdminService {
    context: Context,
    stop: CancellationToken,
}

impl AdminService {
    /// Returns the service of a node. Its streams end when `stop` is cancelled.
    pub fn new(context: Context, stop: CancellationToken) -> Self {
        Self { context, stop }
    }
}

/// This version of PrkDB.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the Git commit the binary was built from; empty where unknown.
pub fn commit() -> &'static str {
    option_env!("PRKDB_COMMIT").unwrap_or_default()
}

/// Returns processor and system, such as `x86_64-linux`.
pub fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

impl AdminService {
    /// Looks at the node, if the caller may.
    fn observe<T>(
        &self,
        look: impl FnOnce(&Node) -> Result<T, Failure>,
    ) -> impl Future<Output = Result<T, Failure>> {
        let seen = self.context.authorise(Action::Observe, Resource::Cluster);
        std::future::ready(seen.and_then(|()| look(&self.context.node)))
    }
}

/// Partitions that one reply describes at most.
const PARTITIONS_DESCRIBED_MAX: usize = 200_000;

fn metadata(node: &Node, names: &[String]) -> Result<v1::MetadataReply, Failure> {
    let names: BTreeSet<&String> = names.iter().collect();
    let mut collections = Vec::new();
    let mut partitions = 0;
    for name in names {
        let route = node.route(name)?;
        partitions += route.collection.partitions.len();
        if partitions > PARTITIONS_DESCRIBED_MAX {
            let message =
                format!("more than {PARTITIONS_DESCRIBED_MAX} partitions asked for at once");
            return Err(Failure::new(ErrorCode::MessageTooLarge, message));
        }
        collections.push(describe::collection(node, &route.collection));
    }
    Ok(v1::MetadataReply {
        cluster_id: node.cluster_id().to_vec().into(),
        node_id: node.node_id(),
        nodes: status::nodes(node),
        limits: Some(limits_message(node)),
        collections,
        version: VERSION.to_owned(),
    })
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataReply>, Status> {
        let names = request.into_inner().collections;
        let look = self.observe(|node| metadata(node, &names));
        self.context.answer_read(Method::Metadata, look).await
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let look = self.observe(|node| Ok(status::status(node)));
        self.context.answer_read(Method::Status, look).await
    }

    async fn metrics(
        &self,
        _request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        let look =
            self.observe(|node| Ok(v1::MetricsReply { exposition: node.metrics().render(node) }));
        self.context.answer_read(Method::Metrics, look).await
    }

    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionReply>, Status> {
        let look = self.observe(|_| {
            Ok(v1::VersionReply {
                version: VERSION.to_owned(),
                commit: commit().to_owned(),
                target: target(),
            })
        });
        self.context.answer_read(Method::Version, look).await
    }

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotReply>, Status> {
        let wanted = request.into_inner().node;
        let created = async {
            self.context.authorise(Action::Administer, Resource::Cluster)?;
            snapshots::create(&self.context.node, wanted).await
        };
        self.context.answer_read(Method::CreateSnapshot, created).await
    }

    async fn list_snapshots(
        &self,
        _request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsReply>, Status> {
        let look = self.observe(snapshots::list);
        self.context.answer_read(Method::ListSnapshots, look).await
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupReply, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let opened = async {
            self.context.authorise(Action::Administer, Resource::Cluster)?;
            let backup = Backup::begin(&self.context.node, self.stop.clone()).await?;
            let replies: Self::BackupStream = Box::pin(backup.replies());
            Ok(replies)
        };
        self.context.answer_read(Method::Backup, opened).await
    }
}
