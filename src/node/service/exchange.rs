//! `Kv.Exchange`: single operations over one stream, answered in any order.
//!
//! One task reads the stream. A get is answered there and then; a write's reply goes from the task
//! that applies it straight into the stream. What is under way is bounded: beyond the limit nothing
//! more is read, and HTTP/2 tells the client to wait. When the node stops, the stream ends with that
//! as its reason, after the replies to everything that was read.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use prkdb_proto::v1::{self, exchange_reply, exchange_request};
use prkdb_types::{ErrorCode, limits::STREAM_CREDIT_BYTES};
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{
    context::{Caller, Context, check_deadline, deadline_after, of_a_read},
    convert::{ReplyShape, Routed, write_reply},
    kv::{self, Replies, stopping},
    status::{to_detail, to_status},
};
use crate::node::{
    core::Submission,
    limits::HeldBytes,
    metrics::Method,
    outcome::{Failure, Reply},
    proposer::queue::Flow,
};

/// Operations of one stream under way at once.
const OPERATIONS_MAX: u32 = 1024;
/// One place more, for the reason why the stream ends.
const PLACES: usize = 1025;

/// A reply and what it holds until it leaves the channel: there are as many places as permits, so a
/// reply never finds the channel full.
type Sender = mpsc::Sender<(Result<v1::ExchangeReply, Status>, Option<Permits>)>;

/// A place in the channel, and a share of the bytes that one stream may have in memory.
struct Permits {
    _place: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

/// Serves one stream.
pub(super) fn serve(
    context: Context,
    caller: Caller,
    requests: Streaming<v1::ExchangeRequest>,
    stop: CancellationToken,
) -> Replies<v1::ExchangeReply> {
    let (replies, stream) = mpsc::channel(PLACES);
    let reader = Reader {
        context,
        caller,
        flow: Flow::new(),
        replies,
        places: Arc::new(Semaphore::new(PLACES - 1)),
        bytes: Arc::new(Semaphore::new(STREAM_CREDIT_BYTES)),
    };
    // Ends with its stream: when the client goes, or the replies have nobody to go to.
    let task = AbortOnDropHandle::new(tokio::spawn(reader.run(requests, stop)));
    Box::pin(ReceiverStream::new(stream).map(move |(reply, _permits)| {
        let _owned = &task;
        reply
    }))
}

/// Reads one stream.
struct Reader {
    context: Context,
    caller: Caller,
    flow: Flow,
    replies: Sender,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Reader {
    async fn run(self, mut requests: Streaming<v1::ExchangeRequest>, stop: CancellationToken) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let request = tokio::select! {
                request = requests.message() => request,
                () = self.replies.closed() => return,
                () = stop.cancelled() => {
                    drop(place);
                    return self.end().await;
                }
            };
            // The client has nothing more to ask, or is gone; replies under way still go out.
            let Ok(Some(request)) = request else { return };
            self.begin(request, place).await;
        }
    }

    /// Says why the stream ends, once every reply has left.
    async fn end(self) {
        if let Ok(_all) = self.places.acquire_many(OPERATIONS_MAX).await {
            // Closed: the client is gone and needs no reason.
            let _sent = self.replies.try_send((Err(to_status(&stopping())), None));
        }
    }

