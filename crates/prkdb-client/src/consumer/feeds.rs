//! The streams of a consumer: one per server that leads partitions it reads, opened again after a break.
//!
//! Each stream has a connection of its own, see [`crate::pool::Pool::apart`].
//!
//! A partition is in one stream, in the opening of one, or waits for an opening: never in two of them, so
//! what a place says is what its next stream begins with. Only replies are handed on; whoever takes them
//! moves the places.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use prkdb_proto::v1::{FetchReply, FetchRequest, fetch_request::Start};
use prkdb_types::ErrorCode;
use tokio::time::Instant;
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};

use crate::{
    attempts::{Attempts, Effect, Fault, Next},
    client::Client,
    consumer::places::Places,
    error::ClientError,
    link::Link,
};

/// How long a stream without a batch must have held to count as progress.
const STEADY: Duration = Duration::from_secs(10);

/// The streams of a consumer.
#[derive(Debug)]
pub(super) struct Feeds {
    client: Client,
    collection: Arc<str>,
    /// Its number, which no other has that gets its name; 0 until a server has told it.
    collection_id: u32,
    streams: Vec<Feed>,
    /// Whose reply is taken first next time.
    turn: usize,
    /// Partitions that wait for an opening.
    waiting: Vec<u32>,
    opening: Option<Opening>,
    /// The attempts since the last progress; with the opening while there is one.
    attempts: Option<Attempts>,
    /// Why the last stream ended.
    fault: Option<Fault>,
}

/// One stream.
#[derive(Debug)]
struct Feed {
    link: Arc<Link>,
    replies: Streaming<FetchReply>,
    partitions: Vec<u32>,
    opened: Instant,
    has_batches: bool,
}

/// Streams on their way.
struct Opening {
    partitions: Vec<u32>,
    work: Pin<Box<dyn Future<Output = Opened> + Send>>,
}

type Opened = (Attempts, Result<Vec<Feed>, ClientError>);

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Feeds {
    pub(super) fn new(client: &Client, collection: Arc<str>, partitions: Vec<u32>) -> Self {
        Self {
            // A clone shares the connections.
            client: client.clone(),
            collection,
            collection_id: 0,
            streams: Vec::new(),
            turn: 0,
            waiting: partitions,
            opening: None,
            attempts: None,
            fault: None,
        }
    }

    /// Waits until every partition is in a stream.
    ///
    /// An error leaves the partitions waiting: the next call tries again, with its own attempts.
    pub(super) fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        places: &mut Places,
    ) -> Poll<Result<(), ClientError>> {
        loop {
            if let Some(opening) = &mut self.opening {
                let (attempts, opened) = ready!(opening.work.as_mut().poll(context));
                let partitions = self.opening.take().map(|opening| opening.partitions);
                match opened {
                    Ok(streams) => {
                        self.attempts = Some(attempts);
                        self.streams.extend(streams);
                    }
                    Err(error) => {
                        self.waiting.extend(partitions.into_iter().flatten());
                        return Poll::Ready(Err(error));
                    }
                }
            }
            self.waiting.retain(|partition| places.is_live(*partition));
            if self.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.opening = Some(self.begin(places));
        }
    }

    /// Waits for the next reply of any stream, and opens again those that broke.
    pub(super) fn poll_reply(
        &mut self,
        context: &mut Context<'_>,
        places: &mut Places,
    ) -> Poll<Result<(Arc<Link>, FetchReply), ClientError>> {
        loop {
            let opened = self.poll_open(context, places);
            if let Poll::Ready(Err(error)) = opened {
                return Poll::Ready(Err(error));
            }
            // Those that are open go on while others are opened.
            if let Poll::Ready(reply) = self.poll_streams(context) {
                return Poll::Ready(Ok(reply));
            }
            if opened.is_pending() || self.waiting.is_empty() {
                return Poll::Pending;
            }
        }
    }

    /// Drops the streams that nothing more is read from.
    pub(super) fn retain(&mut self, places: &Places) {
        let is_read =
            |stream: &Feed| stream.partitions.iter().any(|number| places.is_live(*number));
        self.streams.retain(is_read);
    }

    /// Polls each stream in turn, and takes out those that broke.
    fn poll_streams(&mut self, context: &mut Context<'_>) -> Poll<(Arc<Link>, FetchReply)> {
        let mut pending = 0;
        while pending < self.streams.len() {
            let index = self.turn % self.streams.len();
            let Some(stream) = self.streams.get_mut(index) else { break };
            let status = match Pin::new(&mut stream.replies).poll_next(context) {
                Poll::Pending => {
                    pending += 1;
                    self.turn = index + 1;
                    continue;
                }
                Poll::Ready(Some(Ok(reply))) => {
                    stream.has_batches |= !reply.batches.is_empty();
                    self.collection_id = reply.collection_id;
                    self.turn = index + 1;
                    return Poll::Ready((Arc::clone(&stream.link), reply));
                }
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(None) => Status::unavailable("the server ended the stream"),
            };
            self.lose(index, status);
            // The others move up: each is asked once more.
            pending = 0;
        }
        Poll::Pending
    }

    /// Takes a stream out that ended, and remembers why.
    fn lose(&mut self, index: usize, status: Status) {
        let stream = self.streams.swap_remove(index);
        if stream.has_batches || stream.opened.elapsed() >= STEADY {
            self.attempts = None;
        }
        let fault = stream.link.fault(status);
        if fault.refused_with() == Some(ErrorCode::Stopping) {
            // The next attempt looks for another server.
            stream.link.set_broken();
        }
        self.fault = Some(fault);
        self.waiting.extend(stream.partitions);
    }

    /// Begins to open streams for the partitions that wait.
    fn begin(&mut self, places: &mut Places) -> Opening {
        let deadline = self.client.deadline();
        let attempts = match self.attempts.take() {
            // The time counts from the break.
            Some(mut attempts) => {
                attempts.set_deadline(deadline);
                attempts
            }
            None => self.client.shared().attempts("consume", Effect::None, deadline),
        };
        let partitions = std::mem::take(&mut self.waiting);
        let starts = partitions.iter().filter_map(|partition| places.start(*partition)).collect();
        let opener = Opener {
            // Clones share the connections and the name.
            client: self.client.clone(),
            collection: Arc::clone(&self.collection),
            collection_id: self.collection_id,
            starts,
        };
        let work = Box::pin(opener.open(attempts, self.fault.take()));
        Opening { partitions, work }
    }
}

