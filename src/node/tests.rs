//! Shards behind real consensus on one machine, without services.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use prkdb_types::{
    ErrorCode, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
};
use tokio::runtime::{Builder, Runtime};

use super::{
    boot::{self, Booted},
    core::{Phase, Submission},
    outcome::Reply,
    proposer::queue::Flow,
    raft::ProposalEnd,
    *,
};
use crate::storage::{
    clock::{Clock, SystemClock},
    log::entry::Write,
    sequencer::{Condition, WriteRequest},
};

struct Running {
    node: Arc<Node>,
    booted: Booted,
    runtime: Runtime,
}

/// Returns a node whose shards are not opened yet, and the lock of its directory.
pub(super) fn unbooted(dir: &Path) -> (Arc<Node>, Arc<crate::storage::dir::DataDir>) {
    let config = Config { segment_bytes: 1 << 20, ..Config::new(dir.join("data"), 1 << 30) };
    let clock = Arc::new(SystemClock::new());
    let directory = Arc::new(boot::try_open_directory(&config, clock.as_ref()).unwrap());
    let (advertised, started) = ("127.0.0.1:0".to_owned(), clock.monotonic());
    let node = Arc::new(Node::new(config, &directory, advertised, clock, started));
    (node, directory)
}

impl Running {
    fn start(dir: &Path) -> Self {
        let (node, directory) = unbooted(dir);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let opened = boot::open_shards(&node, &directory).unwrap();
        let fatal = fatal::Fatal::default();
        let handle = runtime.handle().clone();
        let booted =
            runtime.block_on(boot::start(&node, &directory, opened, &handle, &fatal)).unwrap();
        node.enter(Phase::Serving);
        Self { node, booted, runtime }
    }

    fn write(&self, request: WriteRequest) -> Result<outcome::Written, outcome::Failure> {
        self.runtime.block_on(self.node.write(1, request, None))
    }

    fn stop(self) {
        self.runtime.block_on(self.booted.stop());
    }
}

fn host_partition() -> WriteRequest {
    let put = PartitionPut {
        partition: 1,
        collection: 1,
        number: 0,
        key_index: true,
        ..PartitionPut::default()
    };
    let change = Some(ShardChange::PartitionPut(put));
    let commands = vec![ShardCommand { id: 1, version: 1, change }];
    WriteRequest::Control { commands, timestamp_ms: 0 }
}

fn put(key: &'static [u8], value: &'static [u8], sequence: i32) -> WriteRequest {
    WriteRequest::Put {
        partition: 1,
        collection: 1,
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
        timestamp_ms: 7,
        producer: Some(ProducerStamp { id: 5, epoch: 0, base_sequence: sequence }),
        condition: Condition::None,
        ttl: None,
        headers: Vec::new(),
    }
}

#[test]
fn what_is_acknowledged_is_there_after_a_restart_and_a_repeat_gets_the_first_answer() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.write(host_partition()).unwrap();
    let first = running.write(put(b"k", b"v", 0)).unwrap();
    assert_eq!((first.base_offset, first.kind), (0, outcome::WrittenKind::Appended));
    let second = running.write(put(b"k", b"w", 1)).unwrap();
    assert_eq!(second.base_offset, 1);
    assert_eq!(second.replaced.map(|leaf| leaf.version), Some(0));
    running.stop();

    let running = Running::start(dir.path());
    let shard = &running.node.shards()[1].shard;
    assert_eq!(shard.get(1, b"k").unwrap().unwrap().value, &b"w"[..]);
    let again = running.write(put(b"k", b"v", 0)).unwrap();
    assert_eq!((again.base_offset, again.kind), (0, outcome::WrittenKind::Duplicate));
    assert_eq!(again.revision, first.revision);
    let gap = running.write(put(b"k", b"x", 9)).unwrap_err();
    assert_eq!(gap.code, ErrorCode::OutOfOrder);
    running.stop();
}

#[test]
fn concurrent_writers_are_gathered_and_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.write(host_partition()).unwrap();
    let node = Arc::clone(&running.node);
    let offsets = running.runtime.block_on(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..200u64 {
            let node = Arc::clone(&node);
            tasks.spawn(async move {
                let request = WriteRequest::Put {
                    partition: 1,
                    collection: 1,
                    key: Bytes::from(format!("key-{writer}")),
                    value: Bytes::from(vec![1; 100]),
                    timestamp_ms: 7,
                    producer: None,
                    condition: Condition::IfAbsent,
                    ttl: None,
                    headers: Vec::new(),
                };
                node.write(1, request, None).await.unwrap().base_offset
            });
        }
        let mut offsets = tasks.join_all().await;
        offsets.sort_unstable();
        offsets
    });
    assert_eq!(offsets, (0..200).collect::<Vec<u64>>());
    assert_eq!(running.node.shards()[1].shard.keys(1), 200);
    running.stop();
}

#[test]
fn after_a_void_entry_the_chain_goes_on_in_the_same_term() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.write(host_partition()).unwrap();
    running.write(put(b"k", b"1", 0)).unwrap();
    let shard = &running.node.shards()[1];
    let term = shard.term();
    // Takes the number that the sequencer gives next: the sequencer's entry will be void.
    let write = Arc::new(Write {
        sequencer_term: term,
        sequence: shard.shard.last_sequence(term) + 1,
        append_time_ms: 0,
        frames: Vec::new(),
    });
    let (ended, end) = std::sync::mpsc::channel();
    let end_of_write = Box::new(move |end| ended.send(end).unwrap());
    running.runtime.block_on(shard.group.propose(term, write, end_of_write));
    assert!(matches!(end.recv().unwrap(), ProposalEnd::Applied(applied) if !applied.is_void));

    let refused = running.write(put(b"k", b"2", 1)).unwrap_err();
    assert_eq!(
        (refused.code, refused.outcome),
        (ErrorCode::NoLeader, outcome::Outcome::NotApplied)
    );
    let written = running.write(put(b"k", b"2", 1)).unwrap();
    assert_eq!((written.base_offset, shard.term()), (1, term));
    running.stop();
}

#[test]
fn a_small_write_does_not_wait_behind_the_backlog_of_another_flow() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.write(host_partition()).unwrap();
    let node = Arc::clone(&running.node);
    // One task of the only thread: nothing is decided before all of it waits.
    let answers = running.runtime.spawn(async move {
        let (loader, caller) = (Flow::new(), Flow::new());
        let submit = |flow, key: String, bytes: usize| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let request = WriteRequest::Put {
                partition: 1,
                collection: 1,
                key: Bytes::from(key),
                value: Bytes::from(vec![1; bytes]),
                timestamp_ms: 7,
                producer: None,
                condition: Condition::None,
                ttl: None,
                headers: Vec::new(),
            };
            let reply: Reply = Box::new(move |result| answer.send(result).unwrap());
            let bytes = bytes as u64;
            node.submit(1, Submission { request, from: flow, bytes, deadline: None, reply });
            answered
        };
        let mut answers: Vec<_> =
            (0..32).map(|number| submit(loader, format!("large-{number}"), 1 << 20)).collect();
        answers.push(submit(caller, "small".to_owned(), 100));
        answers
    });
    let offsets: Vec<u64> = running.runtime.block_on(async {
        let mut offsets = Vec::new();
        for answer in answers.await.unwrap() {
            offsets.push(answer.await.unwrap().unwrap().base_offset);
        }
        offsets
    });
    assert!(offsets[..32].is_sorted(), "a flow keeps its order: {offsets:?}");
    assert_eq!(offsets[32], 0, "before all of them");
    running.stop();
}
