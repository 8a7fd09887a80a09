//! Every method of every service: the bytes of a request as they come behind the headers of HTTP/2.
//!
//! Asked of a node that runs, so that what a request means is done, and its answer is encoded. The node is
//! another one now and then: what was written to it does not pile up.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prkdb::node::{
    Config,
    fuzz::{Called, Served},
};
use prkdb_proto::v1::{
    self, commit_txn_request, exchange_request, position::Place, produce_request, put_request,
};
use prkdb_types::{BatchBuilder, Compression, ProducerStamp};
use prost::Message;
use tempfile::TempDir;

use super::source::{Source, text};

const KV: &[&str] = &["Put", "Get", "Delete", "MultiGet", "Exchange", "BatchPut", "Scan", "Expire"];
const STREAM: &[&str] = &["Produce", "Fetch", "ListOffsets"];
const CONTROL: &[(Called, &str)] = &[
    (Called::Collections, "List"),
    (Called::Collections, "Create"),
    (Called::Collections, "Describe"),
    (Called::Collections, "Alter"),
    (Called::Collections, "Drop"),
    (Called::Groups, "ListGroups"),
    (Called::Admin, "Metadata"),
    (Called::Admin, "Status"),
    (Called::Admin, "Metrics"),
    (Called::Admin, "Version"),
    (Called::Admin, "Backup"),
    (Called::Collections, "Truncate"),
    (Called::Txn, "Begin"),
    (Called::Txn, "Read"),
    (Called::Txn, "Scan"),
    (Called::Txn, "Commit"),
    (Called::Txn, "Rollback"),
    (Called::Admin, "CreateSnapshot"),
    (Called::Admin, "ListSnapshots"),
];

/// An answer that takes longer is not waited for: one that follows has no end.
const PATIENCE: Duration = Duration::from_millis(5);
/// So many calls, and so many partitions, and the node is replaced.
const CALLS_MAX: u32 = 4000;
const PARTITIONS_MAX: u32 = 2000;

/// A flag: the body as it is, and not message by message.
const RAW: u8 = 1;
/// A flag: with a deadline.
const TIMED: u8 = 2;
/// A flag: messages say that they are compressed.
const COMPRESSED: u8 = 4;

struct Running {
    served: Served,
    calls: u32,
    // Gone after the node.
    _dir: TempDir,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

fn start() -> Running {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let config = Config {
        segment_bytes: 1 << 20,
        checkpoint_bytes: 256 << 10,
        max_value: 64 << 10,
        max_message: (64 << 10) + (1 << 20),
        ..Config::new(dir.path().join("data"), 1 << 28)
    };
    let served = Served::start(config).expect("a new directory is opened");
    let running = Running { served, calls: 0, _dir: dir };
    for (name, key_index) in [("k", v1::KeyIndex::On), ("e", v1::KeyIndex::Off)] {
        let settings = v1::CollectionSettings {
            partitions: 2,
            key_index: key_index.into(),
            ..v1::CollectionSettings::default()
        };
        let create =
            v1::CreateCollectionRequest { name: name.to_owned(), settings: Some(settings) };
        let patience = Duration::from_secs(20);
        let body = framed(&create.encode_to_vec(), 0);
        let created =
            running.served.call(Called::Collections, "Create", &[], body.into(), patience);
        assert_eq!(created.expect("the node goes on").1, Some(0), "a collection is created");
    }
    running
}

fn framed(message: &[u8], compressed: u8) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[compressed][..], &len.to_be_bytes(), message].concat()
}

fn call(called: Called, method: &str, source: &mut Source<'_>) {
    let flags = source.byte();
    let timeout = if flags & TIMED != 0 { text(source.piece()) } else { "" };
    let timeout: String = timeout.chars().filter(char::is_ascii_graphic).collect();
    let headers = [("grpc-timeout", timeout.as_str())];
    let headers = if timeout.is_empty() { &[][..] } else { &headers[..] };
    let body = if flags & RAW != 0 {
        source.rest().to_vec()
    } else {
        let mut body = Vec::new();
        while !source.is_empty() {
            body.extend_from_slice(&framed(source.part(), u8::from(flags & COMPRESSED != 0)));
        }
        body
    };
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let one = running.get_or_insert_with(start);
    let answered = one.served.call(called, method, headers, Bytes::from(body), PATIENCE);
    let (_, code) = answered.expect("no request ends a node");
    if let Some(code) = code {
        // No code of ours is "unknown".
        assert!((0..=16).contains(&code) && code != 2, "{method} is answered with {code}");
    }
    one.calls += 1;
    if one.calls > CALLS_MAX || one.served.partitions() > PARTITIONS_MAX {
        *running = None;
    }
}

