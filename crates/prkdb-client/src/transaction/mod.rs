//! Transactions: reads of one snapshot, writes that are kept here, one commit.
//!
//! The snapshot is taken with the first read, by the leader of the shard that the key lies in, which keeps
//! it for as long as the transaction uses it. Everything else must lie in that shard. What is written stays
//! here until the commit, and reads see it.

mod commit;

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use prkdb_proto::v1;
use prkdb_types::{
    ErrorCode, Isolation, TransactionError,
    transaction::{Buffer, Order, RangeRead, Source},
};

use crate::{
    attempts::{Attempts, Effect},
    client::Client,
    error::ClientError,
    link::Link,
};

/// Most rows that are asked for at once.
const PAGE_ROWS: usize = 1000;
/// Most bytes of a transaction's writes, unless it says otherwise.
const WRITE_BYTES_MAX: usize = 64 << 20;

/// How a transaction is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What it is kept from seeing. Default [`Isolation::Snapshot`].
    pub isolation: Isolation,
    /// Most bytes that its writes may take in memory. Default 64 MiB. What a server takes is checked when
    /// it is committed.
    pub bytes_max: usize,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { isolation: Isolation::Snapshot, bytes_max: WRITE_BYTES_MAX }
    }
}

/// A transaction that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entry that holds all of it. For one that wrote nothing, what its snapshot has; 0 if it read
    /// nothing either.
    pub revision: u64,
    /// The shard's time when it was appended, in milliseconds since 1970.
    pub append_time_ms: i64,
    /// Whether an earlier attempt had been applied, whose answer this is.
    pub duplicate: bool,
}

/// A snapshot that a server keeps.
#[derive(Clone, Debug)]
struct Kept {
    id: u64,
    revision: u64,
    /// Where it is kept.
    address: String,
}

/// A transaction under way. Dropped, nothing of it was ever there; its snapshot is let go when it was not
/// used for a while, or at once by [`Transaction::rollback`].
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    buffer: Buffer<Arc<str>>,
    kept: Option<Kept>,
}

impl Transaction {
    pub(crate) fn new(client: Client, options: TransactionOptions) -> Self {
        let buffer = Buffer::new(options.isolation, options.bytes_max);
        Self { client, buffer, kept: None }
    }

    /// Returns what it is kept from seeing.
    pub fn isolation(&self) -> Isolation {
        self.buffer.isolation()
    }

    /// Returns the revision of its snapshot; `None` before the first read.
    pub fn revision(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.revision)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// `CrossShard` where it lies in another shard than the transaction; `SnapshotGone` where the server
    /// does not keep the snapshot any more: run the transaction again. See [`ClientError`].
    pub async fn get(
        &mut self,
        collection: &str,
        key: impl Into<Bytes>,
    ) -> Result<Option<Bytes>, ClientError> {
        let (name, key) = (Arc::<str>::from(collection), key.into());
        if let Some(written) = self.buffer.get(&name, &key) {
            // The clone counts a reference.
            return Ok(written.cloned());
        }
        let kept = self.kept(collection, &key).await?;
        self.buffer.note_read(name, key.clone()).map_err(refused)?;
        let message = v1::ReadTxnRequest {
            snapshot: kept.id,
            collection: collection.to_owned(),
            keys: vec![key],
        };
        let call = |link: Arc<Link>, request| async move { link.txn().read(request).await };
        let reply = self.client.shared.call_at(self.attempts("get"), kept.address, message, call);
        let items: [v1::read_txn_reply::Item; 1] =
            reply.await?.items.try_into().map_err(|_| wrong_answer())?;
        let [item] = items;
        Ok(item.found.map(|found| found.value))
    }

