//! The stream of a batch writer: sends what the windows hold, reads the replies, and begins again after a
//! break.
//!
//! One task owns the stream. After a break everything without an answer goes out again under the same
//! sequences, in order per partition, and the server tells repeats from news. A failure that passes by
//! itself is handled as a break.

use std::{sync::Arc, time::Duration};

use prkdb_proto::v1::{
    Limits, ProduceReply, ProduceRequest,
    produce_reply::{self, Failed, Opened},
    produce_request,
};
use prkdb_types::Retry;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use crate::{
    attempts::{Attempts, Effect, Fault, Next},
    batch::{BatchAnswer, BatchAnswers, Purpose, window::Windows, writer::Core},
    client::Client,
    detail,
    error::{ClientError, Outcome},
    link::Link,
};

/// How many batches lie ready for the transport; the windows hold the rest.
const QUEUE_MAX: usize = 4;
/// How many answers lie ready for the caller before the driver waits for it.
const ANSWERS_MAX: usize = 1024;
/// How long the end of the stream is waited for once everything is answered.
const GOODBYE: Duration = Duration::from_secs(1);
/// What a message has around its batch, at most: three tags, two numbers and two lengths.
const ENVELOPE_BYTES: u64 = 48;

/// The driver between its streams.
#[derive(Debug)]
pub(super) struct Driver {
    client: Client,
    core: Arc<Core>,
    /// The collection that the first stream was of; 0 before it.
    collection_id: u32,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    link: Arc<Link>,
    requests: mpsc::Sender<ProduceRequest>,
    replies: Streaming<ProduceReply>,
}

/// How a stream came to its end.
enum End {
    /// Everything is answered and nothing more will come.
    Done,
    /// It broke, or a batch met a failure that passes by itself; `progress` = some batch was answered.
    Fault { fault: Fault, progress: bool },
}

/// Runs a driver until it is done; it is stopped when the answers are dropped.
pub(super) fn spawn(driver: Driver) -> BatchAnswers {
    let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
    let task = tokio::spawn(driver.run(sender));
    BatchAnswers::new(receiver, AbortOnDropHandle::new(task))
}

impl Driver {
    /// Opens the first stream.
    pub(super) async fn open(
        client: &Client,
        core: Arc<Core>,
    ) -> Result<(Self, Limits), ClientError> {
        let mut driver = Self { client: client.clone(), core, collection_id: 0, stream: None };
        let mut attempts = driver.attempts();
        let mut address = String::new();
        loop {
            let fault = match driver.begin(&address, &attempts).await {
                Ok(limits) => return Ok((driver, limits)),
                Err(fault) => fault,
            };
            address = leader(attempts.next(fault).await?);
        }
    }

    async fn run(mut self, answers: mpsc::Sender<BatchAnswer>) {
        // Also where the task is stopped: those who wait for a turn must not wait for ever.
        let closing = Closing(Arc::clone(&self.core));
        let mut attempts = self.attempts();
        let error = loop {
            let fault = match self.stream.take() {
                None => Fault::Final(ClientError::Closed),
                Some(stream) => match self.serve(stream, &answers).await {
                    End::Done => break ClientError::Closed,
                    End::Fault { fault, progress } => {
                        if progress || !self.core.with(|windows| windows.is_waiting()) {
                            attempts = self.attempts();
                        } else {
                            attempts.set_deadline(self.client.deadline());
                        }
                        fault
                    }
                },
            };
            if let Err(error) = self.reopen(&mut attempts, fault).await {
                break error;
            }
        };
        let operation = self.core.purpose.operation();
        let last = self.core.with(|windows| windows.end(operation, &error));
        self.core.room.notify_waiters();
        for answer in last {
            if answers.send(answer).await.is_err() {
                break;
            }
        }
        drop(closing);
    }

    /// Opens another stream after a fault.
    async fn reopen(&mut self, attempts: &mut Attempts, fault: Fault) -> Result<(), ClientError> {
        let mut address = leader(attempts.next(fault).await?);
        while let Err(fault) = self.begin(&address, attempts).await {
            address = leader(attempts.next(fault).await?);
        }
        Ok(())
    }

    /// Opens a stream and waits for the server's word.
    async fn begin(&mut self, address: &str, attempts: &Attempts) -> Result<Limits, Fault> {
        let pool = &self.client.shared().pool;
        let opening = async {
            let link = pool.at(address).await?;
            let (requests, queue) = mpsc::channel(QUEUE_MAX);
            let open = produce_request::Open {
                collection: self.core.collection.clone(),
                collection_id: self.collection_id,
            };
            let open = produce_request::Message::Open(open);
            let first = ProduceRequest { message: Some(open) };
            // The queue is empty, so there is a place.
            let _queued = requests.try_send(first);
            let requests_of_stream = ReceiverStream::new(queue);
            let opened = match self.core.purpose {
                Purpose::Puts => link.kv().batch_put(requests_of_stream).await,
                Purpose::Events => link.stream().produce(requests_of_stream).await,
            };
            let mut replies = opened.map_err(|status| link.fault(status))?.into_inner();
            let reply = replies.message().await.map_err(|status| link.fault(status))?;
            match reply.and_then(|reply| reply.message) {
                Some(produce_reply::Message::Opened(opened)) => {
                    Ok((Stream { link, requests, replies }, opened))
                }
                Some(_) => Err(link.wrong_answer("the opening of a stream")),
                None => {
                    Err(link.fault(Status::unavailable("the server ended the stream at its start")))
                }
            }
        };
        let (stream, opened) = attempts.within(false, opening).await?;
        let limits = limits(&stream.link, &opened);
        let batch_bytes_max = limits.max_message_bytes.saturating_sub(ENVELOPE_BYTES);
        // What goes out again must not go into another collection that has the name by now.
        self.collection_id = opened.collection_id;
        self.core.with(|windows| windows.begin_stream(opened.credit_bytes, batch_bytes_max));
        self.core.room.notify_waiters();
        self.stream = Some(stream);
        Ok(limits)
    }

