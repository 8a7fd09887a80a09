//! Many single operations over one stream, answered in any order.
//!
//! Owns the table of who waits for which request. The transport drains the queue of requests and packs
//! what is ready into one write; one task reads the replies. When the stream ends everyone who waits
//! learns why, and each decides for itself whether to send again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prkdb_proto::v1::{
    ExchangeReply, ExchangeRequest, exchange_reply, exchange_request, kv_client::KvClient,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming, transport::Channel};

use crate::detail;

/// How many requests wait for the transport before callers wait for them.
const QUEUE_MAX: usize = 1024;

/// What comes back: the result of the reply, or why the stream ended.
type Answer = Result<exchange_reply::Result, Arc<Status>>;

/// An open stream.
#[derive(Debug)]
pub(crate) struct Exchange {
    requests: mpsc::Sender<ExchangeRequest>,
    waiting: Arc<Waiting>,
    /// Stops with the stream or with its owner, whichever comes first.
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ended: Option<Arc<Status>>,
}

impl Waiting {
    /// Never held across an await and never while anything is called that could panic.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, status: Status) {
        let status = Arc::new(status);
        let answers = {
            let mut table = self.table();
            table.ended.get_or_insert_with(|| Arc::clone(&status));
            std::mem::take(&mut table.answers)
        };
        for answer in answers.into_values() {
            // Whoever stopped waiting needs no answer.
            let _gone = answer.send(Err(Arc::clone(&status)));
        }
    }
}

/// A request that was handed to the transport. Dropping it stops waiting for the answer.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    waiting: Arc<Waiting>,
    answer: oneshot::Receiver<Answer>,
}

impl Exchange {
    /// Opens the stream.
    pub(crate) async fn open(mut client: KvClient<Channel>) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let replies = client.exchange(ReceiverStream::new(queue)).await?.into_inner();
        let waiting = Arc::new(Waiting::default());
        let reader = tokio::spawn(read(replies, Arc::clone(&waiting)));
        Ok(Self { requests, waiting, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Returns why the stream ended, if it did.
    pub(crate) fn ended(&self) -> Option<Arc<Status>> {
        self.waiting.table().ended.clone()
    }

    /// Hands a request to the transport. An error means that it was not sent.
    ///
    /// Cancel safety: dropping the future sends nothing.
    pub(crate) async fn submit(
        &self,
        operation: exchange_request::Operation,
        timeout: Option<Duration>,
    ) -> Result<Ticket, Arc<Status>> {
        let place = self.requests.reserve().await;
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut table = self.waiting.table();
            if let Some(status) = &table.ended {
                return Err(Arc::clone(status));
            }
            let id = table.next_id;
            table.next_id += 1;
            table.answers.insert(id, sender);
            id
        };
        let ticket = Ticket { id, waiting: Arc::clone(&self.waiting), answer };
        let Ok(place) = place else {
            return Err(Arc::new(Status::unavailable("the stream is closed")));
        };
        place.send(ExchangeRequest {
            id,
            timeout_ms: timeout.map_or(0, milliseconds),
            operation: Some(operation),
        });
        Ok(ticket)
    }
}

impl Ticket {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            // The reader was stopped with the stream's owner.
            Err(_) => Err(Arc::new(Status::cancelled("the client was closed"))),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.table().answers.remove(&self.id);
    }
}

/// Gives every reply to whoever waits for it, until the stream ends.
async fn read(mut replies: Streaming<ExchangeReply>, waiting: Arc<Waiting>) {
    let status = loop {
        match replies.message().await {
            Ok(Some(reply)) => deliver(reply, &waiting),
            Ok(None) => break Status::unavailable("the server ended the stream"),
            Err(status) => break status,
        }
    };
    tracing::debug!(
        code = ?status.code(),
        detail = detail::in_status(&status).is_some(),
        "exchange stream ended"
    );
    waiting.end(status);
}

fn deliver(reply: ExchangeReply, waiting: &Waiting) {
    let answer = waiting.table().answers.remove(&reply.id);
    // No one waits any more where the deadline passed or the caller went away.
    if let (Some(answer), Some(result)) = (answer, reply.result) {
        let _gone = answer.send(Ok(result));
    }
}

/// Rounds up, so that a deadline that is near is not sent as none; 0 means no limit on the wire.
fn milliseconds(timeout: Duration) -> u32 {
    let millis = timeout.as_nanos().div_ceil(1_000_000).max(1);
    u32::try_from(millis).unwrap_or(u32::MAX)
}
