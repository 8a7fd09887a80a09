//! Transactions of clients: on a node that is killed, and with replies that are lost.

use std::ops::Bound;

use bytes::Bytes;
use prkdb_client::{
    Client, ClientError, ClientOptions, Endpoint, ErrorCode, Get, Isolation, Order, Put,
    TransactionOptions, Transport, blocking, wire,
};

use crate::{
    ledger::records,
    proxy::Proxy,
    server::{Server, client},
};

const COLLECTION: &str = "default";
const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

async fn scene() -> (Server, Client) {
    let server = Server::start();
    let client = client(server.address, Transport::Stream).await;
    (server, client)
}

async fn value(client: &Client, key: &'static str) -> Option<Bytes> {
    client.get(Get::new(COLLECTION, key)).await.unwrap().value.map(|value| value.value)
}

fn serializable() -> TransactionOptions {
    TransactionOptions { isolation: Isolation::Serializable, ..TransactionOptions::default() }
}

fn number(bytes: Option<Bytes>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_reads_one_snapshot_and_its_own_writes() {
    let (_server, client) = scene().await;
    for key in ["a", "b", "c"] {
        client.put(Put::new(COLLECTION, key, "old")).await.unwrap();
    }
    let mut tx = client.begin();
    assert_eq!(tx.get(COLLECTION, "a").await.unwrap().as_deref(), Some(&b"old"[..]));
    client.put(Put::new(COLLECTION, "c", "new")).await.unwrap();
    client.put(Put::new(COLLECTION, "d", "new")).await.unwrap();
    tx.delete(COLLECTION, "b").unwrap();
    tx.put(COLLECTION, "bb", "mine").unwrap();
    let forward = tx.scan(COLLECTION, ALL, Order::Forward, usize::MAX).await.unwrap();
    let shown: Vec<_> = forward.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(shown, [(&b"a"[..], &b"old"[..]), (b"bb", b"mine"), (b"c", b"old")]);
    let last = tx.scan(COLLECTION, ALL, Order::Reverse, 2).await.unwrap();
    assert_eq!(last.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [&b"c"[..], b"bb"]);
    tx.savepoint("s").unwrap();
    tx.delete(COLLECTION, "a").unwrap();
    tx.rollback_to_savepoint("s").unwrap();
    assert_eq!(value(&client, "bb").await, None);
    let committed = tx.commit().await.unwrap();
    assert!(!committed.duplicate && committed.revision > 0);
    assert_eq!(value(&client, "a").await.as_deref(), Some(&b"old"[..]));
    assert_eq!(value(&client, "b").await, None);
    assert_eq!(value(&client, "bb").await.as_deref(), Some(&b"mine"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_is_read_in_pages_of_one_snapshot() {
    let (_server, client) = scene().await;
    let mut tx = client.begin();
    for number in 0..2500u32 {
        tx.put(COLLECTION, number.to_be_bytes().to_vec(), "v").unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = client.begin();
    for number in (0..2500u32).step_by(2) {
        tx.delete(COLLECTION, number.to_be_bytes().to_vec()).unwrap();
    }
    for (order, first) in [(Order::Forward, 1u32), (Order::Reverse, 2499)] {
        let rows = tx.scan(COLLECTION, ALL, order, 1200).await.unwrap();
        assert_eq!((rows.len(), &rows[0].0[..]), (1200, &first.to_be_bytes()[..]));
    }
    assert_eq!(tx.scan(COLLECTION, ALL, Order::Forward, usize::MAX).await.unwrap().len(), 1250);
    tx.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_isolation_keeps_its_promise_from_afar() {
    let (_server, client) = scene().await;
    for key in ["a", "b"] {
        client.put(Put::new(COLLECTION, key, "1")).await.unwrap();
    }
    // Both read what the other writes: write skew.
    for (isolation, is_skewed) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
        let options = TransactionOptions { isolation, ..TransactionOptions::default() };
        let (mut one, mut two) = (client.begin_with(options), client.begin_with(options));
        for tx in [&mut one, &mut two] {
            assert!(tx.get(COLLECTION, "a").await.unwrap().is_some());
            assert!(tx.get(COLLECTION, "b").await.unwrap().is_some());
        }
        one.put(COLLECTION, "a", "2").unwrap();
        two.put(COLLECTION, "b", "2").unwrap();
        one.commit().await.unwrap();
        assert_eq!(two.commit().await.is_ok(), is_skewed, "{isolation:?}");
    }
    // Of two that write a key the first wins, and the other hears of the key.
    let (mut one, mut two) = (client.begin(), client.begin());
    for tx in [&mut one, &mut two] {
        tx.get(COLLECTION, "a").await.unwrap();
        tx.put(COLLECTION, "a", "3").unwrap();
    }
    one.commit().await.unwrap();
    let error = two.commit().await.unwrap_err();
    assert_eq!((error.code(), error.is_conflict()), (ErrorCode::ConflictDetected, true));
    let conflict = error.conflict().unwrap();
    assert_eq!((conflict.collection.as_str(), &conflict.key[..]), (COLLECTION, &b"a"[..]));
    // A key that appears in a range that was read.
    let mut tx = client.begin_with(serializable());
    tx.scan(COLLECTION, ALL, Order::Forward, usize::MAX).await.unwrap();
    tx.put(COLLECTION, "z", "1").unwrap();
    client.put(Put::new(COLLECTION, "phantom", "1")).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert_eq!(&error.conflict().unwrap().key[..], b"phantom");
    assert_eq!(value(&client, "z").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_many_clients_add_to_lose_nothing() {
    let (server, first) = scene().await;
    let mut adders = tokio::task::JoinSet::new();
    for isolation in [Isolation::Snapshot, Isolation::Serializable, Isolation::Snapshot] {
        let client = client(server.address, Transport::Stream).await;
        adders.spawn(async move {
            let mut added = 0;
            while added < 20 {
                let sum = client
                    .transact(isolation, async |tx| {
                        let next = number(tx.get(COLLECTION, "sum").await?) + 1;
                        tx.put(COLLECTION, "sum", next.to_be_bytes().to_vec())
                    })
                    .await;
                match sum {
                    Ok(_) => added += 1,
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        });
    }
    adders.join_all().await;
    assert_eq!(number(value(&first, "sum").await), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_two_shards_are_refused_and_nothing_is_applied() {
    let server = Server::start_with_shards(2);
    let client = client(server.address, Transport::Stream).await;
    let settings =
        wire::CollectionSettings { partitions: 2, ..wire::CollectionSettings::default() };
    client.create_collection("spread", settings).await.unwrap();
    let partitions = client.partitions("spread").await.unwrap();
    let key_of = |partition| {
        let mut keys = (0u32..).map(|number| number.to_be_bytes().to_vec());
        keys.find(|key| partitions.of(key) == partition).unwrap()
    };
    let (one, other) = (key_of(0), key_of(1));
    let refused = |error: ClientError| {
        assert_eq!(error.code(), ErrorCode::CrossShard, "{error}");
        assert!(error.hint().unwrap().contains("--colocate"), "{error}");
    };
    // With reads, the snapshot decides; without, the keys among themselves.
    let mut tx = client.begin();
    assert_eq!(tx.get("spread", one.clone()).await.unwrap(), None);
    refused(tx.get("spread", other.clone()).await.unwrap_err());
    refused(tx.scan("spread", ALL, Order::Forward, 1).await.unwrap_err());
    tx.put("spread", other.clone(), "v").unwrap();
    refused(tx.commit().await.unwrap_err());
    let mut tx = client.begin();
    tx.put("spread", one.clone(), "v").unwrap();
    tx.put("spread", other.clone(), "v").unwrap();
    refused(tx.commit().await.unwrap_err());
    for key in [one, other] {
        assert!(client.get(Get::new("spread", key)).await.unwrap().value.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_reply_is_lost_is_applied_once() {
    let server = Server::start();
    let proxy = Proxy::start(server.address).await;
    let direct = client(server.address, Transport::Stream).await;
    let behind = client(proxy.address, Transport::Stream).await;
    direct.put(Put::new(COLLECTION, "a", "0")).await.unwrap();
    for round in 0..3u8 {
        let mut tx = behind.begin_with(serializable());
        tx.get(COLLECTION, "a").await.unwrap();
        let mark = format!("the reply to {round} is lost");
        for key in ["a", "b", "c", "d"] {
            tx.put(COLLECTION, key, mark.clone()).unwrap();
        }
        proxy.lose_reply_to(mark.as_bytes());
        let cut = async {
            while value(&direct, "d").await.as_deref() != Some(mark.as_bytes()) {}
            proxy.cut();
        };
        let (committed, ()) = tokio::join!(tx.commit(), cut);
        let committed = committed.unwrap();
        assert!(committed.duplicate, "the answer is that of the first attempt");
        let revision = direct.get(Get::new(COLLECTION, "a")).await.unwrap().revision;
        assert_eq!(committed.revision, revision, "nothing was written after it");
    }
    assert_eq!(records(&direct).await, 1 + 3 * 4);
}

/// The planted defect: a commit that is sent again as another is applied twice, which the test above would
/// see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_a_commit_again_as_another_is_seen() {
    let server = Server::start();
    let proxy = Proxy::start(server.address).await;
    let direct = client(server.address, Transport::Stream).await;
    let behind = client(proxy.address, Transport::Stream).await;
    let mark = "the reply to this is lost";
    for round in 0..2u64 {
        let mut tx = behind.begin();
        for key in ["a", "b"] {
            tx.put(COLLECTION, key, mark).unwrap();
        }
        if round > 0 {
            assert!(!tx.commit().await.unwrap().duplicate);
            break;
        }
        proxy.lose_reply_to(mark.as_bytes());
        let cut = async {
            while value(&direct, "b").await.as_deref() != Some(mark.as_bytes()) {}
            proxy.cut();
        };
        // Given up: the next one cannot know that it is the same.
        tokio::select! {
            _ = tx.commit() => panic!("answered"),
            () = cut => {}
        }
    }
    assert_eq!(records(&direct).await, 4);
}

#[test]
fn the_same_without_async() {
    let server = Server::start();
    let options = ClientOptions {
        servers: vec![Endpoint::parse(&server.address.to_string()).unwrap()],
        ..ClientOptions::default()
    };
    let client = blocking::Client::connect(options).unwrap();
    for expected in 1..=3 {
        let (sum, committed) = client
            .transact(Isolation::Serializable, |tx| {
                let sum = number(tx.get(COLLECTION, "sum")?) + 1;
                tx.savepoint("before")?;
                tx.put(COLLECTION, "sum", sum.to_be_bytes().to_vec())?;
                Ok(sum)
            })
            .unwrap();
        assert_eq!((sum, committed.duplicate), (expected, false));
    }
    let mut tx = client.begin_with(serializable());
    assert_eq!(tx.scan(COLLECTION, ALL, Order::Forward, 10).unwrap().len(), 1);
    tx.rollback().unwrap();
}

/// Two keys are always written together, while the node is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_no_transaction_and_leave_none_in_part() {
    let (mut server, writer) = scene().await;
    let reader = client(server.address, Transport::Stream).await;
    let (told, mut tell) = tokio::sync::watch::channel(0u64);
    let writing = async move {
        for next in 1..=60u64 {
            loop {
                let written = writer
                    .transact(Isolation::Serializable, async |tx| {
                        let before = number(tx.get(COLLECTION, "one").await?);
                        // An attempt of which nobody knows may have been applied.
                        assert!([next - 1, next].contains(&before), "{before}, told {}", next - 1);
                        for key in ["one", "another", "third"] {
                            tx.put(COLLECTION, key, next.to_be_bytes().to_vec())?;
                        }
                        Ok(())
                    })
                    .await;
                // Whatever failed is run again: what it reads tells whether it was applied.
                if written.is_ok() {
                    break;
                }
            }
            told.send_replace(next);
        }
    };
    let killing = async {
        for round in 1..=4u64 {
            tell.wait_for(|told| *told >= round * 12).await.unwrap();
            server.kill();
            let told = *tell.borrow();
            server.start_again();
            let mut tx = reader.begin();
            let mut seen = Vec::new();
            for key in ["one", "another", "third"] {
                seen.push(number(tx.get(COLLECTION, key).await.unwrap()));
            }
            assert!(seen.iter().all(|number| *number == seen[0]), "in part: {seen:?}");
            assert!(seen[0] >= told, "told {told}, found {seen:?}");
        }
    };
    tokio::join!(writing, killing);
    assert_eq!(number(value(&reader, "third").await), 60);
}
