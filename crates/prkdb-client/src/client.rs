//! The client: one handle for every operation.

use std::sync::Arc;

use prkdb_proto::v1;
use prkdb_types::{
    CollectionChanges, ErrorCode, ErrorKind, Isolation, SettingsError, headers::Ttl,
};
use tokio::time::Instant;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    attempts::{Attempts, Effect, Pauses},
    backup::BackupStream,
    error::ClientError,
    kv::{Delete, Expire, Get, MultiGet, Put, Read, Renewed, Written},
    link::Link,
    options::ClientOptions,
    routes::Partitions,
    scan::{Scan, ScanStream},
    shared::Shared,
    transaction::{Committed, Transaction, TransactionOptions},
    write::Write,
};

/// Which collections to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Those that people made.
    Named,
    /// Also those whose name begins with two underscores.
    All,
}

/// What a health check answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The service answers requests.
    Serving,
    /// It does not, or not yet.
    NotServing,
}

/// A handle on a cluster. Clones share connections, lanes and what is known of the cluster.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    limit: Limit,
}

/// Until when operations may take.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Each has the timeout of the options.
    Each,
    /// All end at this instant; `None` = never.
    Until(Option<Instant>),
}

impl Client {
    /// Connects to the first server that answers, in the order given.
    ///
    /// # Errors
    /// `Unreachable` with every address and its reason, or what the server answered.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let client = Self { shared: Arc::new(Shared::new(options)), limit: Limit::Each };
        let mut attempts = Attempts::new("connect", Effect::None, client.deadline(), 0);
        match attempts.within(false, client.shared.pool.home()).await {
            Ok(_link) => Ok(client),
            Err(fault) => match attempts.next(fault).await {
                Err(error) => Err(error),
                Ok(_) => Err(ClientError::Closed),
            },
        }
    }

    /// Returns a handle whose operations all end at `deadline`; `None` = no limit.
    #[must_use]
    pub fn with_deadline(&self, deadline: Option<Instant>) -> Self {
        // A clone shares the connections.
        Self { shared: Arc::clone(&self.shared), limit: Limit::Until(deadline) }
    }

    /// Returns the address of the server that operations go to unless they belong elsewhere.
    pub fn server(&self) -> String {
        self.shared.pool.home_address()
    }

    /// Stores a value and returns once it is durable and applied.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::outcome`] says what is known about the write.
    pub async fn put(&self, put: Put) -> Result<Written, ClientError> {
        let write = Write::put(put, || self.shared.options.clock.now_ms());
        let attempts = self.attempts("put", Effect::Repeatable);
        self.shared.write(write, attempts).await.map(Written::from)
    }

    /// Deletes a key. A key without a value is left alone: `existed` is false then.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, delete: Delete) -> Result<Written, ClientError> {
        let write = Write::delete(delete, || self.shared.options.clock.now_ms());
        let attempts = self.attempts("delete", Effect::Repeatable);
        self.shared.write(write, attempts).await.map(Written::from)
    }

    /// Gives a key's value another time to live: its record is appended once more. A key without a value
    /// is left alone: `existed` is false then.
    ///
    /// # Errors
    /// As [`Self::put`]. After an unknown outcome it may be sent again: the time then counts from there.
    pub async fn expire(&self, expire: Expire) -> Result<Renewed, ClientError> {
        let attempts = self.attempts("expire", Effect::Repeatable);
        let call = |link: Arc<Link>, request| async move { link.kv().expire(request).await };
        self.shared.call(attempts, expire.request, call).await.map(Renewed::from)
    }

    /// Reads the latest value of a key. A key without one is no error.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, get: Get) -> Result<Read, ClientError> {
        let attempts = self.attempts("get", Effect::None);
        self.shared.get(get.request, attempts).await.map(Read::from)
    }

    /// Reads many keys; the answers are in the order asked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn multi_get(&self, get: MultiGet) -> Result<Vec<Read>, ClientError> {
        let attempts = self.attempts("get", Effect::None);
        let replies = self.shared.multi_get(get.request, attempts).await?;
        Ok(replies.into_iter().map(Read::from).collect())
    }

    /// Begins to read keys in order. The deadline covers the first page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scan(&self, scan: Scan) -> Result<ScanStream, ClientError> {
        ScanStream::open(&self.shared, self.attempts("scan", Effect::None), scan).await
    }

    /// Begins a transaction with snapshot isolation.
    pub fn begin(&self) -> Transaction {
        self.begin_with(TransactionOptions::default())
    }

    /// Begins a transaction.
    pub fn begin_with(&self, options: TransactionOptions) -> Transaction {
        // A clone shares the connections.
        Transaction::new(self.clone(), options)
    }

    /// Runs a transaction and commits it; runs it again where it conflicts, up to 64 times, after a pause
    /// that grows. `run` must not do anything that cannot be done twice.
    ///
    /// # Errors
    /// What `run` returned, or the commit.
    pub async fn transact<T, F>(
        &self,
        isolation: Isolation,
        mut run: F,
    ) -> Result<(T, Committed), ClientError>
    where
        F: AsyncFnMut(&mut Transaction) -> Result<T, ClientError>,
    {
        let mut pauses = Pauses::default();
        loop {
            let options = TransactionOptions { isolation, ..TransactionOptions::default() };
            let mut tx = self.begin_with(options);
            let outcome = match run(&mut tx).await {
                Ok(value) => tx.commit().await.map(|committed| (value, committed)),
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if error.is_conflict() => pauses.rest(error).await?,
                outcome => return outcome,
            }
        }
    }

    /// Returns the partitions of a collection, from memory where they are known.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn partitions(&self, collection: &str) -> Result<Arc<Partitions>, ClientError> {
        let mut attempts = self.attempts("metadata", Effect::None);
        loop {
            let asked = attempts.within(false, self.shared.partitions(collection)).await;
            match asked {
                Ok(partitions) => return Ok(partitions),
                Err(fault) => attempts.next(fault).await?,
            };
        }
    }

    /// Lists the collections.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_collections(
        &self,
        listing: Listing,
    ) -> Result<Vec<v1::CollectionState>, ClientError> {
        let attempts = self.attempts("list collections", Effect::None);
        let message = v1::ListCollectionsRequest { internal: listing == Listing::All };
        let call = |link: Arc<Link>, request| async move { link.collections().list(request).await };
        Ok(self.shared.call(attempts, message, call).await?.collections)
    }

    /// Creates a collection; `changed` is false where it exists with the same settings.
    ///
    /// # Errors
    /// `Conflict` where it exists with other settings.
    pub async fn create_collection(
        &self,
        name: &str,
        settings: v1::CollectionSettings,
    ) -> Result<v1::CreateCollectionReply, ClientError> {
        let attempts = self.attempts("create collection", Effect::Repeatable);
        let message =
            v1::CreateCollectionRequest { name: name.to_owned(), settings: Some(settings) };
        let call =
            |link: Arc<Link>, request| async move { link.collections().create(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Describes a collection.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn describe_collection(
        &self,
        name: &str,
    ) -> Result<v1::CollectionState, ClientError> {
        let attempts = self.attempts("describe collection", Effect::None);
        let message = v1::DescribeCollectionRequest { name: name.to_owned() };
        let call =
            |link: Arc<Link>, request| async move { link.collections().describe(request).await };
        let reply = self.shared.call(attempts, message, call).await?;
        reply.state.ok_or_else(|| incomplete("a collection"))
    }

    /// Changes a collection; `changed` is false where it is so already.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name; `Conflict` for other partitions where there is a key
    /// index, and for fewer; `Invalid` for a time to live of nothing.
    pub async fn alter_collection(
        &self,
        name: &str,
        changes: CollectionChanges,
    ) -> Result<v1::AlterCollectionReply, ClientError> {
        let attempts = self.attempts("alter collection", Effect::Repeatable);
        let CollectionChanges { partitions, ttl, retention_ms, retention_bytes } = changes;
        let ttl_ms = match ttl {
            // On the wire that is one without end.
            Some(Ttl::Ms(0)) => {
                let message = SettingsError::Ttl(0).to_string();
                return Err(ClientError::Request { code: ErrorCode::InvalidArgument, message });
            }
            Some(Ttl::Ms(ttl_ms)) => Some(ttl_ms),
            Some(Ttl::Never) => Some(0),
            None => None,
        };
        let message = v1::AlterCollectionRequest {
            name: name.to_owned(),
            partitions,
            ttl_ms,
            retention_ms,
            retention_bytes,
        };
        let call =
            |link: Arc<Link>, request| async move { link.collections().alter(request).await };
        let reply = self.shared.call(attempts, message, call).await?;
        if let Some(known) = self.shared.routes.known(name) {
            self.shared.routes.forget(&known);
        }
        Ok(reply)
    }

    /// Turns places in partitions into offsets, in the order asked. Without items, every partition is
    /// told with its start and end.
    ///
    /// # Errors
    /// `NotFound` where the collection or a partition does not exist.
    pub async fn list_offsets(
        &self,
        collection: &str,
        items: Vec<v1::list_offsets_request::Item>,
    ) -> Result<Vec<v1::list_offsets_reply::Item>, ClientError> {
        let attempts = self.attempts("list offsets", Effect::None);
        let message = v1::ListOffsetsRequest { collection: collection.to_owned(), items };
        let call =
            |link: Arc<Link>, request| async move { link.stream().list_offsets(request).await };
        Ok(self.shared.call(attempts, message, call).await?.items)
    }

    /// Lists the consumer groups, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_groups(&self) -> Result<Vec<v1::Group>, ClientError> {
        let attempts = self.attempts("list groups", Effect::None);
        let message = v1::ListGroupsRequest {};
        let call =
            |link: Arc<Link>, request| async move { link.groups().list_groups(request).await };
        Ok(self.shared.call(attempts, message, call).await?.groups)
    }

    /// Lets the partitions of a collection, or one of them, begin later.
    ///
    /// # Errors
    /// `NotFound` where the collection or the partition does not exist.
    pub async fn truncate_collection(
        &self,
        request: v1::TruncateCollectionRequest,
    ) -> Result<v1::TruncateCollectionReply, ClientError> {
        let attempts = self.attempts("truncate collection", Effect::Repeatable);
        let call =
            |link: Arc<Link>, request| async move { link.collections().truncate(request).await };
        self.shared.call(attempts, request, call).await
    }

    /// Drops a collection with everything in it.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn drop_collection(&self, name: &str) -> Result<(), ClientError> {
        let attempts = self.attempts("drop collection", Effect::Once);
        let message = v1::DropCollectionRequest { name: name.to_owned() };
        let call = |link: Arc<Link>, request| async move { link.collections().drop(request).await };
        let _reply: v1::DropCollectionReply = self.shared.call(attempts, message, call).await?;
        if let Some(dropped) = self.shared.routes.known(name) {
            self.shared.routes.forget(&dropped);
        }
        Ok(())
    }

    /// Asks where things are.
    ///
    /// # Errors
    /// `NotFound` where no collection has one of the names.
    pub async fn metadata(&self, collections: &[&str]) -> Result<v1::MetadataReply, ClientError> {
        let attempts = self.attempts("metadata", Effect::None);
        let message = v1::MetadataRequest {
            collections: collections.iter().map(|name| String::from(*name)).collect(),
        };
        let call = |link: Arc<Link>, request| async move { link.admin().metadata(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Asks the server how it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<v1::StatusReply, ClientError> {
        let attempts = self.attempts("status", Effect::None);
        let message = v1::StatusRequest {};
        let call = |link: Arc<Link>, request| async move { link.admin().status(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Returns the server's metrics as `OpenMetrics` text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let attempts = self.attempts("metrics", Effect::None);
        let message = v1::MetricsRequest {};
        let call = |link: Arc<Link>, request| async move { link.admin().metrics(request).await };
        Ok(self.shared.call(attempts, message, call).await?.exposition)
    }

    /// Asks for the server's version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<v1::VersionReply, ClientError> {
        let attempts = self.attempts("version", Effect::None);
        let message = v1::VersionRequest {};
        let call = |link: Arc<Link>, request| async move { link.admin().version(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Takes a snapshot of every shard of a node; of the one that is asked for `None`.
    ///
    /// # Errors
    /// `NotFound` where the server is another node.
    pub async fn create_snapshot(
        &self,
        node: Option<u64>,
    ) -> Result<v1::CreateSnapshotReply, ClientError> {
        let attempts = self.attempts("create snapshot", Effect::Repeatable);
        let message = v1::CreateSnapshotRequest { node };
        let call =
            |link: Arc<Link>, request| async move { link.admin().create_snapshot(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Lists the snapshots that the server has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_snapshots(&self) -> Result<v1::ListSnapshotsReply, ClientError> {
        let attempts = self.attempts("list snapshots", Effect::None);
        let message = v1::ListSnapshotsRequest {};
        let call =
            |link: Arc<Link>, request| async move { link.admin().list_snapshots(request).await };
        self.shared.call(attempts, message, call).await
    }

    /// Asks for a backup of the server: every shard as it is at one entry, as files.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backup(&self) -> Result<BackupStream, ClientError> {
        let attempts = self.attempts("backup", Effect::None);
        BackupStream::open(&self.shared, attempts).await
    }

    /// Asks whether a service answers requests; an empty name means the server as a whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn health(&self, service: &str) -> Result<Health, ClientError> {
        let attempts = self.attempts("health", Effect::None);
        let message = HealthCheckRequest { service: service.to_owned() };
        let call = |link: Arc<Link>, request| async move {
            HealthClient::new(link.channel()).check(request).await
        };
        let reply = match self.shared.call(attempts, message, call).await {
            Ok(reply) => reply,
            // The health protocol's word for a service that the server does not know.
            Err(ClientError::Refused(refusal))
                if !refusal.detailed && refusal.code.kind() == ErrorKind::NotFound =>
            {
                return Ok(Health::NotServing);
            }
            Err(error) => return Err(error),
        };
        Ok(match reply.status() {
            ServingStatus::Serving => Health::Serving,
            ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
                Health::NotServing
            }
        })
    }

    /// Begins to count the attempts of an operation.
    pub(crate) fn attempts(&self, operation: &'static str, effect: Effect) -> Attempts {
        self.shared.attempts(operation, effect, self.deadline())
    }

    /// Returns when an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.limit {
            Limit::Each => self.shared.options.timeout.map(|timeout| Instant::now() + timeout),
            Limit::Until(deadline) => deadline,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

fn incomplete(what: &str) -> ClientError {
    ClientError::Protocol {
        address: "the server".to_owned(),
        reason: format!("the answer leaves out {what}"),
    }
}
