//! `Kv.BatchPut`: opaque batches in, an acknowledgement or a failure for each out.
//!
//! Batches are checked and handed on in the order they came. The bytes that are under way are
//! bounded by the credit the client is told of; a client that sends more is not read from. After a
//! failure the rest of the partition's window fails by itself: its sequences leave a gap.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use prkdb_proto::v1::{self, batch_put_reply, batch_put_request};
use prkdb_types::{ErrorCode, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    context::Context,
    convert,
    kv::Replies,
    status::{to_detail, to_status},
};
use crate::{
    node::{
        core::Submission,
        metrics::Method,
        outcome::{Failure, Outcome, Reply, Written, WrittenKind},
        router::Route,
        security::Action,
    },
    storage::sequencer::{BatchRules, CheckedBatch, WriteRequest},
};

/// Batches of one stream under way at once.
const BATCHES_MAX: usize = 1024;

type Message = Result<v1::BatchPutReply, Status>;
type Sender = mpsc::Sender<(Message, Option<Permits>)>;

/// A place in the channel and the batch's share of the credit.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Serves one stream.
pub(super) fn serve(
    context: Context,
    requests: Streaming<v1::BatchPutRequest>,
) -> Replies<v1::BatchPutReply> {
    // Two more than batches: for the opening, and for an error that ends the stream.
    let (replies, stream) = mpsc::channel(BATCHES_MAX + 2);
    // Ends with its stream.
    let _reader = tokio::spawn(async move {
        if let Err(failure) = read(&context, requests, &replies).await {
            // Closed: the client is gone and needs no reason.
            let _sent = replies.try_send((Err(to_status(&failure)), None));
        }
    });
    Box::pin(ReceiverStream::new(stream).map(|(message, _permits)| message))
}

async fn read(
    context: &Context,
    mut requests: Streaming<v1::BatchPutRequest>,
    replies: &Sender,
) -> Result<(), Failure> {
    let Some(route) = open(context, &mut requests, replies).await? else { return Ok(()) };
    let places = Arc::new(Semaphore::new(BATCHES_MAX));
    let credit = Arc::new(Semaphore::new(limits::STREAM_CREDIT_BYTES));
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = replies.closed() => return Ok(()),
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
        let bytes = batch.batch.len().clamp(1, limits::STREAM_CREDIT_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let (Ok(place), Ok(share)) = (
            Arc::clone(&places).acquire_owned().await,
            Arc::clone(&credit).acquire_many_owned(bytes).await,
        ) else {
            return Ok(());
        };
        let responder = Responder {
            id: batch.id,
            partition: batch.partition,
            started: context.node.clock().monotonic(),
            context: context.clone(),
            replies: replies.clone(),
            permits: Some((place, share)),
        };
        match check(context, &route, batch.partition, batch.batch) {
            Ok((shard, request)) => {
                let reply = responder.into_reply();
                context.node.submit(shard, Submission { request, deadline: None, reply });
            }
            Err(failure) => responder.send(Err(failure)),
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
) -> Result<Option<Arc<Route>>, Failure> {
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
    Ok(Some(route))
}

fn check(
    context: &Context,
    route: &Route,
    number: u32,
    bytes: Bytes,
) -> Result<(u32, WriteRequest), Failure> {
    let place = route.place(number)?;
    let config = context.node.config();
    let table = &route.table;
    let partition_of = |key: &[u8]| table.partition(key);
    let rules = BatchRules {
        key_bytes_max: config.max_key,
        value_bytes_max: config.max_value,
        records_max: limits::MAX_KEYED_BATCH_RECORDS,
        decompressed_bytes_max: config.max_message,
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
    started: Duration,
    context: Context,
    replies: Sender,
    permits: Option<Permits>,
}

impl Responder {
    fn send(mut self, result: Result<Written, Failure>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<Written, Failure>) {
        let Some(permits) = self.permits.take() else { return };
        self.context.count(Method::BatchPut, self.started, result.as_ref().err());
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

    fn into_reply(self) -> Reply {
        Box::new(move |written| self.send(written))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let message = "the node stopped before the batch was applied";
        self.send_once(Err(Failure { outcome: Outcome::Unknown, ..Failure::unknown(message) }));
    }
}
