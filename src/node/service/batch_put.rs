//! `Kv.BatchPut`: opaque batches in, an acknowledgement or a failure for each out.
//!
//! Batches are checked and handed on in the order they came. The bytes that are under way are
//! bounded by the credit the client is told of; a client that sends more is not read from. After a
//! failure the rest of the partition's window fails by itself: its sequences leave a gap.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use prkdb_proto::v1::{self, batch_put_reply, batch_put_request};
use prkdb_types::{Batch, ErrorCode, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{
    context::{Caller, Context},
    convert,
    kv::{Replies, stopping},
    status::{to_detail, to_status},
};
use crate::{
    node::{
        core::Submission,
        limits::HeldBytes,
        metrics::Method,
        outcome::{Failure, Outcome, Reply, Written, WrittenKind},
        router::Route,
        security::Action,
    },
    storage::sequencer::{BatchRules, CheckedBatch, WriteRequest},
};

/// Batches of one stream under way at once.
const BATCHES_MAX: u32 = 1024;
/// Two places more: for the opening, and for an error that ends the stream.
const PLACES: usize = 1026;
/// A batch may be so many times as large when decompressed, if the largest message allows it.
const EXPANSION_MAX: usize = 100;
/// A small batch may be so large when decompressed in any case.
const DECOMPRESSED_BYTES_MIN: usize = 64 << 10;

type Message = Result<v1::BatchPutReply, Status>;
type Sender = mpsc::Sender<(Message, Option<Permits>)>;

/// A place in the channel and the batch's share of the credit.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Serves one stream.
pub(super) fn serve(
    context: Context,
    caller: Caller,
    requests: Streaming<v1::BatchPutRequest>,
    stop: CancellationToken,
) -> Replies<v1::BatchPutReply> {
    let (replies, stream) = mpsc::channel(PLACES);
    // Ends with its stream.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(PLACES - 2));
        let reader = Reader { context, caller, replies, places };
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
    context: Context,
    caller: Caller,
    replies: Sender,
    places: Arc<Semaphore>,
}

impl Reader {
    async fn run(
        &self,
        mut requests: Streaming<v1::BatchPutRequest>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Self { context, replies, .. } = self;
        let opened = tokio::select! {
            opened = open(context, &mut requests, replies) => opened?,
            () = stop.cancelled() => return Err(stopping()),
        };
        let Some(name) = opened else { return Ok(()) };
        let credit = Arc::new(Semaphore::new(limits::STREAM_CREDIT_BYTES));
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = replies.closed() => return Ok(()),
                () = stop.cancelled() => return Err(stopping()),
            };
            let batch = match request {
                Ok(Some(v1::BatchPutRequest {
                    message: Some(batch_put_request::Message::Batch(batch)),
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
                id: batch.id,
                partition: batch.partition,
                context: context.clone(),
                began: context.now(),
                replies: replies.clone(),
                permits: Some((place, share)),
            };
            // The collection may have been dropped since the stream was opened.
            let checked = context.node.route(&name).and_then(|route| {
                let held = context.hold(&self.caller, size)?;
                let (shard, request) = check(context, &route, batch.partition, batch.batch)?;
                Ok((shard, request, held))
            });
            match checked {
                Ok((shard, request, held)) => {
                    let reply = responder.into_reply(held);
                    context.node.submit(shard, Submission { request, deadline: None, reply });
                }
                Err(failure) => responder.send(Err(failure)),
            }
        }
    }
}

fn invalid(message: &'static str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}

/// Reads the opening message and answers it. `None`: the client went before it.
async fn open(
    context: &Context,
    requests: &mut Streaming<v1::BatchPutRequest>,
    replies: &Sender,
) -> Result<Option<String>, Failure> {
    let Ok(Some(first)) = requests.message().await else { return Ok(None) };
    let Some(batch_put_request::Message::Open(open)) = first.message else {
        return Err(invalid("a batch stream must begin with the collection it is for"));
    };
    let route = context.route(Action::Write, &open.collection)?;
    if !route.is_keyed() {
        let message = format!("collection '{}' has no key index", open.collection);
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    let opened = batch_put_reply::Opened {
        limits: Some(convert::limits(&context.node)),
        credit_bytes: limits::STREAM_CREDIT_BYTES as u64,
    };
    let message = Some(batch_put_reply::Message::Opened(opened));
    let _sent = replies.try_send((Ok(v1::BatchPutReply { message }), None));
    Ok(Some(open.collection))
}

fn check(
    context: &Context,
    route: &Route,
    number: u32,
    bytes: Bytes,
) -> Result<(u32, WriteRequest), Failure> {
    let place = route.place(number)?;
    // Without sequences, what follows a failure would not be refused. What does not parse is left to
    // the check, which says why. The clone counts a reference.
    if Batch::parse(bytes.clone()).is_ok_and(|batch| !batch.header().has_producer()) {
        let message = "a batch of a stream must have producer, epoch and sequence";
        return Err(Failure::new(ErrorCode::BatchInvalid, message));
    }
    let config = context.node.config();
    let decompressed = bytes.len().saturating_mul(EXPANSION_MAX).max(DECOMPRESSED_BYTES_MIN);
    let table = &route.table;
    let partition_of = |key: &[u8]| table.partition(key);
    let rules = BatchRules {
        key_bytes_max: config.max_key,
        value_bytes_max: config.max_value,
        records_max: limits::MAX_KEYED_BATCH_RECORDS,
        decompressed_bytes_max: decompressed.min(config.max_message),
        number,
        partition_of: Some(&partition_of),
    };
    let batch = CheckedBatch::check(bytes, &rules)?;
    let collection = route.collection.id;
    Ok((place.shard, WriteRequest::Batch { partition: place.partition, collection, batch }))
}

/// Sends the answer to one batch; dropped unused, it says that nobody knows.
struct Responder {
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
        self.context.count(Method::BatchPut, self.began, result.as_ref().err());
        let (id, partition) = (self.id, self.partition);
        let message = Some(match result {
            Ok(written) => batch_put_reply::Message::Ack(batch_put_reply::Ack {
                id,
                partition,
                base_offset: written.base_offset,
                revision: written.revision,
                append_time_ms: written.append_time_ms,
                duplicate: written.kind == WrittenKind::Duplicate,
            }),
            Err(failure) => batch_put_reply::Message::Failed(batch_put_reply::Failed {
                id,
                partition,
                detail: Some(to_detail(&failure)),
            }),
        });
        // The permits go with the message and come back when it leaves the channel.
        let _sent = self.replies.try_send((Ok(v1::BatchPutReply { message }), Some(permits)));
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
