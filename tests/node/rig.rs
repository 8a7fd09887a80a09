//! Nodes for tests, each in a process of its own: this very binary, started again as a node.
//!
//! So a test can signal and kill its node, and sees the exit code a supervisor would see.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use prkdb::node::{self, Config, config::HttpListen};
use prkdb_proto::{
    RpcStatus,
    v1::{
        DeleteRequest, DescribeCollectionRequest, ErrorDetail, GetRequest, Outcome, PutRequest,
        admin_client::AdminClient, collections_client::CollectionsClient,
        groups_client::GroupsClient, kv_client::KvClient, stream_client::StreamClient,
        txn_client::TxnClient,
    },
};
use prkdb_types::{PartitionTable, Partitioner};
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// What the process of a node is told, as JSON in the environment.
const SETTINGS: &str = "PRKDB_TEST_NODE";
/// A node that has not answered or ended by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Begins the line that says that the node is ready.
const READY: &str = "the node is ready at ";

/// What a test may change of a node's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) node_id: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) allow_insecure: bool,
    pub(crate) shards: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) index_memory: u64,
    pub(crate) max_connections: usize,
    pub(crate) shutdown_timeout: Duration,
}

impl Settings {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir: dir.join("data"),
            node_id: 1,
            listen: any,
            http: Some(any),
            allow_insecure: false,
            shards: 1,
            segment_bytes: 16 << 20,
            checkpoint_bytes: 256 << 20,
            index_memory: 256 << 20,
            max_connections: 64,
            shutdown_timeout: Duration::from_secs(20),
        }
    }

    fn to_config(&self) -> Config {
        Config {
            node_id: self.node_id,
            listen: self.listen,
            http: self.http.map_or(HttpListen::Off, HttpListen::At),
            allow_insecure: self.allow_insecure,
            shards: self.shards,
            segment_bytes: self.segment_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            index_memory: self.index_memory,
            max_connections: self.max_connections,
            shutdown_timeout: self.shutdown_timeout,
            ..Config::new(self.data_dir.clone(), 1 << 30)
        }
    }
}

/// Proves nothing: it is the node of the other tests, where this binary is started as one.
#[test]
#[expect(clippy::exit, reason = "the exit code is what the other tests look at")]
fn is_a_node_when_started_as_one() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Settings = serde_json::from_str(&settings).unwrap();
    let ended = node::run(
        settings.to_config(),
        node::Process::new(|ready| {
            let http = ready.http.map_or_else(|| "none".to_owned(), |at| at.to_string());
            writeln!(std::io::stdout(), "\n{READY}{} {http}", ready.grpc)
        }),
    );
    let code = match ended {
        Ok(_) => 0,
        Err(error) => {
            writeln!(std::io::stderr(), "{error}\n{}", error.hint()).unwrap();
            error.exit_code()
        }
    };
    std::process::exit(code.into());
}

/// How a node's process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// A process that may be a node one day.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn spawn(settings: &Settings) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["rig::is_a_node_when_started_as_one", "--exact", "--nocapture"])
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Waits for the line that says where it listens; `None` if it ended before.
    fn ready(&mut self) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap() > 0 {
            if let Some((grpc, http)) =
                line.trim().strip_prefix(READY).and_then(|at| at.split_once(' '))
            {
                return Some((grpc.parse().unwrap(), http.parse().ok()));
            }
            line.clear();
        }
        None
    }

    fn wait(&mut self) -> Ended {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves no node behind. One that has ended cannot be killed: so what.
        let _dead = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// A node that is ready, and its directory.
pub(crate) struct Rig {
    process: Process,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) settings: Settings,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    channel: Channel,
}

