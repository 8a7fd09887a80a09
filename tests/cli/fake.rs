//! A node in memory: enough of the protocol to see what commands send, and to fail at will.

mod admin;
mod stream;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use prkdb_proto::v1::{
    self, admin_server, collections_server, exchange_reply::Result as Answer,
    exchange_request::Operation, groups_server, kv_server, produce_reply as reply,
    produce_request as request, put_request::Condition, scan_reply::Row, stream_server,
};
use prkdb_types::{Batch, DecompressLimit, PartitionTable, Partitioner};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::support::{Home, Said, said};

pub(crate) const PARTITIONS: u32 = 3;

/// What the node holds.
#[derive(Default)]
pub(crate) struct State {
    /// Values and versions by key.
    pub(crate) keys: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    /// Collections by name.
    pub(crate) collections: BTreeMap<String, v1::Collection>,
    /// Records by partition, in the order of their offsets.
    pub(crate) events: BTreeMap<u32, Vec<Event>>,
    /// Consumer groups, in no order.
    pub(crate) groups: Vec<v1::Group>,
    /// Next sequence and the batches seen with their offsets, by producer and partition.
    producers: BTreeMap<(i64, u32), (i32, BTreeMap<i32, (Bytes, u64)>)>,
    /// Batches that were applied.
    pub(crate) applied: u64,
    /// Batches that came again.
    pub(crate) duplicates: u64,
    /// Batches to apply before everything fails; `None` = all.
    pub(crate) fails_after: Option<u64>,
    /// The answer to a batch is lost once it is applied.
    pub(crate) loses_last_answer: bool,
    /// A key of which no value may be deleted.
    pub(crate) kept: Option<Vec<u8>>,
    /// Operations are done and never answered.
    pub(crate) is_silent: bool,
    /// Requests that change something.
    pub(crate) writes: u64,
    next_offset: u64,
    address: String,
}

/// A record of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// The node.
pub(crate) struct Fake {
    pub(crate) home: Home,
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            Arc::new(Mutex::new(State { address: address.to_string(), ..State::default() }));
        state.lock().unwrap().create("default");
        let service = Service(Arc::clone(&state));
        runtime.spawn(
            Server::builder()
                .add_service(admin_server::AdminServer::new(service.clone()))
                .add_service(collections_server::CollectionsServer::new(service.clone()))
                .add_service(stream_server::StreamServer::new(service.clone()))
                .add_service(groups_server::GroupsServer::new(service.clone()))
                .add_service(
                    kv_server::KvServer::new(service)
                        .max_decoding_message_size(8 << 20)
                        .max_encoding_message_size(8 << 20),
                )
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Self { home: Home::new(), address, state, _runtime: runtime }
    }

    /// Prepares a command against the node.
    pub(crate) fn command(&self, line: &str) -> assert_cmd::Command {
        let mut command = self.home.command(line.split_whitespace());
        command.env("PRKDB_SERVER", self.address.to_string()).env("PRKDB_RETRIES", "0");
        command
    }

    /// Runs a command whose arguments have no spaces.
    pub(crate) fn run(&self, line: &str) -> Said {
        said(&mut self.command(line))
    }

    /// Writes a file into the directory that commands run in.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.home.dir.path().join(name), bytes).unwrap();
    }

    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().keys.get(key.as_bytes()).map(|(value, _)| value.clone())
    }
}

