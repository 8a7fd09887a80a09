//! Consumer groups. No node coordinates any yet, so there are none to tell of.

use prkdb_proto::v1::{self, groups_server::Groups};
use tonic::{Request, Response, Status};

use crate::node::{
    metrics::Method,
    security::{Action, Resource},
    service::Context,
};

/// The service `Groups`.
#[derive(Clone, Debug)]
pub struct GroupsService {
    context: Context,
}

impl GroupsService {
    /// Returns the service of a node.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsReply>, Status> {
        let listed = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            Ok(v1::ListGroupsReply { groups: Vec::new() })
        };
        self.context.answer_read(Method::ListGroups, listed).await
    }
}
