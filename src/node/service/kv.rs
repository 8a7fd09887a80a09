//! The service `Kv`: single calls, and the entry points of its streams.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use prkdb_proto::v1::{self, kv_server::Kv};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{
    batch_put,
    context::{Context, deadline},
    convert::{self, ReplyShape, Routed, write_reply},
    exchange, scan,
};
use crate::{
    node::{
        metrics::Method,
        outcome::Failure,
        router::Route,
        security::{Action, Resource},
    },
    storage::sequencer::check_key,
};

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Most keys of one read.
const KEYS_MAX: usize = 4096;

/// The service.
#[derive(Clone, Debug)]
pub struct KvService {
    context: Context,
}

impl KvService {
    /// Returns the service of a node.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

/// Writes and waits.
async fn write(
    context: &Context,
    routed: Routed,
    deadline: Option<Instant>,
) -> Result<v1::WriteReply, Failure> {
    let shard = Arc::clone(&context.node.shard(routed.shard)?.shard);
    let shape = ReplyShape { shard, number: routed.number, wants_previous: routed.wants_previous };
    let written = context.node.write(routed.shard, routed.request, deadline).await?;
    write_reply(&written, &shape)
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
    let found = found.map(|found| convert::value(found, place.number));
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
    request: v1::MultiGetRequest,
) -> Result<v1::MultiGetReply, Failure> {
    let route = read_route(context, &request.collection)?;
    let consistency = consistency(request.consistency)?;
    if request.keys.len() > KEYS_MAX {
        let message = format!("{} keys, limit {KEYS_MAX} (multi-get-keys)", request.keys.len());
        return Err(Failure::new(prkdb_types::ErrorCode::MessageTooLarge, message));
    }
    let mut replies = Vec::with_capacity(request.keys.len());
    let mut bytes = 0;
    for key in &request.keys {
        let reply = get(context, &route, key, consistency).await?;
        bytes += reply.found.as_ref().map_or(0, |found| found.value.len());
        if bytes > context.node.config().max_message {
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
    delete: v1::DeleteRequest,
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
        let deadline = deadline(&request);
        let put = async {
            let routed = route_put(&self.context, request.into_inner())?;
            write(&self.context, routed, deadline).await
        };
        self.context.answer(Method::Put, put).await
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetReply>, Status> {
        let request = request.into_inner();
        let read = async {
            let route = read_route(&self.context, &request.collection)?;
            let consistency = consistency(request.consistency)?;
            get(&self.context, &route, &request.key, consistency).await
        };
        self.context.answer(Method::Get, read).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        let deadline = deadline(&request);
        let delete = async {
            let routed = route_delete(&self.context, request.into_inner())?;
            write(&self.context, routed, deadline).await
        };
        self.context.answer(Method::Delete, delete).await
    }

    async fn multi_get(
        &self,
        request: Request<v1::MultiGetRequest>,
    ) -> Result<Response<v1::MultiGetReply>, Status> {
        let read = multi_get(&self.context, request.into_inner());
        self.context.answer(Method::MultiGet, read).await
    }

    type ExchangeStream = Replies<v1::ExchangeReply>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let open = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            Ok(exchange::serve(self.context.clone(), request.into_inner()))
        };
        self.context.answer(Method::Exchange, open).await
    }

    type BatchPutStream = Replies<v1::BatchPutReply>;

    async fn batch_put(
        &self,
        request: Request<Streaming<v1::BatchPutRequest>>,
    ) -> Result<Response<Self::BatchPutStream>, Status> {
        let open = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            Ok(batch_put::serve(self.context.clone(), request.into_inner()))
        };
        self.context.answer(Method::BatchPut, open).await
    }

    type ScanStream = Replies<v1::ScanReply>;

    async fn scan(
        &self,
        request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let scan = scan::serve(&self.context, request.into_inner());
        self.context.answer(Method::Scan, scan).await
    }
}