impl State {
    fn create(&mut self, name: &str) -> v1::Collection {
        let mut settings =
            v1::CollectionSettings { partitions: PARTITIONS, ..v1::CollectionSettings::default() };
        settings.set_partitioner(v1::Partitioner::Ring);
        settings.set_durability(v1::Durability::Sync);
        let place =
            |number| v1::PartitionPlace { number, shard: 1, leader_address: self.address.clone() };
        let collection = v1::Collection {
            id: u32::try_from(self.collections.len()).unwrap() + 1,
            name: name.to_owned(),
            settings: Some(settings),
            created_ms: 0,
            partitions: (0..PARTITIONS).map(place).collect(),
        };
        self.collections.insert(name.to_owned(), collection.clone());
        collection
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> v1::WriteReply {
        let offset = self.next_offset;
        self.next_offset += 1;
        let before = match value {
            Some(value) => self.keys.insert(key.to_vec(), (value.to_vec(), offset)),
            None => self.keys.remove(key),
        };
        v1::WriteReply {
            partition: PartitionTable::shared(Partitioner::Ring, PARTITIONS).partition(key),
            offset,
            existed: before.is_some(),
            previous: before.map(|(value, _)| value.into()),
            ..v1::WriteReply::default()
        }
    }

    fn get(&self, key: &[u8]) -> v1::GetReply {
        let found = self.keys.get(key).map(|(value, version)| v1::Value {
            value: value.clone().into(),
            version: *version,
            partition: 0,
            timestamp_ms: 0,
            expires_at_ms: None,
            ttl_ms: None,
        });
        v1::GetReply { found, revision: 1 }
    }

    fn operate(&mut self, operation: Operation) -> Answer {
        match operation {
            Operation::Put(put) => {
                let version = self.keys.get(put.key.as_ref()).map(|(_, version)| *version);
                let holds = match put.condition {
                    None => true,
                    Some(Condition::IfAbsent(_)) => version.is_none(),
                    Some(Condition::IfVersion(wanted)) => version == Some(wanted),
                };
                if !holds {
                    return Answer::Error(error("version_mismatch", "the key has another version"));
                }
                self.writes += 1;
                Answer::Write(self.put(&put.key, Some(&put.value)))
            }
            Operation::Delete(delete) if self.kept.as_deref() == Some(&delete.key) => {
                Answer::Error(error("disk_full", "no room"))
            }
            Operation::Delete(delete) => {
                self.writes += 1;
                Answer::Write(self.put(&delete.key, None))
            }
            Operation::Get(get) => Answer::Get(self.get(&get.key)),
            Operation::MultiGet(get) => Answer::MultiGet(v1::MultiGetReply {
                replies: get.keys.iter().map(|key| self.get(key)).collect(),
            }),
        }
    }

    /// Applies a batch as a node does: once, in order, the same bytes under the same sequence.
    fn apply(&mut self, batch: &request::Batch) -> Result<Option<reply::Ack>, Status> {
        if self.fails_after == Some(0) {
            return Err(Status::unavailable("the node is gone"));
        }
        let parsed = Batch::parse(batch.batch.clone()).unwrap();
        parsed.verify_crc().unwrap();
        let header = parsed.header();
        let ack = reply::Ack { id: batch.id, partition: batch.partition, ..reply::Ack::default() };
        let (next, seen) = self.producers.entry((header.producer_id, batch.partition)).or_default();
        if header.base_sequence < *next {
            let (before, base_offset) =
                seen.get(&header.base_sequence).expect("a repeat begins where a batch began");
            assert_eq!(before, &batch.batch, "a repeat is the same bytes");
            self.duplicates += 1;
            return Ok(Some(reply::Ack { duplicate: true, base_offset: *base_offset, ..ack }));
        }
        assert_eq!(header.base_sequence, *next, "no gap");
        *next += i32::try_from(header.record_count()).unwrap();
        let base_offset =
            u64::try_from(self.events.entry(batch.partition).or_default().len()).unwrap();
        seen.insert(header.base_sequence, (batch.batch.clone(), base_offset));
        let table = PartitionTable::shared(Partitioner::Ring, PARTITIONS);
        for record in &parsed.records(DecompressLimit::new(8 << 20)).unwrap() {
            let record = record.unwrap();
            if let Some(key) = record.key {
                assert_eq!(table.partition(key), batch.partition);
                self.put(key, record.value);
            }
            let headers = record.headers();
            let event = Event {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp_ms: record.timestamp_ms,
                headers: headers.map(|(k, v)| (k.to_owned(), v.unwrap().to_vec())).collect(),
            };
            self.events.entry(batch.partition).or_default().push(event);
        }
        self.applied += 1;
        self.writes += 1;
        if let Some(left) = &mut self.fails_after {
            *left -= 1;
            if *left == 0 && self.loses_last_answer {
                return Ok(None);
            }
        }
        Ok(Some(reply::Ack { base_offset, ..ack }))
    }
}

fn error(code: &str, message: &str) -> v1::ErrorDetail {
    v1::ErrorDetail {
        code: code.to_owned(),
        message: message.to_owned(),
        ..v1::ErrorDetail::default()
    }
}

fn limits() -> v1::Limits {
    v1::Limits {
        max_key_bytes: 4096,
        max_value_bytes: 1 << 20,
        max_message_bytes: 8 << 20,
        max_keyed_batch_records: 4096,
    }
}

#[tonic::async_trait]
impl collections_server::Collections for Service {
    async fn list(
        &self,
        _: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsReply>, Status> {
        let state = self.0.lock().unwrap();
        let one = |collection: &v1::Collection| v1::CollectionState {
            collection: Some(collection.clone()),
            ..v1::CollectionState::default()
        };
        // Not in the order of their names.
        let collections = state.collections.values().rev().map(one).collect();
        Ok(Response::new(v1::ListCollectionsReply { collections }))
    }

    async fn create(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionReply>, Status> {
        let mut state = self.0.lock().unwrap();
        let name = request.into_inner().name;
        let known = state.collections.get(&name).cloned();
        let changed = known.is_none();
        let collection = known.unwrap_or_else(|| state.create(&name));
        state.writes += 1;
        Ok(Response::new(v1::CreateCollectionReply { collection: Some(collection), changed }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeCollectionRequest>,
    ) -> Result<Response<v1::DescribeCollectionReply>, Status> {
        let state = self.0.lock().unwrap();
        let collection = state.collections.get(&request.into_inner().name).cloned();
        let collection = collection.ok_or_else(|| Status::not_found("no such collection"))?;
        let place = |place: &v1::PartitionPlace| v1::PartitionState {
            place: Some(place.clone()),
            leader_node: 1,
            ..v1::PartitionState::default()
        };
        let partitions = collection.partitions.iter().map(place).collect();
        let state = v1::CollectionState { collection: Some(collection), partitions, keys: 0 };
        Ok(Response::new(v1::DescribeCollectionReply { state: Some(state) }))
    }

    async fn alter(
        &self,
        request: Request<v1::AlterCollectionRequest>,
    ) -> Result<Response<v1::AlterCollectionReply>, Status> {
        let mut state = self.0.lock().unwrap();
        let request = request.into_inner();
        let collection = state.collections.get_mut(&request.name);
        let collection = collection.ok_or_else(|| Status::not_found("no such collection"))?;
        let settings = collection.settings.as_mut().unwrap();
        let changed = request.partitions.is_some_and(|count| count != settings.partitions);
        settings.partitions = request.partitions.unwrap_or(settings.partitions);
        let collection = Some(collection.clone());
        state.writes += 1;
        Ok(Response::new(v1::AlterCollectionReply { collection, changed }))
    }

    async fn truncate(
        &self,
        _: Request<v1::TruncateCollectionRequest>,
    ) -> Result<Response<v1::TruncateCollectionReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn drop(
        &self,
        request: Request<v1::DropCollectionRequest>,
    ) -> Result<Response<v1::DropCollectionReply>, Status> {
        let mut state = self.0.lock().unwrap();
        state.writes += 1;
        match state.collections.remove(&request.into_inner().name) {
            Some(_) => Ok(Response::new(v1::DropCollectionReply {})),
            None => Err(Status::not_found("no such collection")),
        }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl kv_server::Kv for Service {
    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::WriteReply>, Status> {
        Err(Status::unimplemented("only over the stream"))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetReply>, Status> {
        Err(Status::unimplemented("only over the stream"))
    }

    async fn delete(
        &self,
        _: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        Err(Status::unimplemented("only over the stream"))
    }

    async fn expire(
        &self,
        _: Request<v1::ExpireRequest>,
    ) -> Result<Response<v1::ExpireReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn multi_get(
        &self,
        _: Request<v1::MultiGetRequest>,
    ) -> Result<Response<v1::MultiGetReply>, Status> {
        Err(Status::unimplemented("only over the stream"))
    }

    type ExchangeStream = Replies<v1::ExchangeReply>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let state = Arc::clone(&self.0);
        let replies = request.into_inner().filter_map(move |request| {
            let request = match request {
                Ok(request) => request,
                Err(status) => return Some(Err(status)),
            };
            let mut state = state.lock().unwrap();
            let answer = state.operate(request.operation.unwrap());
            let reply = v1::ExchangeReply { id: request.id, result: Some(answer) };
            (!state.is_silent).then_some(Ok(reply))
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type BatchPutStream = Replies<v1::ProduceReply>;

    async fn batch_put(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::BatchPutStream>, Status> {
        Ok(stream::batches(&self.0, request))
    }

    type ScanStream = Replies<v1::ScanReply>;

    async fn scan(
        &self,
        request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let scan = request.into_inner();
        let state = self.0.lock().unwrap();
        let is_wanted = |key: &&Vec<u8>| {
            key.starts_with(&scan.prefix)
                && key.as_slice() >= scan.from.as_ref()
                && (scan.to.is_empty() || key.as_slice() < scan.to.as_ref())
        };
        let rows: Vec<Row> = state
            .keys
            .iter()
            .filter(|(key, _)| is_wanted(key))
            .map(|(key, (value, version))| Row {
                key: key.clone().into(),
                value: if scan.keys_only { Bytes::new() } else { value.clone().into() },
                version: *version,
                partition: 0,
                timestamp_ms: 0,
                ..Row::default()
            })
            .collect();
        let count = u64::try_from(rows.len()).unwrap();
        let rows = if scan.count_only { Vec::new() } else { rows };
        let revisions = vec![v1::scan_reply::ShardRevision { shard: 1, revision: 1 }];
        let only = v1::ScanReply { rows, count: Some(count), revisions };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(only)]))))
    }
}
