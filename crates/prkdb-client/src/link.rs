//! One connection to one server.
//!
//! Owns the transport's settings, the greeting that shows that a PrkDB server answers, and the exchange
//! stream, which is opened with the first single operation. A link that broke stays broken: the pool makes
//! another.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prkdb_proto::v1::{
    MetadataReply, MetadataRequest, admin_client::AdminClient,
    collections_client::CollectionsClient, exchange_reply, exchange_request,
    groups_client::GroupsClient, kv_client::KvClient, stream_client::StreamClient,
    txn_client::TxnClient,
};
use prkdb_types::ErrorCode;
use tokio::{sync::OnceCell, time::timeout};
use tonic::{Code, Status, transport::Channel};

use crate::{
    address::Endpoint,
    attempts::{Attempts, Fault},
    detail,
    error::{Attempt, ClientError},
    exchange::{Exchange, Ticket},
};

/// Both HTTP/2 windows: enough for a gigabyte per second at 16 ms.
const WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame taken; small frames cost a third of the throughput of large batches.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// The largest message taken from a server: above what any server of this version sends.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The largest message sent where the server did not name its limit.
const MESSAGE_BYTES_DEFAULT: u64 = 8 << 20;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that answered the greeting.
#[derive(Debug)]
pub(crate) struct Link {
    address: String,
    channel: Channel,
    exchange: OnceCell<Exchange>,
    broken: AtomicBool,
    /// What the server said of itself; `None` where it answered that it cannot say yet.
    greeting: Option<MetadataReply>,
}

impl Link {
    /// Connects and waits until the server has answered once, at most `limit` for both.
    pub(crate) async fn open(endpoint: &Endpoint, limit: Duration) -> Result<Arc<Self>, Attempt> {
        let address = endpoint.to_string();
        match timeout(limit, Self::greet(endpoint, limit)).await {
            Ok(Ok(link)) => Ok(Arc::new(link)),
            Ok(Err(reason)) => Err(Attempt { address, reason }),
            Err(_elapsed) => {
                Err(Attempt { address, reason: format!("no answer within {limit:?}") })
            }
        }
    }

    async fn greet(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let channel = Channel::from_shared(endpoint.uri())
            .map_err(|source| source.to_string())?
            .connect_timeout(limit)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|error| root_cause(&error))?;
        let mut admin = AdminClient::new(channel.clone());
        let greeting = match admin.metadata(MetadataRequest { collections: Vec::new() }).await {
            Ok(reply) => Some(reply.into_inner()),
            Err(status) if detail::is_transport(&status) => return Err(status_cause(&status)),
            // A server that cannot say where things are is reached all the same: it says more to the
            // operation itself.
            Err(_) => None,
        };
        Ok(Self {
            address: endpoint.to_string(),
            channel,
            exchange: OnceCell::new(),
            broken: AtomicBool::new(false),
            greeting,
        })
    }

    /// Returns the address it was opened with, as `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns what the server said of itself.
    pub(crate) fn greeting(&self) -> Option<&MetadataReply> {
        self.greeting.as_ref()
    }

    /// Returns how many bytes a message to this server may have.
    pub(crate) fn message_bytes_max(&self) -> u64 {
        let limits = self.greeting.as_ref().and_then(|greeting| greeting.limits.as_ref());
        limits
            .map(|limits| limits.max_message_bytes)
            .filter(|bytes| *bytes > 0)
            .unwrap_or(MESSAGE_BYTES_DEFAULT)
    }

    /// Returns whether new operations may use it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
            && self.exchange.get().is_none_or(|exchange| exchange.ended().is_none())
    }

    /// Says that the connection broke.
    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        // A channel's clone shares the connection.
        KvClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn stream(&self) -> StreamClient<Channel> {
        StreamClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn txn(&self) -> TxnClient<Channel> {
        TxnClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn collections(&self) -> CollectionsClient<Channel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Hands an operation to the exchange stream. A fault means that it was not sent.
    pub(crate) async fn submit(
        &self,
        operation: exchange_request::Operation,
        attempts: &Attempts,
    ) -> Result<Ticket, Fault> {
        attempts
            .within(false, async {
                let exchange = self
                    .exchange
                    .get_or_try_init(|| Exchange::open(self.kv()))
                    .await
                    .map_err(|status| self.unsent(status))?;
                let submitted = exchange.submit(operation, attempts.remaining()).await;
                submitted.map_err(|status| Fault::Unsent { address: self.address.clone(), status })
            })
            .await
    }

    /// Waits for the answer to an operation.
    pub(crate) async fn answer(
        &self,
        ticket: Ticket,
        attempts: &Attempts,
    ) -> Result<exchange_reply::Result, Fault> {
        attempts
            .within(true, async {
                match ticket.answer().await {
                    Ok(exchange_reply::Result::Error(error)) => {
                        let refusal = detail::refusal(error, None);
                        if refusal.code == ErrorCode::Stopping {
                            // The next attempt looks for another server.
                            self.set_broken();
                        }
                        Err(Fault::Refused(Box::new(refusal)))
                    }
                    Ok(result) => Ok(result),
                    Err(status) => Err(Fault::Broken { address: self.address.clone(), status }),
                }
            })
            .await
    }

    /// Sorts the status of a call and remembers a break.
    pub(crate) fn fault(&self, status: Status) -> Fault {
        // A call that the deadline cancelled says nothing against the connection.
        if detail::is_transport(&status) && status.code() != Code::Cancelled {
            self.set_broken();
        }
        Fault::of_status(&self.address, status)
    }

    /// Makes the error of an answer that does not fit the request.
    pub(crate) fn wrong_answer(&self, expected: &str) -> Fault {
        Fault::Final(ClientError::Protocol {
            address: self.address.clone(),
            reason: format!("the answer is not {expected}"),
        })
    }

    fn unsent(&self, status: Status) -> Fault {
        match self.fault(status) {
            Fault::Broken { address, status } => Fault::Unsent { address, status },
            other => other,
        }
    }
}

/// Returns the innermost reason, which names what the system said.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn status_cause(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}
