//! The client for programs without an async runtime.
//!
//! A [`Client`] owns a runtime with one thread, which keeps connections alive and sends batches between
//! calls; what is opened with it shares that thread. Every call blocks the calling thread until it has its
//! answer. A call from inside of an async runtime would block that, so it is refused with
//! [`ClientError::InsideRuntime`]: use [`crate::Client`] there.
//!
//! ```no_run
//! use prkdb_client::{ClientOptions, ConsumerOptions, ProducerOptions, Record, blocking};
//!
//! # fn example() -> Result<(), prkdb_client::ClientError> {
//! let client = blocking::Client::connect(ClientOptions::default())?;
//! let producer = blocking::Producer::open(&client, "events", ProducerOptions::default())?;
//! producer.send(Record::new(b"clicked"))?;
//! producer.close()?;
//! for record in blocking::Consumer::open(&client, "events", ConsumerOptions::default())? {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```

mod transaction;

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    ClientOptions, Expire, Partitions, Renewed,
    consumer::{self, ConsumedRecord, ConsumerOptions, FetchedBatch},
    error::ClientError,
    kv::{Delete, Get, Put, Read, Written},
    producer::{self, Delivered, Delivery, ProducerCounts, ProducerOptions, Record},
};

pub use self::transaction::Transaction;

/// The thread that everything of one client runs on.
#[derive(Debug)]
struct Thread {
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Thread {
    fn start() -> Result<Self, ClientError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("prkdb-client")
            .enable_all()
            .build()
            .map_err(|source| ClientError::Runtime { source: Arc::new(source) })?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Blocks until the work is done.
    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        outside()?;
        self.runtime.as_ref().ok_or(ClientError::Closed)?.block_on(work)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Without waiting, which would panic inside of a runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Refuses to block a runtime.
fn outside() -> Result<(), ClientError> {
    match Handle::try_current() {
        Ok(_) => Err(ClientError::InsideRuntime),
        Err(_) => Ok(()),
    }
}

/// A handle on a cluster, as [`crate::Client`]. Clones share its connections and its thread.
#[derive(Clone, Debug)]
pub struct Client {
    thread: Arc<Thread>,
    client: crate::Client,
}

impl Client {
    /// Connects to the first server that answers, in the order given.
    ///
    /// # Errors
    /// As [`crate::Client::connect`]; [`ClientError::Runtime`] where the system gives no thread.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        outside()?;
        let thread = Thread::start()?;
        let client = thread.wait(crate::Client::connect(options))?;
        Ok(Self { thread: Arc::new(thread), client })
    }

    /// Stores a value and returns once it is durable and applied.
    ///
    /// # Errors
    /// As [`crate::Client::put`].
    pub fn put(&self, put: Put) -> Result<Written, ClientError> {
        self.thread.wait(self.client.put(put))
    }

    /// Deletes a key. A key without a value is left alone: `existed` is false then.
    ///
    /// # Errors
    /// As [`crate::Client::delete`].
    pub fn delete(&self, delete: Delete) -> Result<Written, ClientError> {
        self.thread.wait(self.client.delete(delete))
    }

    /// Gives a key's value another time to live.
    ///
    /// # Errors
    /// As [`crate::Client::expire`].
    pub fn expire(&self, expire: Expire) -> Result<Renewed, ClientError> {
        self.thread.wait(self.client.expire(expire))
    }

    /// Reads the latest value of a key. A key without one is no error.
    ///
    /// # Errors
    /// As [`crate::Client::get`].
    pub fn get(&self, get: Get) -> Result<Read, ClientError> {
        self.thread.wait(self.client.get(get))
    }

    /// Returns the partitions of a collection, from memory where they are known.
    ///
    /// # Errors
    /// As [`crate::Client::partitions`].
    pub fn partitions(&self, collection: &str) -> Result<Arc<Partitions>, ClientError> {
        self.thread.wait(self.client.partitions(collection))
    }
}

/// Sends records in batches, as [`crate::Producer`]. Clones share it.
#[derive(Clone, Debug)]
pub struct Producer {
    // Before the thread: what it gives up is told before that ends.
    producer: producer::Producer,
    thread: Arc<Thread>,
}

impl Producer {
    /// Opens a producer of a collection.
    ///
    /// # Errors
    /// As [`crate::Producer::open`].
    pub fn open(
        client: &Client,
        collection: &str,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let opening = producer::Producer::open(&client.client, collection, options);
        let producer = client.thread.wait(opening)?;
        Ok(Self { producer, thread: Arc::clone(&client.thread) })
    }

