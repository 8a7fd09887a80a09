//! The service `Stream`: batches in, batches out, and where they are.

use std::time::Duration;

use futures_util::stream;
use prkdb_proto::v1::{self, position::Place, stream_server::Stream};
use prkdb_types::ErrorCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    context::{Caller, Context, of_a_read},
    kv::{Replies, stopping},
    produce::{self, Road},
    status::to_status,
};
use crate::node::{
    metrics::Method,
    outcome::Failure,
    read::{Piece, Position, Reader, resolve},
    router::Route,
    security::{Action, Resource},
};

/// Bytes of batches in one reply, unless a single batch has more.
const REPLY_BYTES: u64 = 1 << 20;
/// How long a fetch waits by default, and at most.
const WAIT_DEFAULT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Bytes of a fetch that ends by itself.
const FETCH_BYTES_DEFAULT: u64 = 16 << 20;
/// Partitions of one request: more are asked for by several.
const PARTITIONS_MAX: usize = 100_000;

/// The service.
#[derive(Clone, Debug)]
pub struct StreamService {
    context: Context,
    stop: CancellationToken,
}

/// Refuses another collection than the one that a client has read from or written to.
pub(super) fn check_same(route: &Route, collection_id: u32) -> Result<(), Failure> {
    if collection_id == 0 || collection_id == route.collection.id {
        return Ok(());
    }
    let name = route.collection.name.as_str();
    let message = format!("collection '{name}' was dropped, and another one has its name");
    Err(Failure::new(ErrorCode::CollectionNotFound, message)
        .with_hint("begin anew with the new one"))
}

impl StreamService {
    /// Returns the service of a node. Its streams end when `stop` is cancelled.
    pub fn new(context: Context, stop: CancellationToken) -> Self {
        Self { context, stop }
    }

    async fn open(&self, request: v1::FetchRequest) -> Result<Fetch, Failure> {
        let route = self.context.route(Action::Read, &request.collection)?;
        check_same(&route, request.collection_id)?;
        check_count(request.starts.len())?;
        if request.starts.is_empty() {
            return Err(invalid("a fetch must name a partition"));
        }
        let starts = request
            .starts
            .iter()
            .map(|start| Ok((start.partition, position(start.from)?)))
            .collect::<Result<Vec<(u32, Position)>, Failure>>()?;
        let reader = Reader::open(&self.context.node, &route, &starts).await?;
        let wait = request.max_wait_ms.map_or(WAIT_DEFAULT, |ms| Duration::from_millis(ms.into()));
        let end = (!request.follow).then(|| End {
            deadline: Instant::now() + wait.min(WAIT_MAX),
            bytes_min: request.min_bytes.max(1),
            bytes_max: match request.max_bytes {
                0 => FETCH_BYTES_DEFAULT,
                bytes => bytes,
            },
        });
        let (context, stop) = (self.context.clone(), self.stop.clone());
        let collection_id = route.collection.id;
        Ok(Fetch { context, collection_id, stop, reader, end, bytes: 0, is_over: false })
    }

    async fn list(&self, request: v1::ListOffsetsRequest) -> Result<v1::ListOffsetsReply, Failure> {
        let route = self.context.route(Action::Read, &request.collection)?;
        check_count(request.items.len())?;
        let asked: Vec<(u32, Position)> = if request.items.is_empty() {
            (0..route.table.partitions()).map(|number| (number, Position::Latest)).collect()
        } else {
            let ask = |item: &v1::list_offsets_request::Item| {
                Ok::<_, Failure>((item.partition, position(item.position)?))
            };
            request.items.iter().map(ask).collect::<Result<_, _>>()?
        };
        let node = &self.context.node;
        for shard in route.shards() {
            node.shard(shard)?.read_barrier().await?;
        }
        let mut items = Vec::with_capacity(asked.len());
        for (number, position) in asked {
            let found = resolve(node, route.place(number)?, position)?;
            items.push(v1::list_offsets_reply::Item {
                partition: number,
                log_start: found.bounds.log_start,
                log_end: found.bounds.high_watermark,
                offset: found.offset,
                timestamp_ms: found.timestamp_ms,
            });
        }
        Ok(v1::ListOffsetsReply { items })
    }
}

