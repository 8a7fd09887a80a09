//! `Kv.Exchange`: single operations over one stream, answered in any order.
//!
//! One task reads the stream. A get is answered there and then; a write's reply goes from the task
//! that applies it straight into the stream. What is under way is bounded: beyond the limit nothing
//! more is read, and HTTP/2 tells the client to wait.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use prkdb_proto::v1::{self, exchange_reply, exchange_request};
use prkdb_types::ErrorCode;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    context::Context,
    convert::{ReplyShape, Routed, write_reply},
    kv::{self, Replies},
    status::to_detail,
};
use crate::node::{
    core::Submission,
    metrics::Method,
    outcome::{Failure, Reply},
};

/// Operations of one stream under way at once.
const OPERATIONS_MAX: usize = 1024;

/// A reply and its permit, which is given back when the reply leaves the channel: there are as many
/// permits as places, so a reply never finds the channel full.
type Sender = mpsc::Sender<(v1::ExchangeReply, OwnedSemaphorePermit)>;

/// Serves one stream.
pub(super) fn serve(
    context: Context,
    requests: Streaming<v1::ExchangeRequest>,
) -> Replies<v1::ExchangeReply> {
    let (replies, stream) = mpsc::channel(OPERATIONS_MAX);
    // Ends with its stream: when the client goes, or the replies have nobody to go to.
    let _reader = tokio::spawn(read(context, requests, replies));
    Box::pin(ReceiverStream::new(stream).map(|(reply, _permit)| Ok(reply)))
}

async fn read(context: Context, mut requests: Streaming<v1::ExchangeRequest>, replies: Sender) {
    let permits = Arc::new(Semaphore::new(OPERATIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let request = tokio::select! {
            request = requests.message() => request,
            () = replies.closed() => return,
        };
        match request {
            Ok(Some(request)) => {
                let responder = Responder {
                    id: request.id,
                    method: method(&request),
                    started: context.node.clock().monotonic(),
                    context: context.clone(),
                    replies: replies.clone(),
                    permit: Some(permit),
                };
                begin(&context, request, responder).await;
            }
            // The client has nothing more to ask, or is gone; replies under way still go out.
            Ok(None) | Err(_) => return,
        }
    }
}

fn method(request: &v1::ExchangeRequest) -> Method {
    match &request.operation {
        Some(exchange_request::Operation::Put(_)) => Method::ExchangePut,
        Some(exchange_request::Operation::Get(_)) => Method::ExchangeGet,
        Some(exchange_request::Operation::Delete(_)) => Method::ExchangeDelete,
        Some(exchange_request::Operation::MultiGet(_)) => Method::ExchangeMultiGet,
        None => Method::Exchange,
    }
}

async fn begin(context: &Context, request: v1::ExchangeRequest, responder: Responder) {
    let timeout = u64::from(request.timeout_ms);
    let deadline = (timeout > 0).then(|| Instant::now() + Duration::from_millis(timeout));
    let routed = match request.operation {
        Some(exchange_request::Operation::Put(put)) => kv::route_put(context, put),
        Some(exchange_request::Operation::Delete(delete)) => kv::route_delete(context, delete),
        Some(exchange_request::Operation::Get(get)) => {
            return responder.send(read_one(context, get).await.map(exchange_reply::Result::Get));
        }
        Some(exchange_request::Operation::MultiGet(get)) => {
            let read = kv::multi_get(context, get).await;
            return responder.send(read.map(exchange_reply::Result::MultiGet));
        }
        None => Err(Failure::new(ErrorCode::InvalidArgument, "the request has no operation")),
    };
    let prepared = routed.and_then(|routed| {
        let shard = Arc::clone(&context.node.shard(routed.shard)?.shard);
        Ok((routed, shard))
    });
    match prepared {
        Ok((Routed { shard: to, number, request, wants_previous }, shard)) => {
            let reply = responder.into_reply(ReplyShape { shard, number, wants_previous });
            context.node.submit(to, Submission { request, deadline, reply });
        }
        Err(failure) => responder.send(Err(failure)),
    }
}

async fn read_one(context: &Context, get: v1::GetRequest) -> Result<v1::GetReply, Failure> {
    let route = kv::read_route(context, &get.collection)?;
    let consistency = kv::consistency(get.consistency)?;
    kv::get(context, &route, &get.key, consistency).await
}

/// Sends the reply to one operation; dropped unused, it says that nobody knows.
struct Responder {
    id: u64,
    method: Method,
    started: Duration,
    context: Context,
    replies: Sender,
    permit: Option<OwnedSemaphorePermit>,
}

impl Responder {
    fn send(mut self, result: Result<exchange_reply::Result, Failure>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<exchange_reply::Result, Failure>) {
        let Some(permit) = self.permit.take() else { return };
        self.context.count(self.method, self.started, result.as_ref().err());
        let result =
            result.unwrap_or_else(|failure| exchange_reply::Result::Error(to_detail(&failure)));
        // Closed: the client is gone.
        let reply = v1::ExchangeReply { id: self.id, result: Some(result) };
        let _sent = self.replies.try_send((reply, permit));
    }

    fn into_reply(self, shape: ReplyShape) -> Reply {
        let wants_previous = shape.wants_previous;
        let here = Handle::current();
        Box::new(move |written| {
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