    /// Reads keys of a collection between two bounds, in order, at most `limit` of them. All partitions of
    /// the collection must lie in the transaction's shard.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn scan(
        &mut self,
        collection: &str,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ClientError> {
        // Any key of the collection leads to its shard.
        let kept = self.kept(collection, &Bytes::from_static(b"\0")).await?;
        let name = Arc::<str>::from(collection);
        let owned = |bound: Bound<&[u8]>| bound.map(Bytes::copy_from_slice);
        let (mut rest_from, mut rest_to) = (owned(from), owned(to));
        let written =
            self.buffer.merge(&name, (from, to), order, std::iter::empty::<(Bytes, ())>());
        // So many rows below may be hidden by deletes: then there are still enough.
        let wanted = limit.saturating_add(self.buffer.len()).max(written.count());
        let mut base: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let message = v1::ScanTxnRequest {
                snapshot: kept.id,
                collection: collection.to_owned(),
                range: Some(wire_range(&rest_from, &rest_to)),
                reverse: order == Order::Reverse,
                limit: u32::try_from(wanted.saturating_sub(base.len()).min(PAGE_ROWS)).unwrap_or(0),
            };
            let call = |link: Arc<Link>, request| async move { link.txn().scan(request).await };
            let attempts = self.attempts("scan");
            let page =
                self.client.shared.call_at(attempts, kept.address.clone(), message, call).await?;
            base.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
            let last = base.last().map(|(key, _)| key.clone());
            match (last, order) {
                (Some(last), Order::Forward) => rest_from = Bound::Excluded(last),
                (Some(last), Order::Reverse) => rest_to = Bound::Excluded(last),
                (None, _) => break,
            }
            if !page.more || base.len() >= wanted {
                break;
            }
        }
        let merged = self.buffer.merge(&name, (from, to), order, base.into_iter());
        let rows: Vec<(Bytes, Bytes)> = merged
            .take(limit)
            .map(|(key, source)| match source {
                Source::Written(value) | Source::Base(value) => (key, value),
            })
            .collect();
        // Behind the last row of a full page nothing was read.
        let last = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
        let (from, to) = match (last, order) {
            (Some(last), Order::Forward) => (owned(from), Bound::Included(last)),
            (Some(last), Order::Reverse) => (Bound::Included(last), owned(to)),
            (None, _) => (owned(from), owned(to)),
        };
        self.buffer.note_range(RangeRead { collection: name, from, to }).map_err(refused)?;
        Ok(rows)
    }

    /// Writes a value. It is kept here until the commit.
    ///
    /// # Errors
    /// `MessageTooLarge` at a limit of the transaction.
    pub fn put(
        &mut self,
        collection: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        self.buffer.put(collection.into(), key.into(), value.into()).map_err(refused)
    }

    /// Takes a key's value away. It is kept here until the commit.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, collection: &str, key: impl Into<Bytes>) -> Result<(), ClientError> {
        self.buffer.delete(collection.into(), key.into()).map_err(refused)
    }

    /// Sets a mark that the transaction can go back to.
    ///
    /// # Errors
    /// `MessageTooLarge` where there are too many.
    pub fn savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.buffer.savepoint(name).map_err(refused)
    }

    /// Undoes what was written since a mark. The mark stays; marks set after it go.
    ///
    /// # Errors
    /// `InvalidArgument` where there is none of that name.
    pub fn rollback_to_savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.buffer.rollback_to(name).map_err(refused)
    }

    /// Forgets a mark and those set after it; what was written stays.
    ///
    /// # Errors
    /// As [`Transaction::rollback_to_savepoint`].
    pub fn release_savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.buffer.release(name).map_err(refused)
    }

    /// Ends it: nothing of it is applied, and its snapshot is let go.
    ///
    /// # Errors
    /// That the server could not be told, which changes nothing.
    pub async fn rollback(self) -> Result<(), ClientError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let message = v1::RollbackTxnRequest { snapshot: kept.id };
        let call = |link: Arc<Link>, request| async move { link.txn().rollback(request).await };
        let attempts = self.attempts("rollback");
        let _reply: v1::RollbackTxnReply =
            self.client.shared.call_at(attempts, kept.address.clone(), message, call).await?;
        Ok(())
    }

    /// Commits it: all of it is applied in one entry, or nothing is.
    ///
    /// # Errors
    /// `ConflictDetected`, with [`ClientError::conflict`], and `SnapshotGone`: run it again.
    /// `CrossShard` where its keys lie in two shards. `UnknownOutcome` where nobody knows.
    pub async fn commit(self) -> Result<Committed, ClientError> {
        if self.buffer.is_empty() {
            let revision = self.revision().unwrap_or(0);
            // It read one snapshot: nothing can conflict with that.
            self.rollback().await?;
            return Ok(Committed { revision, append_time_ms: 0, duplicate: false });
        }
        let attempts = self.client.attempts("commit", Effect::Repeatable);
        self.client.shared.commit(&self.buffer, self.kept.as_ref(), attempts).await
    }

    /// Returns the snapshot, which is taken now if it was not yet.
    async fn kept(&mut self, collection: &str, key: &Bytes) -> Result<Kept, ClientError> {
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let partitions = self.client.partitions(collection).await?;
        let address = partitions.leader(partitions.of(key)).to_owned();
        let message = v1::BeginTxnRequest { collection: collection.to_owned(), key: key.clone() };
        let call = |link: Arc<Link>, request| async move { link.txn().begin(request).await };
        let attempts = self.attempts("begin");
        let begun = self.client.shared.call_at(attempts, address.clone(), message, call).await?;
        let kept = Kept { id: begun.snapshot, revision: begun.revision, address };
        self.kept = Some(kept.clone());
        Ok(kept)
    }

    fn attempts(&self, operation: &'static str) -> Attempts {
        self.client.attempts(operation, Effect::None)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn refused(error: TransactionError) -> ClientError {
    ClientError::Request { code: error.code(), message: error.to_string() }
}

fn wrong_answer() -> ClientError {
    ClientError::Protocol {
        address: "the server".to_owned(),
        reason: "the answer does not fit the keys asked for".to_owned(),
    }
}

/// Returns whether a transaction that ended with it may be run again from its start.
pub(crate) fn is_conflict(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ConflictDetected | ErrorCode::SnapshotGone)
}

fn wire_range(from: &Bound<Bytes>, to: &Bound<Bytes>) -> v1::KeyRange {
    let (from, from_excluded) = match from {
        Bound::Unbounded => (Bytes::new(), false),
        Bound::Included(key) => (key.clone(), false),
        Bound::Excluded(key) => (key.clone(), true),
    };
    let (to, to_included) = match to {
        Bound::Unbounded => (None, false),
        Bound::Included(key) => (Some(key.clone()), true),
        Bound::Excluded(key) => (Some(key.clone()), false),
    };
    v1::KeyRange { from, from_excluded, to, to_included }
}
