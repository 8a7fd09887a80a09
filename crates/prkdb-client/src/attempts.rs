//! How often, how soon and where an operation is tried again, and what its last failure means.
//!
//! Owns the deadline, the retries and the follows of one operation, and remembers whether an earlier
//! attempt may have been applied: from then on only a decision of the server about this very write ends
//! the doubt. Sends nothing itself.

use std::{sync::Arc, time::Duration};

use prkdb_types::{ErrorCode, ErrorKind, Retry};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use crate::{
    detail,
    error::{Attempt, ClientError, Outcome, Refusal},
};

/// How often an answer that names another leader is followed.
const FOLLOWS_MAX: u32 = 3;
/// The first pause between attempts; each later one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a transaction that conflicts is run.
const RUNS_MAX: u32 = 64;
/// The first pause between two of them.
const RUN_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest.
const RUN_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The pauses between the runs of a transaction that conflicts.
#[derive(Debug)]
pub(crate) struct Pauses {
    left: u32,
    pause: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { left: RUNS_MAX - 1, pause: RUN_PAUSE_MIN }
    }
}

impl Pauses {
    /// Waits before the next run; returns the conflict where there is none.
    pub(crate) async fn rest(&mut self, conflict: ClientError) -> Result<(), ClientError> {
        if self.left == 0 {
            return Err(conflict);
        }
        self.left -= 1;
        sleep_until(Instant::now() + jittered(self.pause)).await;
        self.pause = (self.pause * 2).min(RUN_PAUSE_MAX);
        Ok(())
    }
}

/// What an operation does to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Reads, or can be repeated without a trace.
    None,
    /// Writes, and sent again changes nothing more: under a producer and sequence, or by its nature.
    Repeatable,
    /// Changes something and nothing tells a repeat from a second change.
    Once,
}

/// One attempt that did not end with the answer asked for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A server said no.
    Refused(Box<Refusal>),
    /// The connection broke after the request was handed to it.
    Broken { address: String, status: Arc<Status> },
    /// The connection broke before that.
    Unsent { address: String, status: Arc<Status> },
    /// There was no connection.
    Unreachable(Vec<Attempt>),
    /// The deadline passed; `sent` tells whether the request was under way.
    Expired { sent: bool },
    /// Something that trying again cannot mend.
    Final(ClientError),
}

impl Fault {
    /// Sorts the status of a call: a server's decision, or a connection that broke.
    pub(crate) fn of_status(address: &str, status: Status) -> Self {
        if detail::is_transport(&status) {
            Self::Broken { address: address.to_owned(), status: Arc::new(status) }
        } else {
            Self::Refused(Box::new(detail::of_status(&status)))
        }
    }

    /// Returns the code of a refusal.
    pub(crate) fn refused_with(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

/// Where to try next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Where the client would send a new operation.
    Again,
    /// At the leader that was named.
    Follow(String),
}

/// The attempts of one operation.
#[derive(Debug)]
pub(crate) struct Attempts {
    operation: &'static str,
    effect: Effect,
    /// For the message: how long the whole may take.
    timeout: Duration,
    deadline: Option<Instant>,
    retries_left: u32,
    follows: u32,
    pause: Duration,
    /// An attempt was sent whose outcome is not known.
    in_doubt: bool,
}

impl Attempts {
    pub(crate) fn new(
        operation: &'static str,
        effect: Effect,
        deadline: Option<Instant>,
        retries: u32,
    ) -> Self {
        let timeout = deadline.map_or(Duration::ZERO, |at| at.duration_since(Instant::now()));
        // Told in whole milliseconds: the few microseconds since the caller set it are no news.
        let millis = timeout.as_micros().div_ceil(1_000);
        let timeout = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        Self {
            operation,
            effect,
            timeout,
            deadline,
            retries_left: retries,
            follows: 0,
            pause: PAUSE_MIN,
            in_doubt: false,
        }
    }

    /// Returns whether an attempt may have been applied without an answer.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Gives what is tried next its own time.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Returns how long is left; `None` = no limit.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| at.duration_since(Instant::now()))
    }

