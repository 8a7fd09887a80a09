//! `Stream.Produce` and `Kv.BatchPut`: opaque batches in, an acknowledgement or a failure for each out.
//!
//! A batch for a collection without key index is checked as a whole and never opened. One for a
//! collection with it is walked once: each key must belong to the partition.
//!
//! Batches are checked and handed on in the order they came. The bytes that are under way are
//! bounded by the credit the client is told of; a client that sends more is not read from. After a
//! failure the rest of the partition's window fails by itself: its sequences leave a gap.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use prkdb_proto::v1::{self, produce_reply, produce_request};
use prkdb_types::{ErrorCode, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{
    context::{Caller, Context},
    convert,
    kv::{Replies, stopping},
    status::{to_detail, to_status},
    stream::check_same,
};
use crate::{
    node::{
        core::Submission,
        limits::HeldBytes,
        metrics::Method,
        outcome::{Failure, Outcome, Reply, Written, WrittenKind},
        proposer::queue::Flow,
        router::Route,
        security::Action,
    },
    storage::sequencer::{CheckedBatch, KeyRules, Keyless, WriteRequest},
};

/// Batches of one stream under way at once.
const BATCHES_MAX: u32 = 1024;
/// Two places more: for the opening, and for an error that ends the stream.
const PLACES: usize = 1026;
/// A batch may be so many times as large when decompressed, if the largest message allows it.
const EXPANSION_MAX: usize = 100;
/// A small batch may be so large when decompressed in any case.
const DECOMPRESSED_BYTES_MIN: usize = 64 << 10;

type Message = Result<v1::ProduceReply, Status>;
type Sender = mpsc::Sender<(Message, Option<Permits>)>;

/// A place in the channel and the batch's share of the credit.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The call a stream came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// `Kv.BatchPut`: every record has a key, and an index that knows it.
    BatchPut,
    /// `Stream.Produce`: a record without a key is an event.
    Produce,
}

impl Road {
    /// Returns the method its batches are counted under.
    pub(super) fn method(self) -> Method {
        match self {
            Self::BatchPut => Method::BatchPut,
            Self::Produce => Method::Produce,
        }
    }
}

/// Serves one stream.
pub(super) fn serve(
    road: Road,
    context: Context,
    caller: Caller,
    requests: Streaming<v1::ProduceRequest>,
    stop: CancellationToken,
) -> Replies<v1::ProduceReply> {
    let (replies, stream) = mpsc::channel(PLACES);
    // Ends with its stream.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(PLACES - 2));
        let reader = Reader { road, context, caller, replies, places };
        if let Err(failure) = reader.run(requests, &stop).await
            && let Ok(_all) = reader.places.acquire_many(BATCHES_MAX).await
        {
            // What was read before is answered. Closed: the client is gone and needs no reason.
            let _sent = reader.replies.try_send((Err(to_status(&failure)), None));
        }
    }));
    Box::pin(ReceiverStream::new(stream).map(move |(message, _permits)| {
        let _owned = &task;
        message
    }))
}

/// Reads one stream.
struct Reader {
    road: Road,
    context: Context,
    caller: Caller,
    replies: Sender,
    places: Arc<Semaphore>,
}

impl Reader {
    async fn run(
        &self,
        mut requests: Streaming<v1::ProduceRequest>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Self { context, replies, .. } = self;
        let opened = tokio::select! {
            opened = self.open(&mut requests) => opened?,
            () = stop.cancelled() => return Err(stopping()),
        };
        let Some((name, collection_id)) = opened else { return Ok(()) };
        let credit = Arc::new(Semaphore::new(limits::STREAM_CREDIT_BYTES));
        let flow = Flow::new();
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = replies.closed() => return Ok(()),
                () = stop.cancelled() => return Err(stopping()),
            };
            let batch = match request {
                Ok(Some(v1::ProduceRequest {
                    message: Some(produce_request::Message::Batch(batch)),
                })) => batch,
                Ok(Some(_)) => {
                    return Err(invalid("only batches may follow the opening of a batch stream"));
                }
                Ok(None) | Err(_) => return Ok(()),
            };
            let size = batch.batch.len();
            let bytes = size.clamp(1, limits::STREAM_CREDIT_BYTES);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let (Ok(place), Ok(share)) = (
                Arc::clone(&self.places).acquire_owned().await,
                Arc::clone(&credit).acquire_many_owned(bytes).await,
            ) else {
                return Ok(());
            };
            let responder = Responder {
                method: self.road.method(),
                id: batch.id,
                partition: batch.partition,
                context: context.clone(),
                began: context.now(),
                replies: replies.clone(),
                permits: Some((place, share)),
            };
            // The collection may have been dropped since the stream was opened.
            let checked = context.node.route(&name).and_then(|route| {
                check_same(&route, collection_id)?;
                let held = context.hold(&self.caller, size)?;
                let (shard, request) = self.check(&route, batch.partition, batch.batch)?;
                Ok((shard, request, held))
            });
            match checked {
                Ok((shard, request, held)) => {
                    let reply = responder.into_reply(held);
                    let bytes = size as u64;
                    let write = Submission { request, from: flow, bytes, deadline: None, reply };
                    context.node.submit(shard, write);
                }
                Err(failure) => responder.send(Err(failure)),
            }
        }
    }
}

