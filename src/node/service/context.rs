//! What every handler works with: the node, the policy, and what both say of a request.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::to_status;
use crate::node::{
    Node,
    core::Phase,
    metrics::Method,
    outcome::Failure,
    router::Route,
    security::{Action, Policy, Principal, Resource},
};
use prkdb_types::ErrorCode;

/// The node and the policy. A clone shares them.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    policy: Arc<dyn Policy>,
}

impl Context {
    /// Returns the context of a node's services.
    pub fn new(node: Arc<Node>, policy: Arc<dyn Policy>) -> Self {
        Self { node, policy }
    }

    /// Refuses what the policy does not allow, and everything while the node reads its log.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`], [`ErrorCode::Replaying`].
    pub fn authorise(&self, action: Action, resource: Resource<'_>) -> Result<(), Failure> {
        self.policy.authorise(&Principal::Anonymous, action, resource)?;
        if self.node.phase() == Phase::Replaying {
            return Err(Failure::new(ErrorCode::Replaying, "the node is reading its log"));
        }
        Ok(())
    }

    /// As [`Context::authorise`] on a collection, and returns its route.
    ///
    /// # Errors
    /// As there, and those of the route.
    pub fn route(&self, action: Action, collection: &str) -> Result<Arc<Route>, Failure> {
        self.authorise(action, Resource::Collection(collection))?;
        self.node.route(collection)
    }

    /// Answers a call, and counts the answer.
    ///
    /// # Errors
    /// The failure of the call, as a status.
    pub async fn answer<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        let started = self.node.clock().monotonic();
        let result = call.await;
        self.count(method, started, result.as_ref().err());
        result.map(Response::new).map_err(|failure| to_status(&failure))
    }

    /// Counts an answer to a request that began at `started`.
    pub fn count(&self, method: Method, started: Duration, failure: Option<&Failure>) {
        let took = self.node.clock().monotonic().saturating_sub(started);
        self.node.metrics().rpc(method, failure.map(|failure| failure.code), took);
    }
}

/// Returns when the caller stops waiting, by the header of the call.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    let header = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    // gRPC over HTTP/2, "Timeout": at most eight digits and a unit.
    let timeout = match unit {
        "H" => Duration::from_secs(count.checked_mul(3600)?),
        "M" => Duration::from_secs(count.checked_mul(60)?),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}
