//! The handle of a database, and how it is closed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use prkdb_types::{CollectionChanges, CollectionName, CollectionSettings, ErrorCode, Isolation};

use super::{
    Builder, Collection, DbError, Kv, Reply, Stream, Transaction, TransactionConfig,
    applier::Applier,
    catalog,
    engine::{Done, Engine, refused},
    janitor::Janitor,
};
use crate::{
    driver::{Checkpointer, Cleaner, Driver, NoCheckpoint},
    storage::{Shard, dir::DataDir, sequencer::WriteRequest},
};

/// How often [`PrkDb::transact`] runs a transaction that conflicts.
const ATTEMPTS_MAX: usize = 64;

/// An embedded database. Clones are handles of the same one; it is closed with the last of them.
#[derive(Clone)]
pub struct PrkDb(Arc<Inner>);

/// What all handles share.
pub(super) struct Inner {
    engine: Arc<Engine>,
    applier: Arc<Applier>,
    checkpointer: Checkpointer,
    threads: Mutex<Option<Threads>>,
    /// Held while the catalogue is changed: numbers are given out once.
    catalogue: Mutex<()>,
    // Held last: the lock of the directory.
    directory: Arc<DataDir>,
}

/// What runs beside the callers.
pub(super) struct Threads {
    pub(super) driver: Driver,
    pub(super) applier: JoinHandle<()>,
    pub(super) cleaner: Cleaner,
    pub(super) janitor: Janitor,
}

/// Figures of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The last entry that is applied.
    pub revision: u64,
    /// Keys with a value; of those that have expired, some for about a second.
    pub keys: u64,
    /// Bytes of memory of the key index.
    pub index_bytes: u64,
    /// Bytes of the files of the log.
    pub log_bytes: u64,
    /// Groups of entries written since the opening: each with one sync, unless that is relaxed.
    pub groups_written: u64,
}

impl Inner {
    pub(super) fn new(
        engine: Arc<Engine>,
        applier: Arc<Applier>,
        threads: Threads,
        directory: Arc<DataDir>,
    ) -> Self {
        let checkpointer = threads.driver.checkpointer();
        let threads = Mutex::new(Some(threads));
        Self { engine, applier, checkpointer, threads, catalogue: Mutex::new(()), directory }
    }

    /// Writes what is under way, and ends the threads. Whoever closes it too waits as long.
    fn close(&self) -> Result<(), DbError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Threads { driver, applier, cleaner, janitor }) = threads.take() {
            let janitor = janitor.finish();
            self.engine.close();
            cleaner.stop();
            driver.stop();
            self.applier.stop();
            // Who hears an answer may drop the last of the database, on the thread that applies: it cannot wait
            // for itself, nor for the janitor, which may wait for its answers. Both end by themselves.
            if applier.thread().id() != thread::current().id() {
                // A panic of the thread left its waiters without an answer, which they take for unknown.
                let _ended = applier.join();
                // One of this one harmed nothing but itself: what it writes is right by itself.
                let _ended = janitor.join();
            }
        }
        self.applier.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the database did not close in order");
        }
    }
}

impl fmt::Debug for PrkDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrkDb").field("dir", &self.0.directory.path()).finish_non_exhaustive()
    }
}

impl PrkDb {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Returns a builder.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn shard(&self) -> &Arc<Shard> {
        &self.0.engine.shard
    }