    /// Makes the request of a call that ends with the deadline on the server too.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(remaining) = self.remaining() {
            request.set_timeout(remaining);
        }
        request
    }

    /// Makes the error of a write about which nothing more can be learnt.
    pub(crate) fn unknown(&self, reason: String) -> ClientError {
        ClientError::UnknownOutcome { operation: self.operation, reason }
    }

    /// Waits for `work` until the deadline. `sent` tells whether the request is under way meanwhile.
    pub(crate) async fn within<T>(
        &self,
        sent: bool,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match self.deadline {
            None => work.await,
            Some(at) => timeout_at(at, work).await.unwrap_or(Err(Fault::Expired { sent })),
        }
    }

    /// Decides what follows on a fault, and waits before another attempt.
    pub(crate) async fn next(&mut self, fault: Fault) -> Result<Next, ClientError> {
        let last = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Expired { sent } => {
                self.in_doubt |= sent && self.effect != Effect::None;
                return Err(self.expired());
            }
            Fault::Refused(refusal) => {
                self.note(&refusal);
                if refusal.code == ErrorCode::NotLeader && !refusal.leader_address.is_empty() {
                    return self.follow(*refusal);
                }
                let again = refusal.code.retry() == Retry::Automatic;
                let error = self.refused(*refusal);
                if !again {
                    return Err(error);
                }
                error
            }
            Fault::Broken { address, status } => {
                self.in_doubt |= self.effect != Effect::None;
                self.broken(address, status)
            }
            Fault::Unsent { address, status } => self.broken(address, status),
            Fault::Unreachable(attempts) => self.unreachable(attempts),
        };
        let settled = self.effect != Effect::Once || !self.in_doubt;
        if self.retries_left == 0 || !settled {
            return Err(last);
        }
        self.retries_left -= 1;
        let (operation, retries_left) = (self.operation, self.retries_left);
        tracing::debug!(operation, retries_left, reason = %last, "operation is tried again");
        self.rest().await?;
        Ok(Next::Again)
    }

    /// Waits a little longer each time, and never past the deadline.
    async fn rest(&mut self) -> Result<(), ClientError> {
        let wake = Instant::now() + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        match self.deadline {
            Some(at) if at <= wake => {
                sleep_until(at).await;
                Err(self.expired())
            }
            _ => {
                sleep_until(wake).await;
                Ok(())
            }
        }
    }

    fn follow(&mut self, refusal: Refusal) -> Result<Next, ClientError> {
        if self.follows == FOLLOWS_MAX {
            return Err(self.refused(refusal));
        }
        self.follows += 1;
        Ok(Next::Follow(refusal.leader_address))
    }

    /// Learns from a refusal whether the write it is about may be applied.
    fn note(&mut self, refusal: &Refusal) {
        if self.effect == Effect::None {
            return;
        }
        match outcome_of(refusal) {
            Outcome::Unknown => self.in_doubt = true,
            Outcome::Applied => self.in_doubt = false,
            // The server looks for an earlier attempt before it judges the request, so its judgement is
            // about both; that it could not take the request at all says nothing about an earlier one.
            Outcome::NotApplied if is_judgement(refusal.code) => self.in_doubt = false,
            Outcome::NotApplied => {}
        }
    }

    fn refused(&self, mut refusal: Refusal) -> ClientError {
        if self.effect == Effect::None {
            return ClientError::Refused(Box::new(refusal));
        }
        let outcome = outcome_of(&refusal);
        if self.in_doubt && outcome == Outcome::NotApplied {
            return self.unknown(refusal.message);
        }
        refusal.outcome = Some(outcome);
        ClientError::Refused(Box::new(refusal))
    }

    fn broken(&self, address: String, source: Arc<Status>) -> ClientError {
        if self.in_doubt {
            return self
                .unknown(format!("the connection to {address} broke: {}", source.message()));
        }
        ClientError::Broken { operation: self.operation, address, source }
    }

    fn unreachable(&self, attempts: Vec<Attempt>) -> ClientError {
        let error = ClientError::Unreachable { attempts };
        if self.in_doubt {
            return self.unknown(error.to_string());
        }
        error
    }

    fn expired(&self) -> ClientError {
        if self.in_doubt {
            return self.unknown(format!("no answer within {:?}", self.timeout));
        }
        ClientError::Deadline { operation: self.operation, timeout: self.timeout }
    }
}

/// Returns what a refusal says about its write: its own word, else what its kind implies.
pub(crate) fn outcome_of(refusal: &Refusal) -> Outcome {
    if let Some(outcome) = refusal.outcome {
        return outcome;
    }
    match refusal.code.kind() {
        _ if refusal.code == ErrorCode::UnknownOutcome => Outcome::Unknown,
        ErrorKind::Internal | ErrorKind::Corrupt => Outcome::Unknown,
        ErrorKind::Retry | ErrorKind::Unavailable if !refusal.detailed => Outcome::Unknown,
        _ => Outcome::NotApplied,
    }
}

/// Tells a judgement on the request from a server that could not take it, or has forgotten the producer and
/// with it an earlier attempt.
pub(crate) fn is_judgement(code: ErrorCode) -> bool {
    code != ErrorCode::UnknownProducer
        && matches!(code.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict)
}

/// Shortens a pause by up to a half, so that callers that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    // Without random bytes the pause keeps its full length, which is correct and only less even.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    let half = pause / 2;
    let part = u64::from(random >> 16);
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(nanos / 65_535 * part)
}
