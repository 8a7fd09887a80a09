//! Replies that are lost after the node has applied the write.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prkdb_client::{BatchAnswer, BatchWriter, Client, Delete, Get, Put, Transport, WriterOptions};
use prkdb_types::{PartitionTable, Partitioner};

use crate::{
    ledger::{COLLECTION, records, value_of},
    proxy::Proxy,
    server::{Server, client},
    writers::send,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node, the proxy before it, and a client that sees the node itself.
struct Scene {
    _server: Server,
    proxy: Proxy,
    direct: Client,
}

impl Scene {
    async fn new() -> Self {
        let server = Server::start();
        let proxy = Proxy::start(server.address).await;
        let direct = client(server.address, Transport::Stream).await;
        Self { _server: server, proxy, direct }
    }

    /// Waits until the reply is being lost and the node has so many records, then cuts the client off.
    async fn cut_off_at(&self, applied: u64) {
        let begun = Instant::now();
        loop {
            let (is_silent, applied_yet) = (self.proxy.is_silent(), records(&self.direct).await);
            if is_silent && applied_yet >= applied {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "silent: {is_silent}, applied: {applied_yet}");
        }
        self.proxy.cut();
    }

    async fn value(&self, key: &str) -> Option<Bytes> {
        let read = self.direct.get(Get::new(COLLECTION, key.to_owned())).await.unwrap();
        read.value.map(|value| value.value)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_or_delete_whose_reply_is_lost_is_applied_once() {
    for transport in [Transport::Stream, Transport::Unary] {
        let scene = Scene::new().await;
        let client = client(scene.proxy.address, transport).await;
        client.put(Put::new(COLLECTION, "before", "1")).await.unwrap();

        scene.proxy.lose_reply_to(b"the reply to this is lost");
        let put = client.put(Put::new(COLLECTION, "k", "the reply to this is lost"));
        let (written, ()) = tokio::join!(put, scene.cut_off_at(2));
        assert!(written.unwrap().duplicate, "the answer is that of the first attempt");
        assert_eq!(records(&scene.direct).await, 2);
        assert_eq!(scene.value("k").await.as_deref(), Some(&b"the reply to this is lost"[..]));

        scene.proxy.lose_reply_to(b"a key to be deleted");
        client.put(Put::new(COLLECTION, "other", "1")).await.unwrap();
        let key = "a key to be deleted";
        scene.direct.put(Put::new(COLLECTION, key, "1")).await.unwrap();
        let delete = client.delete(Delete::new(COLLECTION, key));
        let (deleted, ()) = tokio::join!(delete, scene.cut_off_at(5));
        assert!(deleted.unwrap().duplicate);
        assert_eq!(records(&scene.direct).await, 5);
        assert_eq!(scene.value(key).await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_whose_replies_are_lost_are_applied_once() {
    let scene = Scene::new().await;
    let client = client(scene.proxy.address, Transport::Stream).await;
    let opened = BatchWriter::open(&client, COLLECTION, WriterOptions::default()).await;
    let (writer, mut answers) = opened.unwrap();
    let table = PartitionTable::shared(Partitioner::Ring, 3);
    let keys: Vec<Bytes> = (0..3000).map(|number| Bytes::from(format!("k{number}"))).collect();
    let mut marked = None;
    let (mut batches, mut total) = (0, 0);
    for part in keys.chunks(300) {
        for partition in 0..3 {
            let mine = |key: &&Bytes| table.partition(key) == partition;
            let own: Vec<Bytes> = part.iter().filter(mine).cloned().collect();
            if marked.is_none() {
                // The value of the first key begins with the key, three times.
                marked = own.first().map(value_of_start);
                scene.proxy.lose_reply_to(marked.as_deref().unwrap());
            }
            send(&writer, partition, &own).await.unwrap();
            batches += 1;
            total += u64::try_from(own.len()).unwrap();
        }
    }
    writer.finish();
    let mut repeats = 0;
    let take = async {
        while let Some(answer) = answers.next_ack().await {
            let BatchAnswer::Acked(acked) = answer else { panic!("{answer:?}") };
            batches -= 1;
            repeats += usize::from(acked.duplicate);
        }
    };
    // No reply comes, so the node applies all that the credit lets through.
    tokio::join!(take, scene.cut_off_at(total));
    assert_eq!(batches, 0);
    assert_eq!(repeats, 30, "all were applied before the cut");
    assert_eq!(records(&scene.direct).await, total);
    for key in keys {
        let read = scene.direct.get(Get::new(COLLECTION, key.clone())).await.unwrap();
        assert_eq!(read.value.unwrap().value, value_of(&key));
    }
}

fn value_of_start(key: &Bytes) -> Vec<u8> {
    value_of(key).get(..16).unwrap().to_vec()
}

/// Starts a command of the binary against an address.
fn command(home: &Path, address: &str, args: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("PRKDB_SERVER", address)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn output(child: std::process::Child) -> Output {
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_whose_replies_are_lost_write_once() {
    let scene = Scene::new().await;
    let home = tempfile::tempdir().unwrap();
    let address = scene.proxy.address.to_string();

    scene.proxy.lose_reply_to(b"the reply to this is lost");
    let child = command(home.path(), &address, &["put", "k", "the reply to this is lost"]);
    scene.cut_off_at(1).await;
    let said = output(child).await;
    assert_eq!((said.status.code(), &said.stdout[..]), (Some(0), &b"OK\n"[..]), "{said:?}");
    assert_eq!(records(&scene.direct).await, 1);

    let mut lines = String::new();
    for number in 0..1000 {
        writeln!(lines, "k{number},v{number}").unwrap();
    }
    lines.push_str("last,the reply to this is lost too\n");
    fs::write(home.path().join("d.txt"), lines).unwrap();
    scene.proxy.lose_reply_to(b"the reply to this is lost too");
    let child = command(home.path(), &address, &["batch-put", "d.txt"]);
    // The other partitions' last batches may wait for this one's answer.
    let begun = Instant::now();
    while scene.value("last").await.is_none() {
        assert!(begun.elapsed() < PATIENCE, "the batch does not reach the node");
    }
    assert!(scene.proxy.is_silent());
    scene.proxy.cut();
    let said = output(child).await;
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(said.stdout.starts_with(b"1001 put, 0 rejected"), "{said:?}");
    assert_eq!(records(&scene.direct).await, 1002);
}

/// The planted defect: a repeat without its producer is a second record, which these tests would see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_a_repeat_as_another_producer_is_seen() {
    let scene = Scene::new().await;
    let client = client(scene.proxy.address, Transport::Stream).await;
    client.put(Put::new(COLLECTION, "before", "1")).await.unwrap();
    scene.proxy.lose_reply_to(b"the reply to this is lost");
    {
        let put = client.put(Put::new(COLLECTION, "k", "the reply to this is lost"));
        tokio::select! {
            _ = put => panic!("answered"),
            () = scene.cut_off_at(2) => {}
        }
    }
    // Dropped and put again: the client cannot know that it is the same.
    let again = client.put(Put::new(COLLECTION, "k", "the reply to this is lost")).await.unwrap();
    assert!(!again.duplicate);
    assert_eq!(records(&scene.direct).await, 3);
}