    /// Puts a record into the batch of its partition, and blocks where too many bytes wait for their answer.
    /// [`Self::wait`] tells what became of it.
    ///
    /// # Errors
    /// As [`crate::Producer::send`].
    pub fn send(&self, record: Record<'_>) -> Result<Delivery, ClientError> {
        match self.producer.try_send(&record)? {
            Some(delivery) => Ok(delivery),
            None => self.thread.wait(self.producer.send(record)),
        }
    }

    /// Blocks until the record's batch is answered.
    ///
    /// # Errors
    /// What became of the batch.
    pub fn wait(&self, delivery: Delivery) -> Result<Delivered, ClientError> {
        match delivery.outcome() {
            Some(outcome) => outcome,
            None => self.thread.wait(delivery),
        }
    }

    /// Sends what waits, and returns once everything that was sent before is answered.
    ///
    /// # Errors
    /// As [`crate::Producer::flush`].
    pub fn flush(&self) -> Result<(), ClientError> {
        self.thread.wait(self.producer.flush())
    }

    /// Takes no more records, sends what waits, and returns once everything is answered.
    ///
    /// # Errors
    /// As [`crate::Producer::close`].
    pub fn close(&self) -> Result<(), ClientError> {
        self.thread.wait(self.producer.close())
    }

    /// Lets a halted partition take records again, once everything sent to it is answered.
    ///
    /// # Errors
    /// As [`crate::Producer::resume`].
    pub fn resume(&self, partition: u32) -> Result<(), ClientError> {
        self.thread.wait(self.producer.resume(partition))
    }

    /// Returns why a partition is halted: the error of the batch that failed.
    pub fn failure(&self, partition: u32) -> Option<ClientError> {
        self.producer.failure(partition)
    }

    /// Returns what was done so far.
    pub fn counts(&self) -> ProducerCounts {
        self.producer.counts()
    }
}

/// Reads the records of a collection, as [`crate::Consumer`]: as an iterator, or by batch.
///
/// The iterator ends once every partition has reached its `until`, and after an error that does not pass.
#[derive(Debug)]
pub struct Consumer {
    consumer: consumer::Consumer,
    thread: Arc<Thread>,
}

impl Consumer {
    /// Opens a consumer of a collection.
    ///
    /// # Errors
    /// As [`crate::Consumer::open`].
    pub fn open(
        client: &Client,
        collection: &str,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let opening = consumer::Consumer::open(&client.client, collection, options);
        let consumer = client.thread.wait(opening)?;
        Ok(Self { consumer, thread: Arc::clone(&client.thread) })
    }

    /// Returns the next batch of any partition; `None` once every partition has reached its `until`.
    ///
    /// # Errors
    /// As [`crate::Consumer::next_batch`].
    pub fn next_batch(&mut self) -> Result<Option<FetchedBatch>, ClientError> {
        self.thread.wait(self.consumer.next_batch())
    }

    /// Returns the offset behind what was handed out of a partition; `None` for one that is not read.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.consumer.position(partition)
    }

    /// Returns the offset behind the last record of a partition that may be read, as last heard; `None`
    /// for a partition that is not read.
    pub fn high_watermark(&self, partition: u32) -> Option<u64> {
        self.consumer.high_watermark(partition)
    }
}

impl Iterator for Consumer {
    type Item = Result<ConsumedRecord, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.consumer.next_unread() {
            return Some(record);
        }
        let consumer = &mut self.consumer;
        self.thread.wait(async { consumer.next().await.transpose() }).transpose()
    }
}
