//! The service `Kv`: single calls, and the entry points of its streams.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use prkdb_proto::v1::{self, kv_server::Kv};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    context::{Caller, Context},
    convert::{self, ReplyShape, Routed, write_reply},
    exchange, expire,
    produce::{self, Road},
    scan,
};
use crate::{
    node::{
        core::Submission,
        limits::HeldBytes,
        metrics::Method,
        outcome::{Failure, Reply, Written},
        router::Route,
        security::{Action, Resource},
    },
    storage::sequencer::{WriteRequest, check_key},
};

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Most keys of one read.
const KEYS_MAX: usize = 4096;

/// The service.
#[derive(Clone, Debug)]
pub struct KvService {
    context: Context,
    stop: CancellationToken,
}

impl KvService {
    /// Returns the service of a node. Its streams end when `stop` is cancelled.
    pub fn new(context: Context, stop: CancellationToken) -> Self {
        Self { context, stop }
    }

    /// Admits a stream; each of its requests is asked about by itself.
    fn admit_stream(&self) -> Result<(), Failure> {
        self.context.authorise(Action::Observe, Resource::Cluster)?;
        if self.stop.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }
}

/// Why a stream ends that nobody else ended.
pub(super) fn stopping() -> Failure {
    Failure::new(prkdb_types::ErrorCode::Stopping, "the node is stopping")
}

/// Writes and waits. The bytes are held until the write is answered, whether or not anybody waits
/// for it still: a client that gives up does not make room for more.
///
/// Cancel safety: dropped, the write may still be applied.
pub(super) async fn submit(
    context: &Context,
    caller: &Caller,
    held: HeldBytes,
    shard: u32,
    request: WriteRequest,
) -> Result<Written, Failure> {
    let (answer, answered) = oneshot::channel();
    let (flow, bytes) = (caller.flow(), held.bytes());
    let reply: Reply = Box::new(move |result| {
        drop(held);
        // Whoever gave up needs no answer.
        let _gone = answer.send(result);
    });
    let deadline = Some(caller.deadline);
    context.node.submit(shard, Submission { request, from: flow, bytes, deadline, reply });
    match tokio::time::timeout_at(caller.deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Failure::unknown("the node stopped before the write was applied")),
        Err(_) => Err(Failure::unknown("the deadline passed; the write may still be applied")),
    }
}

/// As [`submit`], a put or a delete.
async fn write(
    context: &Context,
    caller: &Caller,
    held: HeldBytes,
    routed: Routed,
) -> Result<v1::WriteReply, Failure> {
    let Routed { shard: to, number, request, wants_previous } = routed;
    let shard = Arc::clone(&context.node.shard(to)?.shard);
    let written = submit(context, caller, held, to, request).await?;
    write_reply(&written, &ReplyShape { shard, number, wants_previous })
}

/// Reads one key.
pub(super) async fn get(
    context: &Context,
    route: &Route,
    key: &[u8],
    consistency: v1::Consistency,
) -> Result<v1::GetReply, Failure> {
    check_key(key, context.node.config().max_key)?;
    let place = route.of(key)?;
    let handle = context.node.shard(place.shard)?;
    if consistency != v1::Consistency::Stale {
        handle.read_barrier().await?;
    }
    let revision = handle.shard.revision();
    let found =
        handle.shard.get(route.collection.id, key).map_err(|error| Failure::from(&error))?;
    let log_time_ms = handle.shard.log_time_ms();
    let found = found.map(|found| convert::value(found, place.number, log_time_ms));
    Ok(v1::GetReply { found, revision })
}

/// Returns the route of a collection whose keys can be read.
pub(super) fn read_route(context: &Context, collection: &str) -> Result<Arc<Route>, Failure> {
    let route = context.route(Action::Read, collection)?;
    if route.is_keyed() {
        return Ok(route);
    }
    let message = format!("collection '{collection}' has no key index");
    Err(Failure::new(prkdb_types::ErrorCode::InvalidArgument, message))
}

/// Returns a consistency by its number.
pub(super) fn consistency(number: i32) -> Result<v1::Consistency, Failure> {
    v1::Consistency::try_from(number).map_err(|_| {
        let message = format!("consistency {number} is not known");
        Failure::new(prkdb_types::ErrorCode::InvalidArgument, message)
    })
}

