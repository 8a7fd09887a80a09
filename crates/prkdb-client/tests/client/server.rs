//! A server that keeps a few keys in memory, applies every write once, and misbehaves as it is told.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prkdb_client::{Client, ClientOptions, Endpoint, ErrorCode};
use prkdb_proto::v1::{
    self, ErrorDetail, ExchangeReply, ExchangeRequest, Outcome, admin_server, collections_server,
    exchange_reply, exchange_request::Operation, kv_server, stream_server,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::server_stream::StreamState;

pub(crate) const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// What the server does with the next request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Applies it and ends the stream instead of answering.
    ApplyAndCut,
    /// Applies it and never answers.
    ApplyAndHold,
    /// Ends the stream.
    Cut,
    /// Answers with this and applies nothing.
    Refuse(ErrorDetail),
    /// Never answers.
    Hold,
    /// Does what it should.
    Serve,
}

/// What the server makes of a request.
enum Reaction {
    Reply(exchange_reply::Result),
    Silence,
    Cut,
}

/// A batch as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: u32,
    pub(crate) base_sequence: i32,
    pub(crate) producer_id: i64,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// What comes next; nothing left = serve.
    pub(crate) script: VecDeque<Step>,
    /// Every write of a key, as it came.
    pub(crate) writes: Vec<Operation>,
    pub(crate) reads: usize,
    pub(crate) timeouts_ms: Vec<u32>,
    pub(crate) batches: Vec<Seen>,
    /// The most bytes of batches that waited for their answer at once.
    pub(crate) waiting_bytes_max: usize,
    pub(crate) credit_bytes: u64,
    pub(crate) partitions: u32,
    /// Where the server says that the leader is; empty = itself.
    pub(crate) leader: String,
    pub(crate) metadata_calls: usize,
    pub(crate) collections: BTreeMap<String, v1::CollectionSettings>,
    pub(crate) waiting_bytes: usize,
    /// The collection's number in each opening of a stream of batches.
    pub(crate) opened: Vec<u32>,
    /// How many pages of 1 MiB a scan has before its others.
    pub(crate) large_pages: usize,
    /// The logs of the partitions and how they are read.
    pub(crate) stream: StreamState,
    values: HashMap<Bytes, (Bytes, u64)>,
    applied: HashMap<(u64, u32, u32), v1::WriteReply>,
    offset: u64,
}