/// `Kv`.
pub fn kv(data: &[u8]) {
    let mut source = Source::new(data);
    let method = KV[usize::from(source.byte()) % KV.len()];
    call(Called::Kv, method, &mut source);
}

/// `Stream`.
pub fn stream(data: &[u8]) {
    let mut source = Source::new(data);
    let method = STREAM[usize::from(source.byte()) % STREAM.len()];
    call(Called::Stream, method, &mut source);
}

/// `Collections`, `Groups`, `Admin` and `Txn`.
pub fn control(data: &[u8]) {
    let mut source = Source::new(data);
    let (called, method) = CONTROL[usize::from(source.byte()) % CONTROL.len()];
    call(called, method, &mut source);
}

/// A method, flags, and messages.
fn seed(method: u8, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut seed = vec![method, 0];
    for message in messages {
        seed.extend_from_slice(&u16::try_from(message.len()).unwrap_or_default().to_le_bytes());
        seed.extend_from_slice(message);
    }
    seed
}

fn batch(key: Option<&[u8]>) -> Bytes {
    let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 0 };
    let mut builder = BatchBuilder::new(stamp, Compression::None);
    builder.push(7, key, Some(b"value"), &[("h", b"v")]).expect("it fits");
    builder.finish_bytes().expect("it holds a record")
}

fn batches(collection: &str, batch: Bytes) -> [Vec<u8>; 2] {
    let open = produce_request::Open { collection: collection.to_owned(), collection_id: 0 };
    let batch = produce_request::Batch { id: 1, partition: 0, batch };
    [produce_request::Message::Open(open), produce_request::Message::Batch(batch)]
        .map(|message| v1::ProduceRequest { message: Some(message) }.encode_to_vec())
}

fn put() -> v1::PutRequest {
    v1::PutRequest {
        collection: "k".to_owned(),
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(b"value"),
        timestamp_ms: 7,
        producer: Some(v1::Producer { id: 5, epoch: 0, sequence: 0 }),
        condition: Some(put_request::Condition::IfAbsent(true)),
        want_previous: true,
        ..v1::PutRequest::default()
    }
}

/// Each method once.
pub fn kv_seeds() -> Vec<Vec<u8>> {
    let get = v1::GetRequest {
        collection: "k".to_owned(),
        key: Bytes::from_static(b"a"),
        ..v1::GetRequest::default()
    };
    let delete = v1::DeleteRequest {
        collection: "k".to_owned(),
        key: Bytes::from_static(b"a"),
        ..v1::DeleteRequest::default()
    };
    let many = v1::MultiGetRequest {
        collection: "k".to_owned(),
        keys: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
        ..v1::MultiGetRequest::default()
    };
    let scan = v1::ScanRequest {
        collection: "k".to_owned(),
        prefix: Bytes::from_static(b"a"),
        limit: 3,
        reverse: true,
        ..v1::ScanRequest::default()
    };
    let exchange = |id, operation| {
        v1::ExchangeRequest { id, operation: Some(operation), ..v1::ExchangeRequest::default() }
            .encode_to_vec()
    };
    let both = [
        exchange(1, exchange_request::Operation::Put(put())),
        exchange(2, exchange_request::Operation::Get(get.clone())),
        exchange(3, exchange_request::Operation::MultiGet(many.clone())),
        exchange(4, exchange_request::Operation::Delete(delete.clone())),
    ];
    let timed =
        [vec![0, TIMED, 3], b"50m".to_vec(), seed(0, &[put().encode_to_vec()])[2..].to_vec()];
    vec![
        seed(0, &[put().encode_to_vec()]),
        seed(1, &[get.encode_to_vec()]),
        seed(2, &[delete.encode_to_vec()]),
        seed(3, &[many.encode_to_vec()]),
        seed(4, &both),
        seed(5, &batches("k", batch(Some(b"a")))),
        seed(6, &[scan.encode_to_vec()]),
        timed.concat(),
    ]
}