fn invalid(message: &'static str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}

fn check_count(partitions: usize) -> Result<(), Failure> {
    if partitions <= PARTITIONS_MAX {
        return Ok(());
    }
    let message = format!("{partitions} partitions, limit {PARTITIONS_MAX} (fetch-partitions)");
    Err(Failure::new(ErrorCode::MessageTooLarge, message))
}

fn position(position: Option<v1::Position>) -> Result<Position, Failure> {
    match position.and_then(|position| position.place) {
        Some(Place::Offset(offset)) => Ok(Position::Offset(offset)),
        Some(Place::TimestampMs(time_ms)) => Ok(Position::Time(time_ms)),
        Some(Place::Earliest(_)) => Ok(Position::Earliest),
        Some(Place::Latest(_)) => Ok(Position::Latest),
        None => Err(invalid("a position is missing, or is of a kind this node does not know")),
    }
}

/// When a fetch ends that does not follow.
#[derive(Clone, Copy, Debug)]
struct End {
    deadline: Instant,
    bytes_min: u64,
    bytes_max: u64,
}

/// A stream of batches. It reads when the transport takes more, and not ahead of it.
struct Fetch {
    context: Context,
    collection_id: u32,
    stop: CancellationToken,
    reader: Reader,
    /// `None`: it follows.
    end: Option<End>,
    bytes: u64,
    is_over: bool,
}

impl Fetch {
    async fn next(&mut self) -> Option<Result<v1::FetchReply, Status>> {
        if self.is_over {
            return None;
        }
        let result = self.step().await.transpose()?;
        self.is_over = result.is_err();
        Some(result.map_err(|failure| to_status(&of_a_read(failure))))
    }

    async fn step(&mut self) -> Result<Option<v1::FetchReply>, Failure> {
        loop {
            if self.stop.is_cancelled() {
                return Err(stopping());
            }
            let room = match self.end {
                Some(end) if self.bytes >= end.bytes_max => return Ok(None),
                Some(end) => (end.bytes_max - self.bytes).min(REPLY_BYTES),
                None => REPLY_BYTES,
            };
            if let Some(piece) = self.reader.next(usize::try_from(room).unwrap_or(usize::MAX))? {
                return Ok(Some(self.reply(piece)));
            }
            let deadline = self.end.map(|end| end.deadline);
            let is_enough = self.end.is_some_and(|end| self.bytes >= end.bytes_min);
            if is_enough || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            let passed = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.reader.grown() => {}
                () = passed => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn reply(&mut self, piece: Piece) -> v1::FetchReply {
        let Piece { number, fetched } = piece;
        self.bytes += fetched.bytes as u64;
        self.context.node.metrics().fetched(fetched.bytes as u64);
        v1::FetchReply {
            collection_id: self.collection_id,
            partition: number,
            high_watermark: fetched.bounds.high_watermark,
            log_start: fetched.bounds.log_start,
            batches: fetched.parts,
            next_offset: fetched.next_offset,
        }
    }
}

#[tonic::async_trait]
impl Stream for StreamService {
    type ProduceStream = Replies<v1::ProduceReply>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let admitted = self
            .context
            .authorise(Action::Observe, Resource::Cluster)
            .and_then(|()| if self.stop.is_cancelled() { Err(stopping()) } else { Ok(()) });
        // Batches are counted, each by itself; so is a stream that is not opened.
        match admitted {
            Ok(()) => {
                let (caller, stop) = (Caller::of(&request), self.stop.clone());
                let context = self.context.clone();
                let requests = request.into_inner();
                Ok(Response::new(produce::serve(Road::Produce, context, caller, requests, stop)))
            }
            Err(failure) => self.context.answer(Method::Produce, async { Err(failure) }).await,
        }
    }

    type FetchStream = Replies<v1::FetchReply>;

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let opened = async {
            let caller = Caller::of(&request);
            caller.check_deadline()?;
            let fetch = self.open(request.into_inner()).await?;
            let replies = stream::unfold(fetch, async |mut fetch| {
                let reply = fetch.next().await?;
                Some((reply, fetch))
            });
            let replies: Self::FetchStream = Box::pin(replies);
            Ok(replies)
        };
        self.context.answer_read(Method::Fetch, opened).await
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsReply>, Status> {
        let listed = self.list(request.into_inner());
        self.context.answer_read(Method::ListOffsets, listed).await
    }
}