/// Opens streams until it is done or the attempts are.
struct Opener {
    client: Client,
    collection: Arc<str>,
    collection_id: u32,
    starts: Vec<Start>,
}

impl Opener {
    async fn open(self, mut attempts: Attempts, mut fault: Option<Fault>) -> Opened {
        let mut named = String::new();
        loop {
            if let Some(fault) = fault {
                if fault.refused_with() == Some(ErrorCode::NotLeader) {
                    self.forget();
                }
                named = match attempts.next(fault).await {
                    Ok(Next::Again) => String::new(),
                    Ok(Next::Follow(leader)) => leader,
                    Err(error) => return (attempts, Err(error)),
                };
            }
            match self.try_open(&attempts, &named).await {
                Ok(streams) => return (attempts, Ok(streams)),
                Err(again) => fault = Some(again),
            }
        }
    }

    /// Opens all streams, or none. `named` is where a refusal said that the leader is.
    async fn try_open(&self, attempts: &Attempts, named: &str) -> Result<Vec<Feed>, Fault> {
        let shared = self.client.shared();
        let known = attempts.within(false, shared.partitions(&self.collection)).await?;
        let mut by_leader: BTreeMap<&str, Vec<Start>> = BTreeMap::new();
        for start in &self.starts {
            by_leader.entry(known.leader(start.partition)).or_default().push(*start);
        }
        let is_one = by_leader.len() == 1;
        let mut streams = Vec::with_capacity(by_leader.len());
        for (leader, starts) in by_leader {
            // With several leaders a refusal does not tell whose partitions it is about.
            let address = if is_one && !named.is_empty() { named } else { leader };
            streams.push(attempts.within(true, self.fetch(address, starts)).await?);
        }
        Ok(streams)
    }

    async fn fetch(&self, address: &str, starts: Vec<Start>) -> Result<Feed, Fault> {
        let link = self.client.shared().pool.apart(address).await?;
        let partitions = starts.iter().map(|start| start.partition).collect();
        let collection = String::from(&*self.collection);
        let collection_id = self.collection_id;
        let request =
            FetchRequest { collection, collection_id, starts, follow: true, ..Default::default() };
        let opened = link.stream().fetch(request).await;
        let replies = opened.map_err(|status| link.fault(status))?.into_inner();
        Ok(Feed { link, replies, partitions, opened: Instant::now(), has_batches: false })
    }

    fn forget(&self) {
        let routes = &self.client.shared().routes;
        if let Some(known) = routes.known(&self.collection) {
            routes.forget(&known);
        }
    }
}
