//! Events produced and consumed while their node dies and comes back, and while replies are lost.
//!
//! Producers keep batches unanswered; a consumer follows all the time through the same kills. In the end
//! every event that was acknowledged stands once, where its answer said and in the order it was sent, and
//! the follower has seen just what stands in the log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prkdb_client::{
    BatchAnswer, BatchWriter, Client, Consumer, ConsumerOptions, Purpose, Transport, WriterOptions,
    wire,
};
use prkdb_types::{BatchBuilder, Compression};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    proxy::Proxy,
    server::{Server, client, client_with, random},
};

const EVENTS: &str = "events";
const PARTITIONS: u32 = 3;
const PRODUCERS: u32 = 6;
const UNANSWERED: usize = 8;
const KILLS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// An event: its producer, and its number among those of the producer.
type Event = (u32, u64);

/// What is known together.
#[derive(Default)]
struct Ledger {
    /// Where each acknowledged event stands: partition and offset.
    acked: Mutex<BTreeMap<Event, (u32, u64)>>,
    open: AtomicUsize,
    repeats: AtomicUsize,
    answers: watch::Sender<u64>,
    stop: AtomicBool,
}

impl Ledger {
    fn acked<T>(&self, work: impl FnOnce(&mut BTreeMap<Event, (u32, u64)>) -> T) -> T {
        work(&mut self.acked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn create(client: &Client) {
    let settings = wire::CollectionSettings {
        partitions: PARTITIONS,
        key_index: wire::KeyIndex::Off.into(),
        ..wire::CollectionSettings::default()
    };
    client.create_collection(EVENTS, settings).await.unwrap();
}

/// Sends a batch of `count` events from a number on.
async fn send(writer: &BatchWriter, producer: u32, first: u64, count: u64) -> bool {
    let partition = partition_of(first);
    let Ok(slot) = writer.slot(partition).await else { return false };
    let compression = if first.is_multiple_of(2) { Compression::Lz4 } else { Compression::None };
    let mut builder = BatchBuilder::new(slot.stamp(), compression);
    for number in first..first + count {
        let mut value = format!("{producer} {number} ").into_bytes();
        value.extend((0..number % 900).map(|at| (at * 31 + number).to_le_bytes()[0]));
        builder.push(i64::try_from(number).unwrap(), None, Some(&value), &[]).unwrap();
    }
    let batch = builder.finish().unwrap().to_bytes();
    slot.send(batch, u32::try_from(count).unwrap(), first).is_ok()
}

fn partition_of(first: u64) -> u32 {
    u32::try_from(first / 7 % u64::from(PARTITIONS)).unwrap()
}

fn count_of(first: u64) -> u64 {
    1 + first % 20
}

fn options(producer_id: Option<u64>) -> WriterOptions {
    WriterOptions { purpose: Purpose::Events, producer_id, ..WriterOptions::default() }
}

fn take(ledger: &Ledger, producer: u32, first: u64, answer: &BatchAnswer) {
    let BatchAnswer::Acked(acked) = answer else { panic!("{answer:?}") };
    ledger.acked(|all| {
        for at in 0..u64::from(acked.records) {
            let place = (acked.partition, acked.base_offset + at);
            all.insert((producer, first + at), place);
        }
    });
    ledger.repeats.fetch_add(usize::from(acked.duplicate), Ordering::Relaxed);
    ledger.open.fetch_sub(1, Ordering::Relaxed);
    ledger.answers.send_modify(|answers| *answers += 1);
}

/// One producer from beginning to end.
async fn produce(producer: u32, client: Client, ledger: Arc<Ledger>) {
    let opened = BatchWriter::open(&client, EVENTS, options(Some(500 + u64::from(producer))));
    let (writer, mut answers) = opened.await.unwrap();
    let (mut next, mut waiting) = (0, 0);
    loop {
        while waiting < UNANSWERED && !ledger.stop.load(Ordering::Relaxed) {
            ledger.open.fetch_add(1, Ordering::Relaxed);
            assert!(send(&writer, producer, next, count_of(next)).await);
            next += count_of(next);
            waiting += 1;
        }
        if waiting == 0 {
            return;
        }
        let answer = answers.next_ack().await.unwrap();
        let BatchAnswer::Acked(acked) = &answer else { panic!("{answer:?}") };
        take(&ledger, producer, acked.token, &answer);
        waiting -= 1;
    }
}

/// The planted defect: each attempt is made as another producer.
async fn produce_forgetfully(producer: u32, hasty: Client, ledger: Arc<Ledger>) {
    let mut next = 0;
    while !ledger.stop.load(Ordering::Relaxed) {
        ledger.open.fetch_add(1, Ordering::Relaxed);
        loop {
            let Ok((writer, mut answers)) = BatchWriter::open(&hasty, EVENTS, options(None)).await
            else {
                tokio::task::yield_now().await;
                continue;
            };
            if !send(&writer, producer, next, count_of(next)).await {
                continue;
            }
            match answers.next_ack().await {
                Some(BatchAnswer::Failed(_)) | None => {}
                Some(answer) => break take(&ledger, producer, next, &answer),
            }
        }
        next += count_of(next);
    }
}

/// What was read: the events of each partition, by offset.
type Read = BTreeMap<u32, Vec<Event>>;

/// Reads up to the ends of the partitions, or follows until told where they are.
async fn read(
    mut consumer: Consumer,
    mut ends: watch::Receiver<Option<BTreeMap<u32, u64>>>,
) -> Read {
    let mut read = Read::new();
    loop {
        let is_at_end = ends.borrow().as_ref().is_some_and(|ends| {
            ends.iter().all(|(partition, end)| {
                read.get(partition).map_or(0, |events| events.len() as u64) >= *end
            })
        });
        if is_at_end {
            return read;
        }
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch.unwrap().unwrap(),
            changed = ends.changed() => {
                changed.unwrap();
                continue;
            }
        };
        for record in batch.records() {
            let record = record.unwrap();
            let events = read.entry(batch.partition).or_default();
            assert_eq!(record.offset, events.len() as u64, "no gap, and nothing twice");
            let value = record.value.unwrap();
            let mut words = value.split(|byte| *byte == b' ');
            let mut number =
                || std::str::from_utf8(words.next().unwrap()).unwrap().parse::<u64>().unwrap();
            let event = (u32::try_from(number()).unwrap(), number());
            assert_eq!(record.timestamp_ms, i64::try_from(event.1).unwrap());
            events.push(event);
        }
    }
}

async fn ends(client: &Client) -> BTreeMap<u32, u64> {
    let items = client.list_offsets(EVENTS, Vec::new()).await.unwrap();
    items.into_iter().map(|item| (item.partition, item.log_end)).collect()
}

/// Nothing lost, nothing twice, nothing moved, each producer's events in order.
fn judge(ledger: &Ledger, log: &Read) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (partition, events) in log {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (offset, event) in events.iter().enumerate() {
            if places.insert(*event, (*partition, offset as u64)).is_some() {
                return Err(format!("twice: {event:?}"));
            }
            let before = last.insert(event.0, event.1);
            if before.is_some_and(|before| before >= event.1) {
                return Err(format!("order: {event:?} behind {before:?}"));
            }
        }
    }
    ledger.acked(|acked| {
        for (event, place) in acked.iter() {
            match places.get(event) {
                None => return Err(format!("lost: {event:?}")),
                Some(found) if found != place => {
                    return Err(format!("moved: {event:?} from {place:?} to {found:?}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    })
}

async fn rounds(kills: usize, forgetful: bool) -> Result<(usize, Arc<Ledger>), String> {
    let mut server = Server::start();
    let direct = client(server.address, Transport::Stream).await;
    create(&direct).await;
    let ledger = Arc::new(Ledger::default());
    let (at_end, told) = watch::channel(None);
    let follower = Consumer::open(&direct, EVENTS, ConsumerOptions::default()).await.unwrap();
    let follower = tokio::spawn(read(follower, told.clone()));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        if forgetful {
            let hasty = client_with(server.address, Transport::Stream, 0).await;
            producers.spawn(produce_forgetfully(producer, hasty, Arc::clone(&ledger)));
        } else {
            let own = client(server.address, Transport::Stream).await;
            producers.spawn(produce(producer, own, Arc::clone(&ledger)));
        }
    }
    let mut unanswered = 0;
    for _ in 0..kills {
        let mut answers = ledger.answers.subscribe();
        let goal = *answers.borrow_and_update() + 20 + u64::from(random() % 300);
        let waited = timeout(PATIENCE, answers.wait_for(|count| *count >= goal)).await;
        let _count = waited.map_err(|_| "no answers")?.map_err(|_| "no ledger")?;
        unanswered += usize::from(ledger.open.load(Ordering::Relaxed) > 0);
        server.kill();
        server.start_again();
    }
    ledger.stop.store(true, Ordering::Relaxed);
    timeout(PATIENCE, producers.join_all()).await.map_err(|_| "producers do not end")?;
    let ends = ends(&direct).await;
    at_end.send_replace(Some(ends));
    let followed =
        timeout(PATIENCE, follower).await.map_err(|_| "the follower does not come to the end")?;
    let followed = followed.map_err(|error| error.to_string())?;
    judge(&ledger, &followed)?;
    // Another life, and a reader that comes late, find the same.
    server.kill();
    server.start_again();
    let late = Consumer::open(&direct, EVENTS, ConsumerOptions::default()).await.unwrap();
    let late = timeout(PATIENCE, read(late, told)).await.map_err(|_| "no end")?;
    if late != followed {
        return Err("a late reader finds another log".to_owned());
    }
    Ok((unanswered, ledger))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_keep_every_event_once_in_order_for_all_readers() {
    let kills = std::env::var("PRKDB_KILLS").map_or(KILLS, |number| number.parse().unwrap());
    let (unanswered, ledger) = rounds(kills, false).await.unwrap();
    let (events, repeats) =
        (ledger.acked(|acked| acked.len()), ledger.repeats.load(Ordering::Relaxed));
    let figures = format!(
        "events: {kills} kills, {unanswered} with unanswered batches; {events} events acknowledged \
         and kept in order, {repeats} batches were applied and their answer lost\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), figures.as_bytes()).unwrap();
    assert!(unanswered * 2 >= kills, "{unanswered}");
    assert!(repeats > 0, "no kill came between a batch and its answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_producers_that_forget_who_they_are_are_caught() {
    for _attempt in 0..10 {
        match rounds(5, true).await {
            Ok(_) => {}
            Err(reason) => {
                assert!(reason.starts_with("twice: "), "{reason}");
                return;
            }
        }
    }
    panic!("not caught");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_whose_replies_are_lost_stand_once() {
    let server = Server::start();
    let proxy = Proxy::start(server.address).await;
    let direct = client(server.address, Transport::Stream).await;
    create(&direct).await;
    let through = client(proxy.address, Transport::Stream).await;
    let opened = BatchWriter::open(&through, EVENTS, options(None)).await;
    let (writer, mut answers) = opened.unwrap();
    proxy.lose_reply_to(b"1 21 ");
    let mut sent = 0;
    let mut batches = VecDeque::new();
    // Each partition has less than its window of 16.
    while batches.len() < 40 {
        assert!(send(&writer, 1, sent, 7).await);
        batches.push_back(sent);
        sent += 7;
    }
    writer.finish();
    let cut = async {
        let begun = Instant::now();
        loop {
            let applied: u64 = ends(&direct).await.values().sum();
            if proxy.is_silent() && applied == sent {
                break proxy.cut();
            }
            assert!(begun.elapsed() < PATIENCE, "{applied} of {sent} applied");
        }
    };
    let ledger = Ledger::default();
    ledger.open.store(batches.len(), Ordering::Relaxed);
    let collect = async {
        while let Some(answer) = answers.next_ack().await {
            let BatchAnswer::Acked(acked) = &answer else { panic!("{answer:?}") };
            take(&ledger, 1, acked.token, &answer);
        }
    };
    tokio::join!(collect, cut);
    assert_eq!(ledger.acked(|acked| acked.len() as u64), sent);
    let repeats = ledger.repeats.load(Ordering::Relaxed);
    assert!(repeats > 0, "no answer was lost");
    let (at_end, told) = watch::channel(Some(ends(&direct).await));
    let reader = Consumer::open(&direct, EVENTS, ConsumerOptions::default()).await.unwrap();
    let log = timeout(PATIENCE, read(reader, told)).await.unwrap();
    drop(at_end);
    assert_eq!(log.values().map(|events| events.len() as u64).sum::<u64>(), sent);
    judge(&ledger, &log).unwrap();
}
