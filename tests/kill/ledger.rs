//! What the writers sent and were told, and what the node must hold by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use prkdb_client::{Client, Scan, Written};
use tokio::sync::watch;

/// The collection of all writes.
pub(crate) const COLLECTION: &str = "default";

/// Every record has a key of its own.
#[derive(Debug, Default)]
struct State {
    /// Keys that were sent.
    sent: BTreeSet<Bytes>,
    /// Keys that were acknowledged, with their partition and offset.
    acked: BTreeMap<Bytes, (u32, u64)>,
    /// Writes sent and not answered.
    open: usize,
    /// Answers that said that an earlier attempt was applied.
    repeats: usize,
}

/// What all writers know together.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    answers: watch::Sender<u64>,
    /// Whether nothing more is sent for now.
    paused: watch::Sender<bool>,
}

/// What a node is found to hold.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Keys with their partition, offset and value.
    rows: BTreeMap<Bytes, (u32, u64, Bytes)>,
    /// How many records the partitions have been given.
    records: u64,
}

/// The value of a key, of 20 to 1,500 bytes.
pub(crate) fn value_of(key: &[u8]) -> Bytes {
    let sum: usize = key.iter().map(|byte| usize::from(*byte)).sum();
    key.iter().copied().cycle().take(20 + sum * 7 % 1480).collect()
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            answers: watch::Sender::new(0),
            paused: watch::Sender::new(false),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets nothing more be sent, or lets it again.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.paused.send_replace(is_paused);
    }

    /// Waits until it may be sent, and notes a write.
    pub(crate) async fn sending(&self, keys: &[Bytes]) {
        let mut paused = self.paused.subscribe();
        let _running = paused.wait_for(|is_paused| !is_paused).await.unwrap();
        self.with(|state| {
            state.sent.extend(keys.iter().cloned());
            state.open += 1;
        });
    }

    /// Notes the answer to a write.
    pub(crate) fn answered(&self, keys: &[Bytes], first: &Written) {
        self.with(|state| {
            state.open -= 1;
            state.repeats += usize::from(first.duplicate);
            let places = (first.offset..).map(|offset| (first.partition, offset));
            state.acked.extend(keys.iter().cloned().zip(places));
        });
        self.answers.send_modify(|answers| *answers += 1);
    }

    /// Waits for so many answers more.
    pub(crate) async fn wait_for(&self, more: u64) {
        let mut answers = self.answers.subscribe();
        let goal = *answers.borrow_and_update() + more;
        let _last = answers.wait_for(|count| *count >= goal).await.unwrap();
    }

    /// How many writes are sent and not answered.
    pub(crate) fn open(&self) -> usize {
        self.with(|state| state.open)
    }

    pub(crate) fn repeats(&self) -> usize {
        self.with(|state| state.repeats)
    }

    pub(crate) fn acked(&self) -> BTreeMap<Bytes, (u32, u64)> {
        self.with(|state| state.acked.clone())
    }

    /// Judges a node that nobody writes to: nothing lost, nothing twice, nothing that was not sent.
    pub(crate) fn judge(&self, found: &Found) -> Result<(), String> {
        check_kept(&self.acked(), found)?;
        let held = u64::try_from(found.rows.len()).unwrap();
        if found.records != held {
            return Err(format!("twice: {} records of {held} keys", found.records));
        }
        self.with(|state| match found.rows.keys().find(|key| !state.sent.contains(*key)) {
            Some(key) => Err(format!("invented: {key:?}")),
            None => Ok(()),
        })
    }
}

/// Checks that what was acknowledged is there, where the answer said.
pub(crate) fn check_kept(acked: &BTreeMap<Bytes, (u32, u64)>, found: &Found) -> Result<(), String> {
    for (key, (partition, offset)) in acked {
        let Some((in_partition, at, value)) = found.rows.get(key) else {
            return Err(format!("lost: {key:?}"));
        };
        if (partition, offset) != (in_partition, at) {
            return Err(format!("moved: {key:?}, acknowledged at {offset}, found at {at}"));
        }
        if *value != value_of(key) {
            return Err(format!("wrong value: {key:?}"));
        }
    }
    Ok(())
}

/// Reads everything that a node holds.
pub(crate) async fn find(client: &Client) -> Found {
    let mut found = Found::default();
    let mut rows = client.scan(Scan::new(COLLECTION)).await.unwrap();
    while let Some(row) = rows.next_row().await.unwrap() {
        let twice = found.rows.insert(row.key, (row.partition, row.version, row.value));
        assert_eq!(twice, None, "a scan has every key once");
    }
    found.records = records(client).await;
    found
}

/// How many records the partitions of the collection have been given.
pub(crate) async fn records(client: &Client) -> u64 {
    let described = client.describe_collection(COLLECTION).await.unwrap();
    described.partitions.iter().map(|partition| partition.log_end).sum()
}