fn invalid(message: &'static str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}

impl Reader {
    /// Reads the opening message and answers it. `None`: the client went before it.
    async fn open(
        &self,
        requests: &mut Streaming<v1::ProduceRequest>,
    ) -> Result<Option<(String, u32)>, Failure> {
        let Ok(Some(first)) = requests.message().await else { return Ok(None) };
        let Some(produce_request::Message::Open(open)) = first.message else {
            return Err(invalid("a batch stream must begin with the collection it is for"));
        };
        let route = self.context.route(Action::Write, &open.collection)?;
        check_same(&route, open.collection_id)?;
        if self.road == Road::BatchPut && !route.is_keyed() {
            let message = format!("collection '{}' has no key index", open.collection);
            return Err(Failure::new(ErrorCode::InvalidArgument, message)
                .with_hint(format!("prkdb produce {}", open.collection)));
        }
        let opened = produce_reply::Opened {
            limits: Some(convert::limits(&self.context.node)),
            credit_bytes: limits::STREAM_CREDIT_BYTES as u64,
            collection_id: route.collection.id,
        };
        let message = Some(produce_reply::Message::Opened(opened));
        let _sent = self.replies.try_send((Ok(v1::ProduceReply { message }), None));
        Ok(Some((open.collection, route.collection.id)))
    }

    fn check(
        &self,
        route: &Route,
        number: u32,
        bytes: Bytes,
    ) -> Result<(u32, WriteRequest), Failure> {
        let place = route.place(number)?;
        let config = self.context.node.config();
        let decompressed = bytes.len().saturating_mul(EXPANSION_MAX).max(DECOMPRESSED_BYTES_MIN);
        let table = &route.table;
        let partition_of = |key: &[u8]| table.partition(key);
        let keys = KeyRules {
            bytes_max: config.max_key,
            value_bytes_max: config.max_value,
            records_max: limits::MAX_KEYED_BATCH_RECORDS,
            decompressed_bytes_max: decompressed.min(config.max_message),
            number,
            partition_of: &partition_of,
            keyless: match self.road {
                Road::BatchPut => Keyless::Refused,
                Road::Produce => Keyless::Allowed,
            },
        };
        let batch = CheckedBatch::check(bytes, route.is_keyed().then_some(&keys))?;
        if batch.producer().is_none() {
            // Without sequences, what follows a failure would not be refused.
            let message = "a batch of a stream must have producer, epoch and sequence";
            return Err(Failure::new(ErrorCode::BatchInvalid, message));
        }
        let collection = route.collection.id;
        Ok((place.shard, WriteRequest::Batch { partition: place.partition, collection, batch }))
    }
}

/// Sends the answer to one batch; dropped unused, it says that nobody knows.
struct Responder {
    method: Method,
    id: u64,
    partition: u32,
    context: Context,
    began: Duration,
    replies: Sender,
    permits: Option<Permits>,
}

impl Responder {
    fn send(mut self, result: Result<Written, Failure>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<Written, Failure>) {
        let Some(permits) = self.permits.take() else { return };
        self.context.count(self.method, self.began, result.as_ref().err());
        let (id, partition) = (self.id, self.partition);
        let message = Some(match result {
            Ok(written) => produce_reply::Message::Ack(produce_reply::Ack {
                id,
                partition,
                base_offset: written.base_offset,
                revision: written.revision,
                append_time_ms: written.append_time_ms,
                duplicate: written.kind == WrittenKind::Duplicate,
            }),
            Err(failure) => produce_reply::Message::Failed(produce_reply::Failed {
                id,
                partition,
                detail: Some(to_detail(&failure)),
            }),
        });
        // The permits go with the message and come back when it leaves the channel.
        let _sent = self.replies.try_send((Ok(v1::ProduceReply { message }), Some(permits)));
    }

    fn into_reply(self, held: HeldBytes) -> Reply {
        Box::new(move |written| {
            drop(held);
            self.send(written);
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let message = "the node stopped before the batch was applied";
        self.send_once(Err(Failure { outcome: Outcome::Unknown, ..Failure::unknown(message) }));
    }
}
