//! What every handler works with: the node, the policy, and what both say of a request.
//!
//! The order of admission: may the caller do it, is the node ready, is there room. Sizes are checked
//! where a request is decoded, the rest by the sequencer.

use std::{sync::Arc, time::Duration};

use prkdb_types::ErrorCode;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::to_status;
use crate::node::{
    Node,
    core::Phase,
    limits::{Connection, HeldBytes, REQUEST_TIME_MAX},
    metrics::Method,
    outcome::{Failure, Outcome},
    proposer::queue::Flow,
    router::Route,
    security::{Action, Policy, Principal, Resource},
};

/// The transport drops a call at its deadline without a word of ours. To be able to say whether a
/// write was begun, we end it this much earlier, or an eighth of its time if that is less.
const MARGIN_MAX: Duration = Duration::from_millis(5);

/// The node and the policy. A clone shares them.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    policy: Arc<dyn Policy>,
}

/// Who a request is from, and how long they wait.
#[derive(Clone, Debug)]
pub struct Caller {
    connection: Option<Connection>,
    /// When the caller of a single request stops waiting.
    pub deadline: Instant,
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

    /// Takes room for a request of a size, until the answer is dropped.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`], counted under the name of the limit.
    pub fn hold(&self, caller: &Caller, bytes: usize) -> Result<HeldBytes, Failure> {
        let held = self.node.limits().hold(caller.connection.as_ref(), bytes as u64);
        held.map_err(|refused| {
            self.node.metrics().limit(refused.limit);
            Failure::from(refused)
        })
    }

    /// Returns the time from which [`Context::count`] counts.
    pub fn now(&self) -> Duration {
        self.node.clock().monotonic()
    }

    /// Counts an answer; `None` is success.
    pub fn count(&self, method: Method, began: Duration, failure: Option<&Failure>) {
        let took = self.now().saturating_sub(began);
        self.node.metrics().rpc(method, failure.map(|failure| failure.code), took);
    }

    /// Runs a call to its end and counts it.
    ///
    /// # Errors
    /// The failure as a status.
    pub async fn answer<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        let began = self.now();
        let result = call.await;
        self.count(method, began, result.as_ref().err());
        result.map(Response::new).map_err(|failure| to_status(&failure))
    }

    /// As [`Context::answer`], for a call that writes nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn answer_read<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        self.answer(method, async { call.await.map_err(of_a_read) }).await
    }
}

/// Takes from a failure what it says about a write.
pub(super) fn of_a_read(failure: Failure) -> Failure {
    Failure { outcome: Outcome::None, ..failure }
}

impl Caller {
    /// Returns the caller of a request.
    pub fn of<T>(request: &Request<T>) -> Self {
        let header = request.metadata().get("grpc-timeout");
        let timeout = header.and_then(|value| parse_timeout(value.to_str().ok()?));
        Self {
            connection: request.extensions().get::<Connection>().cloned(),
            deadline: deadline_after(
                timeout.map(|limit| limit.saturating_sub((limit / 8).min(MARGIN_MAX))),
            ),
        }
    }

    /// Returns what its single calls come from.
    pub fn flow(&self) -> Flow {
        self.connection.as_ref().map_or(Flow::Node, Connection::flow)
    }

    /// Refuses what nobody waits for any more.
    ///
    /// # Errors
    /// [`ErrorCode::Deadline`].
    pub fn check_deadline(&self) -> Result<(), Failure> {
        check_deadline(self.deadline)
    }
}

/// Returns when somebody who waits so long stops waiting: nobody waits longer than the node allows.
pub(super) fn deadline_after(timeout: Option<Duration>) -> Instant {
    Instant::now() + timeout.unwrap_or(REQUEST_TIME_MAX).min(REQUEST_TIME_MAX)
}

/// Refuses what nobody waits for any more.
pub(super) fn check_deadline(deadline: Instant) -> Result<(), Failure> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Deadline, "the deadline passed before the request was begun"))
}

/// Reads a timeout of gRPC over HTTP/2: at most eight digits and a unit.
fn parse_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nonsense_is_none() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("1n", Duration::from_nanos(1)),
        ] {
            assert_eq!(parse_timeout(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "-1S", "+1S", "1x", "123456789S", "1 S", "1\u{b5}"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_is_begun_after_its_deadline_and_no_deadline_is_beyond_the_limit() {
        check_deadline(deadline_after(Some(Duration::from_secs(9)))).unwrap();
        let passed = check_deadline(deadline_after(Some(Duration::ZERO))).unwrap_err();
        assert_eq!((passed.code, passed.outcome), (ErrorCode::Deadline, Outcome::NotApplied));
        let latest = Instant::now() + REQUEST_TIME_MAX + Duration::from_secs(1);
        assert!(deadline_after(Some(Duration::from_hours(9))) < latest);
    }
}