    /// Sends and receives until the stream ends.
    async fn serve(&self, mut stream: Stream, answers: &mpsc::Sender<BatchAnswer>) -> End {
        let mut progress = false;
        let mut is_open = true;
        loop {
            if self.core.with(|windows| windows.is_done()) {
                drop(stream.requests);
                // The server's own end of the stream is a courtesy, not a condition.
                let _end = timeout(GOODBYE, stream.replies.message()).await;
                return End::Done;
            }
            let may_send = is_open && self.core.with(Windows::may_send);
            let reply = tokio::select! {
                reply = stream.replies.message() => reply,
                place = stream.requests.reserve(), if may_send => {
                    match place {
                        Ok(place) => {
                            if let Some(batch) = self.core.with(Windows::next_to_send) {
                                let message = produce_request::Message::Batch(batch);
                                place.send(ProduceRequest { message: Some(message) });
                            }
                        }
                        // The transport let go of the queue; the replies will say why.
                        Err(_closed) => is_open = false,
                    }
                    continue;
                }
                () = self.core.work.notified() => continue,
            };
            let told = match reply {
                Ok(Some(reply)) => self.take(&stream.link, reply),
                Ok(None) => {
                    Err(stream.link.fault(Status::unavailable("the server ended the stream")))
                }
                Err(status) => Err(stream.link.fault(status)),
            };
            match told {
                Ok(told) => {
                    progress |= !told.is_empty();
                    self.core.room.notify_waiters();
                    for answer in told {
                        if answers.send(answer).await.is_err() {
                            return End::Done;
                        }
                    }
                }
                Err(fault) => return End::Fault { fault, progress },
            }
        }
    }

    /// Turns a reply into answers.
    fn take(&self, link: &Link, reply: ProduceReply) -> Result<Vec<BatchAnswer>, Fault> {
        match reply.message {
            Some(produce_reply::Message::Ack(ack)) => {
                Ok(self.core.with(|windows| windows.ack(ack)))
            }
            Some(produce_reply::Message::Failed(failed)) => self.failed(failed),
            Some(produce_reply::Message::Credit(credit)) => {
                self.core.with(|windows| windows.add_credit(credit.bytes));
                Ok(Vec::new())
            }
            Some(produce_reply::Message::Opened(_)) => {
                Err(link.wrong_answer("one opening of a stream"))
            }
            // A message of a newer server, which this client did not ask for.
            None => Ok(Vec::new()),
        }
    }

    /// A failure that passes by itself begins the stream again; another is the batch's answer.
    fn failed(&self, failed: Failed) -> Result<Vec<BatchAnswer>, Fault> {
        if !self.core.with(|windows| windows.expects(&failed)) {
            // It was answered when one before it failed.
            return Ok(Vec::new());
        }
        let refusal = detail::refusal(failed.detail.unwrap_or_default(), None);
        if refusal.code.retry() == Retry::Automatic {
            if refusal.outcome == Some(Outcome::NotApplied) {
                self.core.with(|windows| windows.not_applied(failed.partition, failed.id));
            }
            return Err(Fault::Refused(Box::new(refusal)));
        }
        let error = ClientError::Refused(Box::new(refusal));
        let operation = self.core.purpose.operation();
        Ok(self.core.with(|windows| windows.fail(failed.partition, failed.id, operation, error)))
    }

    fn attempts(&self) -> Attempts {
        // What to repeat and what is in doubt is kept by the windows, batch by batch.
        let operation = self.core.purpose.operation();
        self.client.shared().attempts(operation, Effect::None, self.client.deadline())
    }
}

/// Ends the windows with the driver, however that ends.
struct Closing(Arc<Core>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.with(Windows::close);
        self.0.room.notify_waiters();
    }
}

fn leader(next: Next) -> String {
    match next {
        Next::Again => String::new(),
        Next::Follow(leader) => leader,
    }
}

/// Returns the limits of a stream, with the link's where the server left them out.
fn limits(link: &Link, opened: &Opened) -> Limits {
    let mut limits = opened.limits.unwrap_or_default();
    if limits.max_message_bytes == 0 {
        limits.max_message_bytes = link.message_bytes_max();
    }
    limits
}
