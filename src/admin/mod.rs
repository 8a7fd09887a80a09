//! The operator's plane, server half: one file per group of operations.
//!
//! Does not know: consensus, terminals. What changes the catalogue is proposed like any write.

mod collections;
mod describe;
mod status;

use prkdb_proto::v1::{self, admin_server::Admin};
use tonic::{Request, Response, Status};

pub use collections::{CollectionsService, ensure_default, reconcile};

use crate::node::{
    metrics::Method,
    security::{Action, Resource},
    service::{Context, limits_message},
};

/// The service `Admin`.
#[derive(Clone, Debug)]
pub struct AdminService {
    context: Context,
}

impl AdminService {
    /// Returns the service of a node.
    pub fn new(context: Context) -> Self {
        Self { context }
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

#[tonic::async_trait]
impl Admin for AdminService {
    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataReply>, Status> {
        let metadata = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            let node = &self.context.node;
            let mut collections = Vec::new();
            for name in request.into_inner().collections {
                let route = node.route(&name)?;
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
        };
        self.context.answer(Method::Metadata, metadata).await
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let status = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            Ok(status::status(&self.context.node))
        };
        self.context.answer(Method::Status, status).await
    }

    async fn metrics(
        &self,
        _request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        let metrics = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            let node = &self.context.node;
            Ok(v1::MetricsReply { exposition: node.metrics().render(node) })
        };
        self.context.answer(Method::Metrics, metrics).await
    }

    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionReply>, Status> {
        let version = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            Ok(v1::VersionReply {
                version: VERSION.to_owned(),
                commit: commit().to_owned(),
                target: target(),
            })
        };
        self.context.answer(Method::Version, version).await
    }
}