/// Reads several keys, all of one collection.
pub(super) async fn multi_get(
    context: &Context,
    route: &Route,
    request: &v1::MultiGetRequest,
) -> Result<v1::MultiGetReply, Failure> {
    let consistency = consistency(request.consistency)?;
    if request.keys.len() > KEYS_MAX {
        let message = format!("{} keys, limit {KEYS_MAX} (multi-get-keys)", request.keys.len());
        return Err(Failure::new(prkdb_types::ErrorCode::MessageTooLarge, message));
    }
    let mut replies = Vec::with_capacity(request.keys.len());
    let mut bytes = 0;
    for key in &request.keys {
        let reply = get(context, route, key, consistency).await?;
        bytes += reply.found.as_ref().map_or(0, |found| found.value.len());
        // One alone is as a get: it may be older than the limit.
        if bytes > context.node.config().max_message && request.keys.len() > 1 {
            let limit = context.node.config().max_message;
            let message = format!("the values are more than {limit} bytes (max-message)");
            return Err(Failure::new(prkdb_types::ErrorCode::MessageTooLarge, message));
        }
        replies.push(reply);
    }
    Ok(v1::MultiGetReply { replies })
}

/// Returns the routed write of a put.
pub(super) fn route_put(context: &Context, put: v1::PutRequest) -> Result<Routed, Failure> {
    let route = context.route(Action::Write, &put.collection)?;
    convert::put(&context.node, &route, put)
}

/// Returns the routed write of a delete.
pub(super) fn route_delete(
    context: &Context,
    delete: &v1::DeleteRequest,
) -> Result<Routed, Failure> {
    let route = context.route(Action::Write, &delete.collection)?;
    convert::delete(&context.node, &route, delete)
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let put = async {
            let caller = Caller::of(&request);
            let put = request.into_inner();
            let bytes = put.encoded_len();
            let routed = route_put(&self.context, put)?;
            caller.check_deadline()?;
            let held = self.context.hold(&caller, bytes)?;
            write(&self.context, &caller, held, routed).await
        };
        self.context.answer(Method::Put, put).await
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetReply>, Status> {
        let read = async {
            let caller = Caller::of(&request);
            let request = request.into_inner();
            let route = read_route(&self.context, &request.collection)?;
            caller.check_deadline()?;
            let consistency = consistency(request.consistency)?;
            get(&self.context, &route, &request.key, consistency).await
        };
        self.context.answer_read(Method::Get, read).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let delete = async {
            let caller = Caller::of(&request);
            let delete = request.into_inner();
            let bytes = delete.encoded_len();
            let routed = route_delete(&self.context, &delete)?;
            caller.check_deadline()?;
            let held = self.context.hold(&caller, bytes)?;
            write(&self.context, &caller, held, routed).await
        };
        self.context.answer(Method::Delete, delete).await
    }

    async fn expire(
        &self,
        request: Request<v1::ExpireRequest>,
    ) -> Result<Response<v1::ExpireReply>, Status> {
        let expired = async {
            let caller = Caller::of(&request);
            let request = request.into_inner();
            let _held = self.context.hold(&caller, request.encoded_len())?;
            expire::serve(&self.context, &caller, request).await
        };
        self.context.answer(Method::Expire, expired).await
    }

    async fn multi_get(
        &self,
        request: Request<v1::MultiGetRequest>,
    ) -> Result<Response<v1::MultiGetReply>, Status> {
        let read = async {
            let caller = Caller::of(&request);
            let request = request.into_inner();
            let bytes = request.encoded_len();
            let route = read_route(&self.context, &request.collection)?;
            caller.check_deadline()?;
            let _held = self.context.hold(&caller, bytes)?;
            multi_get(&self.context, &route, &request).await
        };
        self.context.answer_read(Method::MultiGet, read).await
    }

    type ExchangeStream = Replies<v1::ExchangeReply>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let opened = async {
            self.admit_stream()?;
            let (caller, stop) = (Caller::of(&request), self.stop.clone());
            Ok(exchange::serve(self.context.clone(), caller, request.into_inner(), stop))
        };
        self.context.answer(Method::Exchange, opened).await
    }

    type BatchPutStream = Replies<v1::ProduceReply>;

    async fn batch_put(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::BatchPutStream>, Status> {
        let opened = async {
            self.admit_stream()?;
            let (caller, stop) = (Caller::of(&request), self.stop.clone());
            Ok(produce::serve(
                Road::BatchPut,
                self.context.clone(),
                caller,
                request.into_inner(),
                stop,
            ))
        };
        // Batches are counted, each by itself; so is a stream that is not opened.
        match opened.await {
            Ok(stream) => Ok(Response::new(stream)),
            Err(failure) => self.context.answer(Method::BatchPut, async { Err(failure) }).await,
        }
    }

    type ScanStream = Replies<v1::ScanReply>;

    async fn scan(
        &self,
        request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let opened = async {
            let caller = Caller::of(&request);
            let stop = self.stop.clone();
            let stream = scan::serve(&self.context, request.into_inner(), stop).await?;
            caller.check_deadline()?;
            Ok(stream)
        };
        self.context.answer_read(Method::Scan, opened).await
    }
}
