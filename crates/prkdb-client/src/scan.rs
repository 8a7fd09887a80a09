//! Reading keys in order.

use bytes::Bytes;
use prkdb_proto::v1;
use tokio::time::Instant;

use crate::{error::ClientError, kv::Consistency};

pub use prkdb_proto::v1::scan_reply::{Row, ShardRevision};

/// Which keys to read, and what of them.
#[derive(Clone, Debug)]
pub struct Scan {
    pub(crate) request: v1::ScanRequest,
}

impl Scan {
    /// Reads every key of `collection`.
    pub fn new(collection: impl Into<String>) -> Self {
        let request = v1::ScanRequest {
            collection: collection.into(),
            prefix: Bytes::new(),
            from: Bytes::new(),
            to: Bytes::new(),
            limit: 0,
            reverse: false,
            keys_only: false,
            count_only: false,
            consistency: 0,
        };
        Self { request }.consistency(Consistency::default())
    }

    /// Only keys that begin with it.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Begins at this key, inclusive.
    #[must_use]
    pub fn from(mut self, key: impl Into<Bytes>) -> Self {
        self.request.from = key.into();
        self
    }

    /// Ends before this key.
    #[must_use]
    pub fn to(mut self, key: impl Into<Bytes>) -> Self {
        self.request.to = key.into();
        self
    }

    /// At most so many keys; 0 = no limit.
    #[must_use]
    pub fn limit(mut self, keys: u64) -> Self {
        self.request.limit = keys;
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.request.reverse = true;
        self
    }

    /// Leaves the values out.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Asks for the number of keys alone.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Chooses how fresh the read must be.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.request.set_consistency(consistency.into());
        self
    }
}

/// Rows of a scan, in order, page by page.
#[derive(Debug)]
pub struct ScanStream {
    pub(crate) pages: tonic::Streaming<v1::ScanReply>,
    pub(crate) address: String,
    /// Until when the first page must have come; none after it.
    pub(crate) first_by: Option<Instant>,
    pub(crate) rows: std::vec::IntoIter<Row>,
    pub(crate) revisions: Vec<ShardRevision>,
    pub(crate) count: Option<u64>,
}

impl ScanStream {
    /// Returns the next row; `None` after the last.
    ///
    /// Cancel safety: dropping the future loses no row.
    ///
    /// # Errors
    /// What the server answered, or that the stream ended before its end.
    pub async fn next_row(&mut self) -> Result<Option<Row>, ClientError> {
        todo!()
    }

    /// Reads to the end and returns how many keys were found.
    ///
    /// # Errors
    /// As [`Self::next_row`].
    pub async fn finish(&mut self) -> Result<u64, ClientError> {
        todo!()
    }

    /// Returns what each shard was read at; empty before the first row was asked for.
    pub fn revisions(&self) -> &[ShardRevision] {
        &self.revisions
    }

    /// Returns how many keys were found; `None` before the end.
    pub fn count(&self) -> Option<u64> {
        self.count
    }
}