/// The server and what it saw.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    /// Counts requests of all kinds, and the pages of scans as they go out.
    pub(crate) received: watch::Sender<usize>,
    /// Batches are answered while this is true.
    pub(crate) acks: watch::Sender<bool>,
    /// Stops with the last clone that the test holds.
    task: Arc<Option<AbortOnDropHandle<()>>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut fake = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::new(Mutex::new(State {
                credit_bytes: 16 << 20,
                partitions: 3,
                ..State::default()
            })),
            received: watch::Sender::new(0),
            acks: watch::Sender::new(true),
            task: Arc::new(None),
        };
        let serving = Server::builder()
            .add_service(kv_server::KvServer::new(fake.clone()))
            .add_service(admin_server::AdminServer::new(fake.clone()))
            .add_service(stream_server::StreamServer::new(fake.clone()))
            .add_service(collections_server::CollectionsServer::new(fake.clone()))
            .add_service(tonic_health::server::health_reporter().1)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        fake.task = Arc::new(Some(AbortOnDropHandle::new(task)));
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.state().script.extend(steps);
    }

    /// Waits until so many requests and batches came.
    pub(crate) async fn received(&self, count: usize) {
        self.received.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    pub(crate) fn hold_acks(&self) {
        self.acks.send_replace(false);
    }

    pub(crate) fn release_acks(&self) {
        self.acks.send_replace(true);
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            servers: vec![Endpoint::parse(&self.address).unwrap()],
            timeout: Some(Duration::from_secs(20)),
            ..ClientOptions::default()
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    /// Returns the producers of the writes that came, in order.
    pub(crate) fn producers(&self) -> Vec<v1::Producer> {
        self.state().writes.iter().map(|write| identity(write).0).collect()
    }

    /// Does what the script says with one operation.
    fn answer(&self, operation: Operation) -> Reaction {
        let answer = {
            let mut state = self.state();
            match &operation {
                Operation::Put(_) | Operation::Delete(_) => state.writes.push(operation.clone()),
                Operation::Get(_) | Operation::MultiGet(_) => state.reads += 1,
            }
            match state.script.pop_front().unwrap_or(Step::Serve) {
                Step::Serve => Reaction::Reply(state.apply(operation)),
                Step::ApplyAndCut => {
                    state.apply(operation);
                    Reaction::Cut
                }
                Step::ApplyAndHold => {
                    state.apply(operation);
                    Reaction::Silence
                }
                Step::Cut => Reaction::Cut,
                Step::Refuse(detail) => Reaction::Reply(exchange_reply::Result::Error(detail)),
                Step::Hold => Reaction::Silence,
            }
        };
        self.received.send_modify(|count| *count += 1);
        answer
    }
}

impl State {
    fn apply(&mut self, operation: Operation) -> exchange_reply::Result {
        match operation {
            Operation::Get(request) => exchange_reply::Result::Get(self.get(&request.key)),
            Operation::MultiGet(request) => {
                let replies = request.keys.iter().map(|key| self.get(key)).collect();
                exchange_reply::Result::MultiGet(v1::MultiGetReply { replies })
            }
            Operation::Put(_) | Operation::Delete(_) => {
                exchange_reply::Result::Write(self.write(operation))
            }
        }
    }

    fn write(&mut self, operation: Operation) -> v1::WriteReply {
        let (producer, partition) = identity(&operation);
        let name = (producer.id, partition, producer.sequence);
        if let Some(before) = self.applied.get(&name) {
            return v1::WriteReply { duplicate: true, ..before.clone() };
        }
        let mut reply = v1::WriteReply { partition, ..v1::WriteReply::default() };
        match operation {
            Operation::Put(request) => {
                self.offset += 1;
                let before = self.values.insert(request.key, (request.value, self.offset));
                reply.existed = before.is_some();
            }
            Operation::Delete(request) => {
                reply.existed = self.values.remove(&request.key).is_some();
                if !reply.existed {
                    return reply;
                }
                self.offset += 1;
            }
            _ => unreachable!("a read is no write"),
        }
        reply.offset = self.offset;
        self.applied.insert(name, reply.clone());
        reply
    }

    fn get(&self, key: &Bytes) -> v1::GetReply {
        let found = self.values.get(key).map(|(value, version)| v1::Value {
            value: value.clone(),
            version: *version,
            partition: 0,
            timestamp_ms: 0,
            expires_at_ms: None,
            ttl_ms: None,
        });
        v1::GetReply { found, revision: self.offset }
    }
}

fn identity(operation: &Operation) -> (v1::Producer, u32) {
    match operation {
        Operation::Put(request) => (request.producer.unwrap(), request.partition.unwrap()),
        Operation::Delete(request) => (request.producer.unwrap(), request.partition.unwrap()),
        _ => unreachable!("a read has no producer"),
    }
}

/// Makes a refusal of a write.
pub(crate) fn refusal(code: ErrorCode, outcome: Outcome) -> ErrorDetail {
    let mut detail = ErrorDetail {
        code: code.name().to_owned(),
        message: format!("scripted {}", code.name()),
        ..ErrorDetail::default()
    };
    detail.set_outcome(outcome);
    detail
}

pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl kv_server::Kv for Fake {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        match self.answer(Operation::Put(request.into_inner())) {
            Reaction::Reply(exchange_reply::Result::Write(reply)) => Ok(Response::new(reply)),
            Reaction::Reply(exchange_reply::Result::Error(detail)) => {
                Err(super::errors::status_with(tonic::Code::Aborted, &detail))
            }
            _ => Err(Status::unavailable("cut")),
        }
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetReply>, Status> {
        match self.answer(Operation::Get(request.into_inner())) {
            Reaction::Reply(exchange_reply::Result::Get(reply)) => Ok(Response::new(reply)),
            _ => Err(Status::unavailable("cut")),
        }
    }

    async fn delete(
        &self,
        _request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn expire(
        &self,
        _: Request<v1::ExpireRequest>,
    ) -> Result<Response<v1::ExpireReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn multi_get(
        &self,
        _request: Request<v1::MultiGetRequest>,
    ) -> Result<Response<v1::MultiGetReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    type ExchangeStream = Replies<ExchangeReply>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut requests = request.into_inner();
        let (replies, receiver) = mpsc::channel(512);
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                fake.state().timeouts_ms.push(request.timeout_ms);
                let reply = match fake.answer(request.operation.unwrap()) {
                    Reaction::Silence => continue,
                    Reaction::Reply(result) => {
                        Ok(ExchangeReply { id: request.id, result: Some(result) })
                    }
                    Reaction::Cut => Err(Status::unavailable("cut")),
                };
                let is_cut = reply.is_err();
                if replies.send(reply).await.is_err() || is_cut {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type BatchPutStream = Replies<v1::ProduceReply>;

    async fn batch_put(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::BatchPutStream>, Status> {
        let (replies, receiver) = mpsc::channel(512);
        let fake = self.clone();
        tokio::spawn(fake.batches(request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ScanStream = Replies<v1::ScanReply>;

    async fn scan(
        &self,
        _request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let row = |key: &'static [u8]| v1::scan_reply::Row {
            key: Bytes::from_static(key),
            ..v1::scan_reply::Row::default()
        };
        let large = v1::scan_reply::Row { value: vec![1; 1 << 20].into(), ..row(b"0") };
        let large = v1::ScanReply { rows: vec![large], ..Default::default() };
        let large = vec![large; self.state().large_pages];
        let pages = match self.state().script.pop_front() {
            Some(Step::Cut) => vec![v1::ScanReply { rows: vec![row(b"a")], ..Default::default() }],
            _ => vec![
                v1::ScanReply {
                    rows: vec![row(b"a"), row(b"b")],
                    count: None,
                    revisions: vec![v1::scan_reply::ShardRevision { shard: 1, revision: 7 }],
                },
                v1::ScanReply { rows: vec![row(b"c")], count: Some(3), revisions: Vec::new() },
            ],
        };
        let received = self.received.clone();
        let pages = large.into_iter().chain(pages).inspect(move |_| {
            received.send_modify(|count| *count += 1);
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(pages.map(Ok)))))
    }
}

pub(crate) fn limits() -> v1::Limits {
    v1::Limits {
        max_key_bytes: 4096,
        max_value_bytes: 100_000,
        max_message_bytes: MESSAGE_BYTES_MAX,
        max_keyed_batch_records: 4096,
    }
}

#[tonic::async_trait]
impl admin_server::Admin for Fake {
    type BackupStream = tokio_stream::Empty<Result<v1::BackupReply, Status>>;

    async fn backup(
        &self,
        _request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn create_snapshot(
        &self,
        _request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_snapshots(
        &self,
        _request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataReply>, Status> {
        let mut state = self.state();
        state.metadata_calls += 1;
        let leader =
            if state.leader.is_empty() { self.address.clone() } else { state.leader.clone() };
        let collections = request.into_inner().collections.into_iter().map(|name| {
            let mut settings = v1::CollectionSettings {
                partitions: state.partitions,
                ..v1::CollectionSettings::default()
            };
            settings.set_partitioner(state.stream.partitioner);
            settings.set_key_index(state.stream.key_index);
            let place = |number| {
                let own = state.stream.leaders.get(&number);
                let leader_address = own.unwrap_or(&leader).clone();
                v1::PartitionPlace { number, shard: 1, leader_address }
            };
            v1::Collection {
                id: 7,
                name,
                settings: Some(settings),
                created_ms: 0,
                partitions: (0..state.partitions).map(place).collect(),
            }
        });
        Ok(Response::new(v1::MetadataReply {
            cluster_id: Bytes::from_static(&[1; 16]),
            node_id: 1,
            nodes: vec![v1::Node { id: 1, address: self.address.clone() }],
            limits: Some(limits()),
            collections: collections.collect(),
            version: "0.1.0".to_owned(),
        }))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn metrics(
        &self,
        _request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        Ok(Response::new(v1::MetricsReply { exposition: "# EOF\n".to_owned() }))
    }

    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}