    /// Waits until the stream has room for so many bytes.
    async fn share(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(STREAM_CREDIT_BYTES)).unwrap_or(u32::MAX);
        // Never closed.
        Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()
    }

    async fn begin(&self, request: v1::ExchangeRequest, place: OwnedSemaphorePermit) {
        let size = request.encoded_len();
        let mut responder = Responder {
            id: request.id,
            context: self.context.clone(),
            method: method_of(request.operation.as_ref()),
            began: self.context.now(),
            replies: self.replies.clone(),
            place: Some(place),
            share: self.share(size).await,
        };
        let timeout = u64::from(request.timeout_ms);
        let timeout = (timeout > 0).then(|| Duration::from_millis(timeout));
        let deadline = deadline_after(timeout);
        let context = &self.context;
        let routed = match request.operation {
            Some(exchange_request::Operation::Put(put)) => kv::route_put(context, put),
            Some(exchange_request::Operation::Delete(delete)) => kv::route_delete(context, &delete),
            Some(exchange_request::Operation::Get(get)) => {
                let read = read_one(context, &get).await.map(exchange_reply::Result::Get);
                responder.share = None;
                return self.send_read(responder, read).await;
            }
            Some(exchange_request::Operation::MultiGet(get)) => {
                let read = read_many(context, &get).await.map(exchange_reply::Result::MultiGet);
                responder.share = None;
                return self.send_read(responder, read).await;
            }
            None => Err(Failure::new(ErrorCode::InvalidArgument, "the request has no operation")),
        };
        let prepared = routed.and_then(|routed| {
            check_deadline(deadline)?;
            let held = context.hold(&self.caller, size)?;
            let shard = Arc::clone(&context.node.shard(routed.shard)?.shard);
            Ok((routed, shard, held))
        });
        match prepared {
            Ok((Routed { shard: to, number, request, wants_previous }, shard, held)) => {
                let shape = ReplyShape { shard, number, wants_previous };
                let reply = responder.into_reply(shape, held);
                let deadline = Some(deadline);
                let (flow, bytes) = (self.flow, size as u64);
                let write = Submission { request, from: flow, bytes, deadline, reply };
                context.node.submit(to, write);
            }
            Err(failure) => responder.send(Err(failure)),
        }
    }

    /// Sends what was read, when the client has taken enough of what was read before.
    async fn send_read(
        &self,
        mut responder: Responder,
        read: Result<exchange_reply::Result, Failure>,
    ) {
        if let Ok(result) = &read {
            responder.share = self.share(result.encoded_len()).await;
        }
        responder.send(read.map_err(of_a_read));
    }
}

fn method_of(operation: Option<&exchange_request::Operation>) -> Method {
    match operation {
        Some(exchange_request::Operation::Put(_)) => Method::ExchangePut,
        Some(exchange_request::Operation::Get(_)) => Method::ExchangeGet,
        Some(exchange_request::Operation::Delete(_)) => Method::ExchangeDelete,
        Some(exchange_request::Operation::MultiGet(_)) => Method::ExchangeMultiGet,
        None => Method::Exchange,
    }
}

async fn read_one(context: &Context, get: &v1::GetRequest) -> Result<v1::GetReply, Failure> {
    let route = kv::read_route(context, &get.collection)?;
    let consistency = kv::consistency(get.consistency)?;
    kv::get(context, &route, &get.key, consistency).await
}

async fn read_many(
    context: &Context,
    get: &v1::MultiGetRequest,
) -> Result<v1::MultiGetReply, Failure> {
    let route = kv::read_route(context, &get.collection)?;
    kv::multi_get(context, &route, get).await
}

/// Sends the reply to one operation; dropped unused, it says that nobody knows.
struct Responder {
    id: u64,
    context: Context,
    method: Method,
    began: Duration,
    replies: Sender,
    place: Option<OwnedSemaphorePermit>,
    share: Option<OwnedSemaphorePermit>,
}

impl Responder {
    fn send(mut self, result: Result<exchange_reply::Result, Failure>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<exchange_reply::Result, Failure>) {
        let Some(place) = self.place.take() else { return };
        self.context.count(self.method, self.began, result.as_ref().err());
        let result =
            result.unwrap_or_else(|failure| exchange_reply::Result::Error(to_detail(&failure)));
        let reply = v1::ExchangeReply { id: self.id, result: Some(result) };
        let permits = Permits { _place: place, _share: self.share.take() };
        // Closed: the client is gone.
        let _sent = self.replies.try_send((Ok(reply), Some(permits)));
    }

    fn into_reply(self, shape: ReplyShape, held: HeldBytes) -> Reply {
        let wants_previous = shape.wants_previous;
        let here = Handle::current();
        Box::new(move |written| {
            drop(held);
            let answer = move || {
                let reply = written.and_then(|written| write_reply(&written, &shape));
                self.send(reply.map(exchange_reply::Result::Write));
            };
            if wants_previous {
                // The value before is read from the log: not on the task that applies.
                let _task = here.spawn(async move { answer() });
            } else {
                answer();
            }
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let message = "the node stopped before the write was applied";
        self.send_once(Err(Failure::unknown(message)));
    }
}
