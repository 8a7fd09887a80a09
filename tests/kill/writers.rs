//! Writers that go on while their node dies and comes back.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use prkdb_client::{
    BatchAnswer, BatchWriter, Client, ClientError, Put, Transport, WriterOptions, Written,
};
use prkdb_types::{BatchBuilder, Compression, PartitionTable, Partitioner};
use tokio::task::JoinSet;

use crate::{
    ledger::{COLLECTION, Ledger, records, value_of},
    server::{Server, client, client_with},
};

/// Writers of batches, each a producer of its own.
const BATCH_WRITERS: u32 = 8;
/// Batches that each of them leaves unanswered.
const UNANSWERED: usize = 4;
/// Callers that put one record after the other through one client.
const CALLERS: u32 = 4;
/// Partitions of the collection.
const PARTITIONS: u32 = 3;

/// All writers of a test.
pub(crate) struct Writers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    /// Starts them. A `forgetful` writer goes on as another producer when its stream breaks: the
    /// planted defect.
    pub(crate) async fn start(server: &Server, ledger: &Arc<Ledger>, forgetful: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..BATCH_WRITERS {
            let writer = Writer {
                number,
                client: client(server.address, Transport::Stream).await,
                ledger: Arc::clone(ledger),
                stop: Arc::clone(&stop),
                next_key: 0,
                waiting: VecDeque::new(),
            };
            if forgetful {
                let hasty = client_with(server.address, Transport::Stream, 0).await;
                tasks.spawn(writer.run_forgetful(hasty));
            } else {
                tasks.spawn(writer.run());
            }
        }
        let one = client(server.address, Transport::Stream).await;
        for caller in 0..CALLERS {
            tasks.spawn(put(caller, one.clone(), Arc::clone(ledger), Arc::clone(&stop)));
        }
        Self { tasks, stop }
    }

    /// Lets them finish what they have sent.
    pub(crate) async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// Puts single records through the lanes of a client.
async fn put(caller: u32, client: Client, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = Bytes::from(format!("put-{caller}-{number}"));
        ledger.sending(std::slice::from_ref(&key)).await;
        let written = client.put(Put::new(COLLECTION, key.clone(), value_of(&key))).await.unwrap();
        ledger.answered(&[key], &written);
    }
}

/// One producer of batches.
struct Writer {
    number: u32,
    client: Client,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    next_key: u64,
    /// What was sent and not answered, with its partition.
    waiting: VecDeque<(u32, Vec<Bytes>)>,
}

impl Writer {
    /// Writes as one producer from beginning to end.
    async fn run(mut self) {
        let producer_id = Some(1_000 + u64::from(self.number));
        let options = WriterOptions { producer_id, ..WriterOptions::default() };
        let opened = BatchWriter::open(&self.client, COLLECTION, options).await;
        let (writer, mut answers) = opened.unwrap();
        loop {
            while self.waiting.len() < UNANSWERED && !self.stop.load(Ordering::Relaxed) {
                let (partition, keys) = self.next_keys();
                self.ledger.sending(&keys).await;
                send(&writer, partition, &keys).await.unwrap();
                self.waiting.push_back((partition, keys));
            }
            if self.waiting.is_empty() {
                return;
            }
            self.take(answers.next_ack().await.unwrap());
        }
    }

    /// Writes one batch at a time, each attempt as another producer.
    async fn run_forgetful(mut self, hasty: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let (partition, keys) = self.next_keys();
            self.ledger.sending(&keys).await;
            self.waiting.push_back((partition, keys.clone()));
            let answer = loop {
                // Waits until the node is there.
                let _records = records(&self.client).await;
                let options = WriterOptions::default();
                let opened = BatchWriter::open(&hasty, COLLECTION, options).await;
                let Ok((writer, mut answers)) = opened else { continue };
                if send(&writer, partition, &keys).await.is_err() {
                    continue;
                }
                match answers.next_ack().await {
                    Some(BatchAnswer::Failed(_)) | None => {}
                    Some(answer) => break answer,
                }
            };
            self.take(answer);
        }
    }

    /// The keys of the next batch.
    fn next_keys(&mut self) -> (u32, Vec<Bytes>) {
        let table = PartitionTable::shared(Partitioner::Ring, PARTITIONS);
        let partition = u32::try_from(self.next_key % 3).unwrap();
        let count = 1 + usize::try_from(self.next_key % 13).unwrap();
        let mut keys = Vec::with_capacity(count);
        while keys.len() < count {
            let key = Bytes::from(format!("batch-{}-{}", self.number, self.next_key));
            self.next_key += 1;
            if table.partition(&key) == partition {
                keys.push(key);
            }
        }
        (partition, keys)
    }

    /// Takes an answer: those of one partition come in order.
    fn take(&mut self, answer: BatchAnswer) {
        let BatchAnswer::Acked(acked) = answer else { panic!("{answer:?}") };
        let mine = |(partition, _): &(u32, Vec<Bytes>)| *partition == acked.partition;
        let place = self.waiting.iter().position(mine).unwrap();
        let (_, keys) = self.waiting.remove(place).unwrap();
        assert_eq!(usize::try_from(acked.records).unwrap(), keys.len());
        let first = Written {
            partition: acked.partition,
            offset: acked.base_offset,
            revision: acked.revision,
            append_time_ms: acked.append_time_ms,
            existed: false,
            previous: None,
            duplicate: acked.duplicate,
        };
        self.ledger.answered(&keys, &first);
    }
}

/// Sends a batch of these keys.
pub(crate) async fn send(
    writer: &BatchWriter,
    partition: u32,
    keys: &[Bytes],
) -> Result<(), ClientError> {
    let slot = writer.slot(partition).await?;
    let mut builder = BatchBuilder::new(slot.stamp(), Compression::None);
    for key in keys {
        builder.push(1, Some(key), Some(&value_of(key)), &[]).unwrap();
    }
    let batch = builder.finish().unwrap().to_bytes();
    slot.send(batch, u32::try_from(keys.len()).unwrap(), 0)
}
