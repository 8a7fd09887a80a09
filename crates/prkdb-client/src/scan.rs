//! Reading keys in order.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_proto::v1;
use tonic::{Status, Streaming};

use crate::{
    attempts::{Attempts, Fault, Next},
    detail,
    error::ClientError,
    kv::Consistency,
    link::Link,
    pool::Borrowed,
    shared::Shared,
};

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

/// Rows of a scan, in order, page by page. The deadline covers the first page: what follows may take as
/// long as it takes, and a server that is gone is noticed by the connection's keep-alive.
///
/// It has a connection of its own, so that rows that wait for their reader hold up nothing else.
#[derive(Debug)]
pub struct ScanStream {
    pages: Streaming<v1::ScanReply>,
    /// The connection and whom it goes back to, until the last page.
    borrowed: Option<(Arc<Shared>, Arc<Link>)>,
    address: String,
    rows: std::vec::IntoIter<Row>,
    revisions: Vec<ShardRevision>,
    count: Option<u64>,
}

impl ScanStream {
    /// Opens the stream and reads its first page, with retries: nothing was handed out yet.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        mut attempts: Attempts,
        scan: Scan,
    ) -> Result<Self, ClientError> {
        let mut address = String::new();
        loop {
            let attempt = Self::attempt(shared, &address, &scan);
            let fault = match attempts.within(true, attempt).await {
                Ok(stream) => return Ok(stream),
                Err(fault) => fault,
            };
            address = match attempts.next(fault).await? {
                Next::Again => String::new(),
                Next::Follow(leader) => leader,
            };
        }
    }

    async fn attempt(shared: &Arc<Shared>, address: &str, scan: &Scan) -> Result<Self, Fault> {
        if scan.request.count_only {
            // One short answer.
            let link = shared.pool.at(address).await?;
            return Self::begin(&link, scan, None).await;
        }
        let Borrowed { link, was_idle } = shared.pool.borrow(address).await?;
        let lender = Some((Arc::clone(shared), Arc::clone(&link)));
        let begun = Self::begin(&link, scan, lender).await;
        if was_idle && begun.is_err() {
            // The others have been idle for longer.
            shared.pool.forget_idle(link.address());
        }
        begun
    }

    async fn begin(
        link: &Link,
        scan: &Scan,
        borrowed: Option<(Arc<Shared>, Arc<Link>)>,
    ) -> Result<Self, Fault> {
        let opened = link.kv().scan(scan.request.clone()).await;
        let mut pages = opened.map_err(|status| link.fault(status))?.into_inner();
        let first = pages.message().await.map_err(|status| link.fault(status))?;
        let mut stream = Self {
            pages,
            borrowed,
            address: link.address().to_owned(),
            rows: Vec::new().into_iter(),
            revisions: Vec::new(),
            count: None,
        };
        if let Some(page) = first {
            stream.take(page);
        }
        Ok(stream)
    }

    /// Returns the next row; `None` after the last.
    ///
    /// Cancel safety: dropping the future loses no row.
    ///
    /// # Errors
    /// What the server answered, or that the stream ended before its end.
    pub async fn next_row(&mut self) -> Result<Option<Row>, ClientError> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            if self.count.is_some() {
                return Ok(None);
            }
            match self.pages.message().await {
                Ok(Some(page)) => self.take(page),
                // The count comes last: without it rows may be missing.
                Ok(None) => return Err(self.broken(Status::unavailable("the scan was cut short"))),
                Err(status) if detail::is_transport(&status) => return Err(self.broken(status)),
                Err(status) => return Err(ClientError::from_status(&status)),
            }
        }
    }

    /// Reads to the end and returns how many keys were found.
    ///
    /// # Errors
    /// As [`Self::next_row`].
    pub async fn finish(&mut self) -> Result<u64, ClientError> {
        while self.next_row().await?.is_some() {}
        Ok(self.count.unwrap_or(0))
    }

    /// Returns what each shard was read at.
    pub fn revisions(&self) -> &[ShardRevision] {
        &self.revisions
    }

    /// Returns how many keys were found; `None` before the end.
    pub fn count(&self) -> Option<u64> {
        self.count
    }

    fn take(&mut self, page: v1::ScanReply) {
        self.rows = page.rows.into_iter();
        self.revisions.extend(page.revisions);
        self.count = self.count.or(page.count);
        if self.count.is_some()
            && let Some((shared, link)) = self.borrowed.take()
        {
            // Nothing more comes that could fill its window.
            shared.pool.give_back(link);
        }
    }

    fn broken(&self, status: Status) -> ClientError {
        ClientError::Broken {
            operation: "scan",
            address: self.address.clone(),
            source: Arc::new(status),
        }
    }
}