/// Each method once.
pub fn stream_seeds() -> Vec<Vec<u8>> {
    let position = |place| Some(v1::Position { place: Some(place) });
    let fetch = v1::FetchRequest {
        collection: "e".to_owned(),
        starts: vec![v1::fetch_request::Start {
            partition: 0,
            from: position(Place::Earliest(true)),
        }],
        max_wait_ms: Some(1),
        ..v1::FetchRequest::default()
    };
    let items = [Place::Latest(true), Place::TimestampMs(7), Place::Offset(0)];
    let items = items
        .map(|place| v1::list_offsets_request::Item { partition: 0, position: position(place) });
    let list = v1::ListOffsetsRequest { collection: "e".to_owned(), items: items.into() };
    vec![
        seed(0, &batches("e", batch(None))),
        seed(0, &batches("k", batch(Some(b"a")))),
        seed(1, &[fetch.encode_to_vec()]),
        seed(2, &[list.encode_to_vec()]),
    ]
}

/// Each method once.
pub fn control_seeds() -> Vec<Vec<u8>> {
    let name = "new".to_owned();
    let create = v1::CreateCollectionRequest {
        name: name.clone(),
        settings: Some(v1::CollectionSettings {
            partitions: 2,
            ..v1::CollectionSettings::default()
        }),
    };
    let alter = v1::AlterCollectionRequest {
        name: name.clone(),
        partitions: Some(3),
        ttl_ms: Some(7),
        ..v1::AlterCollectionRequest::default()
    };
    let metadata = v1::MetadataRequest { collections: vec!["k".to_owned()] };
    vec![
        seed(0, &[v1::ListCollectionsRequest { internal: true }.encode_to_vec()]),
        seed(1, &[create.encode_to_vec()]),
        seed(2, &[v1::DescribeCollectionRequest { name: "k".to_owned() }.encode_to_vec()]),
        seed(3, &[alter.encode_to_vec()]),
        seed(4, &[v1::DropCollectionRequest { name }.encode_to_vec()]),
        seed(5, &[Vec::new()]),
        seed(6, &[metadata.encode_to_vec()]),
        seed(7, &[Vec::new()]),
        seed(8, &[Vec::new()]),
        seed(9, &[Vec::new()]),
        seed(10, &[Vec::new()]),
        seed(
            11,
            &[v1::BeginTxnRequest { collection: "k".to_owned(), key: Bytes::from_static(b"a") }
                .encode_to_vec()],
        ),
        seed(
            12,
            &[v1::ReadTxnRequest {
                snapshot: 7,
                collection: "k".to_owned(),
                keys: vec![Bytes::from_static(b"a")],
            }
            .encode_to_vec()],
        ),
        seed(
            13,
            &[v1::ScanTxnRequest {
                snapshot: 7,
                collection: "k".to_owned(),
                range: Some(v1::KeyRange::default()),
                reverse: true,
                limit: 3,
            }
            .encode_to_vec()],
        ),
        seed(14, &[commit().encode_to_vec()]),
        seed(15, &[v1::RollbackTxnRequest { snapshot: 7 }.encode_to_vec()]),
    ]
}

fn commit() -> v1::CommitTxnRequest {
    let change = commit_txn_request::Change {
        key: Bytes::from_static(b"a"),
        value: Some(Bytes::from_static(b"value")),
    };
    let part = commit_txn_request::Part {
        collection: "k".to_owned(),
        changes: vec![change],
        reads: vec![Bytes::from_static(b"b")],
        ranges: vec![v1::KeyRange::default()],
        sequences: vec![commit_txn_request::Sequence { partition: 0, sequence: 0 }],
    };
    v1::CommitTxnRequest {
        snapshot: 0,
        isolation: v1::Isolation::Serializable.into(),
        parts: vec![part],
        timestamp_ms: 7,
        producer: Some(v1::Producer { id: 5, epoch: 0, sequence: 0 }),
    }
}