impl Rig {
    /// A node in a new directory.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A node in a new directory, with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = Settings::in_dir(dir.path());
        change(&mut settings);
        Self::open(dir, settings).await
    }

    /// A node in a directory that is there.
    pub(crate) async fn open(dir: Arc<TempDir>, settings: Settings) -> Self {
        match Self::try_open(Arc::clone(&dir), settings).await {
            Ok(rig) => rig,
            Err(ended) => panic!("the node ended before it was ready: {ended:?}"),
        }
    }

    /// As [`Rig::open`], for a node that may refuse.
    pub(crate) async fn try_open(dir: Arc<TempDir>, settings: Settings) -> Result<Self, Ended> {
        let begun = settings.clone();
        let (process, ready) = tokio::task::spawn_blocking(move || {
            let mut process = Process::spawn(&begun);
            match process.ready() {
                Some(ready) => Ok((process, ready)),
                None => Err(process.wait()),
            }
        })
        .await
        .unwrap()?;
        let (grpc, http) = ready;
        let channel = connect(grpc).await;
        Ok(Self { process, dir, settings, grpc, http, channel })
    }

    /// Asks it to stop, and waits until it has stopped well.
    pub(crate) async fn stop(self) -> Stopped {
        let (ended, stopped) = self.end(Signal::TERM).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        stopped
    }

    /// Kills it.
    pub(crate) async fn kill(self) -> Stopped {
        let (ended, stopped) = self.end(Signal::KILL).await;
        assert_eq!(ended.code, None);
        stopped
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn end(self, signal: Signal) -> (Ended, Stopped) {
        self.signal(signal);
        self.ended().await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(self) -> (Ended, Stopped) {
        let Self { mut process, dir, settings, channel, .. } = self;
        let pid = Pid::from_child(&process.child);
        // The channel lives on: the node must end although a client is connected.
        let mut waiting = tokio::task::spawn_blocking(move || process.wait());
        let ended = match tokio::time::timeout(PATIENCE, &mut waiting).await {
            Ok(ended) => ended.unwrap(),
            Err(_) => {
                kill_process(pid, Signal::KILL).unwrap();
                panic!("the node does not end: {:?}", waiting.await.unwrap());
            }
        };
        drop(channel);
        (ended, Stopped { dir, settings })
    }

    /// Another connection.
    pub(crate) async fn channel(&self) -> Channel {
        connect(self.grpc).await
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(256 << 20)
    }

    pub(crate) fn streams(&self) -> StreamClient<Channel> {
        StreamClient::new(self.channel.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(256 << 20)
    }

    pub(crate) fn transactions(&self) -> TxnClient<Channel> {
        TxnClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
    }

    pub(crate) fn collections(&self) -> CollectionsClient<Channel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// The directory of its data.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    /// The offsets that the next records of a collection's partitions get, by number.
    pub(crate) async fn log_ends(&self, name: &str) -> Vec<u64> {
        let request = DescribeCollectionRequest { name: name.to_owned() };
        let reply = self.collections().describe(request).await.unwrap().into_inner();
        let partitions = reply.state.unwrap().partitions;
        partitions.iter().map(|partition| partition.log_end).collect()
    }
}

/// The directory of a node that has ended.
pub(crate) struct Stopped {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) settings: Settings,
}

impl Stopped {
    /// Starts it again.
    pub(crate) async fn start(self) -> Rig {
        Rig::open(self.dir, self.settings).await
    }
}

async fn connect(at: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{at}"))
        .unwrap()
        .initial_connection_window_size(16 << 20)
        .initial_stream_window_size(16 << 20)
        .timeout(PATIENCE)
        .connect()
        .await
        .unwrap()
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        collection: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..PutRequest::default()
    }
}

pub(crate) fn get(key: &str) -> GetRequest {
    GetRequest {
        collection: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        ..GetRequest::default()
    }
}

pub(crate) fn delete(key: &str) -> DeleteRequest {
    DeleteRequest {
        collection: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        ..DeleteRequest::default()
    }
}

/// The number of a key's partition on a ring.
pub(crate) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    PartitionTable::shared(Partitioner::Ring, partitions).partition(key)
}

/// Keys of one partition of a ring: `count` of them, without the first `skip`.
pub(crate) fn keys_of(partition: u32, partitions: u32, skip: usize, count: usize) -> Vec<String> {
    let table = PartitionTable::shared(Partitioner::Ring, partitions);
    (0_u32..)
        .map(|number| format!("key-{number}"))
        .filter(|key| table.partition(key.as_bytes()) == partition)
        .skip(skip)
        .take(count)
        .collect()
}

/// The outcome of a write that was not and will not be applied.
pub(crate) const NOT_APPLIED: i32 = Outcome::NotApplied as i32;

/// The detail that travels with every refusal.
pub(crate) fn detail(status: &Status) -> ErrorDetail {
    let carried = RpcStatus::decode(status.details()).unwrap();
    assert_eq!(carried.code, i32::from(status.code()));
    let any = carried.details.first().unwrap_or_else(|| panic!("{status:?} has no detail"));
    assert_eq!(any.type_url, "type.googleapis.com/prkdb.v1.ErrorDetail");
    ErrorDetail::decode(any.value.as_slice()).unwrap()
}

/// Checks code and detail of a refusal: nothing was applied, and a person is told why.
#[track_caller]
pub(crate) fn refused(status: &Status, code: Code, name: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let detail = detail(status);
    assert_eq!(detail.code, name, "{detail:?}");
    assert_ne!(detail.outcome, Outcome::Unknown as i32, "{detail:?}");
    assert!(!detail.message.is_empty(), "{detail:?}");
}
