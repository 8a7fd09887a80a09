//! The client: one handle for every operation.

use std::sync::Arc;

use prkdb_proto::v1;
use tokio::time::Instant;

use crate::{
    error::ClientError,
    kv::{Delete, Get, MultiGet, Put, Read, Written},
    options::ClientOptions,
    routes::Partitions,
    scan::{Scan, ScanStream},
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
    deadline: Option<Instant>,
    options: Arc<ClientOptions>,
}

impl Client {
    /// Connects to the first server that answers, in the order given.
    ///
    /// # Errors
    /// `Unreachable` with every address and its reason, or what the server answered.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let _ = options;
        todo!()
    }

    /// Returns a handle whose operations all end at `deadline`; `None` = no limit.
    #[must_use]
    pub fn with_deadline(&self, deadline: Option<Instant>) -> Self {
        Self { deadline, options: Arc::clone(&self.options) }
    }

    /// Returns the address of the server that was connected to first, as `host:port`.
    pub fn server(&self) -> &str {
        todo!()
    }

    /// Stores a value and returns once it is durable and applied.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::outcome`] says what is known about the write.
    pub async fn put(&self, put: Put) -> Result<Written, ClientError> {
        let _ = put;
        todo!()
    }

    /// Deletes a key. A key without a value is left alone: `existed` is false then.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, delete: Delete) -> Result<Written, ClientError> {
        let _ = delete;
        todo!()
    }

    /// Reads the latest value of a key. A key without one is no error.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, get: Get) -> Result<Read, ClientError> {
        let _ = get;
        todo!()
    }

    /// Reads many keys; the answers are in the order asked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn multi_get(&self, get: MultiGet) -> Result<Vec<Read>, ClientError> {
        let _ = get;
        todo!()
    }

    /// Begins to read keys in order. The deadline covers the first page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scan(&self, scan: Scan) -> Result<ScanStream, ClientError> {
        let _ = scan;
        todo!()
    }

    /// Returns the partitions of a collection, from memory where they are known.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn partitions(&self, collection: &str) -> Result<Arc<Partitions>, ClientError> {
        let _ = collection;
        todo!()
    }

    /// Lists the collections.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_collections(
        &self,
        listing: Listing,
    ) -> Result<Vec<v1::CollectionState>, ClientError> {
        let _ = listing;
        todo!()
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
        let _ = (name, settings);
        todo!()
    }

    /// Describes a collection.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn describe_collection(
        &self,
        name: &str,
    ) -> Result<v1::CollectionState, ClientError> {
        let _ = name;
        todo!()
    }

    /// Drops a collection with everything in it.
    ///
    /// # Errors
    /// `NotFound` where no collection has that name.
    pub async fn drop_collection(&self, name: &str) -> Result<(), ClientError> {
        let _ = name;
        todo!()
    }

    /// Asks where things are.
    ///
    /// # Errors
    /// `NotFound` where no collection has one of the names.
    pub async fn metadata(&self, collections: &[&str]) -> Result<v1::MetadataReply, ClientError> {
        let _ = collections;
        todo!()
    }

    /// Asks the server how it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<v1::StatusReply, ClientError> {
        todo!()
    }

    /// Returns the server's metrics as OpenMetrics text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        todo!()
    }

    /// Asks for the server's version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<v1::VersionReply, ClientError> {
        todo!()
    }

    /// Asks whether a service answers requests; an empty name means the server as a whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn health(&self, service: &str) -> Result<Health, ClientError> {
        let _ = service;
        todo!()
    }
}