    /// Returns the keys of the collection `default`.
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone(), catalog::default_of(self))
    }

    /// Returns the keys of a collection.
    pub fn kv_in(&self, collection: &Collection) -> Kv {
        Kv::new(self.clone(), collection.clone())
    }

    /// Returns the events of the collection `default`.
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone(), catalog::default_of(self))
    }

    /// Returns the events of a collection.
    pub fn stream_in(&self, collection: &Collection) -> Stream {
        Stream::new(self.clone(), collection.clone())
    }

    /// Begins a transaction with snapshot isolation.
    pub fn begin(&self) -> Transaction {
        self.begin_with(TransactionConfig::default())
    }

    /// Begins a transaction.
    pub fn begin_with(&self, config: TransactionConfig) -> Transaction {
        Transaction::new(self.clone(), config)
    }

    /// Runs a transaction and commits it; runs it again where it conflicts, up to 64 times. Returns what
    /// `run` returned and the revision of the commit.
    ///
    /// # Errors
    /// What `run` returned, or the commit.
    pub async fn transact<T, F>(
        &self,
        isolation: Isolation,
        mut run: F,
    ) -> Result<(T, u64), DbError>
    where
        F: AsyncFnMut(&mut Transaction) -> Result<T, DbError>,
    {
        let mut left = ATTEMPTS_MAX;
        loop {
            left -= 1;
            let config = TransactionConfig { isolation, ..TransactionConfig::default() };
            let mut tx = self.begin_with(config);
            let outcome = match run(&mut tx).await {
                Ok(value) => tx.commit().await.map(|revision| (value, revision)),
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if error.is_conflict() && left > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// As [`PrkDb::transact`], on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn transact_blocking<T>(
        &self,
        isolation: Isolation,
        mut run: impl FnMut(&mut Transaction) -> Result<T, DbError>,
    ) -> Result<(T, u64), DbError> {
        let mut left = ATTEMPTS_MAX;
        loop {
            left -= 1;
            let config = TransactionConfig { isolation, ..TransactionConfig::default() };
            let mut tx = self.begin_with(config);
            let outcome =
                run(&mut tx).and_then(|value| tx.commit().wait().map(|revision| (value, revision)));
            match outcome {
                Err(error) if error.is_conflict() && left > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// Creates a collection, or returns the one of that name with the same settings.
    ///
    /// # Errors
    /// `CollectionExists` where one has other settings; `InvalidArgument` for a name or settings that no
    /// collection can have.
    pub fn create_collection(&self, name: &str, settings: CollectionSettings) -> Reply<Collection> {
        let name = match CollectionName::parse(name) {
            Ok(name) => name,
            Err(error) => return Reply::ready(Err(refused(error.code(), error.to_string()))),
        };
        self.beside(move |db| catalog::create(db, name, settings))
    }

    /// Changes a collection: how long values last and records are kept, and how many partitions there are.
    /// Handles that are there already go on with what they know; the one returned knows more partitions.
    ///
    /// # Errors
    /// [`DbError::NoSuchCollection`]; `AlterRefused` for other partitions where there is a key index, and
    /// for fewer; `InvalidArgument` for what no collection can be.
    pub fn alter_collection(&self, name: &str, changes: CollectionChanges) -> Reply<Collection> {
        let name = name.to_owned();
        self.beside(move |db| catalog::alter(db, &name, changes))
    }

    /// Drops a collection with everything in it.
    ///
    /// # Errors
    /// [`DbError::NoSuchCollection`].
    pub fn drop_collection(&self, name: &str) -> Reply<()> {
        let name = name.to_owned();
        self.beside(move |db| catalog::drop_collection(db, &name))
    }

    /// Returns a collection.
    ///
    /// # Errors
    /// [`DbError::NoSuchCollection`].
    pub fn collection(&self, name: &str) -> Result<Collection, DbError> {
        catalog::find(self, name)
    }

    /// Returns the names of the collections, in order.
    pub fn collections(&self) -> Vec<String> {
        let catalog = self.shard().catalog();
        catalog.live().map(|row| row.name.as_str().to_owned()).collect()
    }

    /// Takes a checkpoint of all that was applied before the call: the next opening reads the log from there
    /// on. Where the durability is relaxed it waits for the next sync.
    ///
    /// # Errors
    /// That it could not be written; `DiskFull` where there is no room for it.
    pub fn checkpoint(&self) -> Reply<()> {
        let asked = self.0.checkpointer.ask();
        self.beside(|db| match asked.blocking_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NoCheckpoint::Failed(error))) => Err(DbError::Storage(error)),
            Ok(Err(why @ NoCheckpoint::NoRoom)) => {
                Err(refused(ErrorCode::DiskFull, format!("no checkpoint: {why}")))
            }
            Ok(Err(why @ NoCheckpoint::NotNow(_))) => {
                Err(refused(ErrorCode::Internal, format!("no checkpoint: {why}")))
            }
            Err(_) => Err(db.0.applier.failure().unwrap_or(DbError::Closed)),
        })
    }

    /// Answers when everything that was acknowledged is synced: at once, unless the durability is relaxed.
    ///
    /// # Errors
    /// [`DbError::Unknown`] where the log failed meanwhile.
    pub fn sync(&self) -> Reply<()> {
        let (replier, reply) = Reply::waiting();
        self.engine().sync(replier);
        reply
    }

    /// Returns figures.
    pub fn stats(&self) -> Stats {
        let stats = self.shard().stats();
        Stats {
            revision: self.shard().revision(),
            keys: stats.keys,
            index_bytes: stats.index_bytes,
            log_bytes: stats.log_bytes,
            groups_written: self.0.applier.groups(),
        }
    }

    /// Writes what is under way, syncs it, and ends the threads. Other handles' writes are refused from then on;
    /// what they read is what was applied. The directory stays locked until the last of them, and of the
    /// [`Kv`]s, [`Stream`]s and [`Transaction`]s, is dropped.
    ///
    /// # Errors
    /// The error that ended the log, if one did.
    pub fn close(self) -> Result<(), DbError> {
        self.0.close()
    }

    /// Writes; the answer is made of how it ended.
    pub(super) fn write<T: Send + 'static>(
        &self,
        request: WriteRequest,
        answer: impl FnOnce(Done) -> T + Send + 'static,
    ) -> Reply<T> {
        let (replier, reply) = Reply::waiting();
        self.engine().submit(request, Box::new(move |done| replier.answer(done.map(answer))));
        reply
    }

    pub(super) fn catalogue_lock(&self) -> &Mutex<()> {
        &self.0.catalogue
    }

    /// Runs something rare that blocks on a thread of its own.
    pub(super) fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, DbError> + Send + 'static,
    ) -> Reply<T> {
        let (replier, reply) = Reply::waiting();
        let db = self.clone();
        let spawned = thread::Builder::new().name("catalogue".to_owned()).spawn(move || {
            let answer = work(&db);
            // Whoever hears the answer may be the last who holds the database.
            drop(db);
            replier.answer(answer);
        });
        match spawned {
            Ok(_detached) => reply,
            Err(source) => {
                let path = self.0.directory.path().to_owned();
                Reply::ready(Err(DbError::io("start a thread for", path)(source)))
            }
        }
    }
}

pub(super) fn overloaded(message: String) -> DbError {
    refused(ErrorCode::Overloaded, message)
}
