//! The service `Txn`: snapshots that a client reads, and commits that rest on them.
//!
//! - `snapshots`: those that are kept, for how long and how many.
//! - `commit`: from a message to a request of the sequencer.
//!
//! A transaction covers one shard: whatever leads to another is refused, and nothing is applied.

mod commit;
mod snapshots;

use std::sync::Arc;

use bytes::Bytes;
use prkdb_proto::v1::{self, txn_server::Txn};
use prkdb_types::ErrorCode;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use self::snapshots::{Kept, Snapshots};
use super::{
    context::{Caller, Context},
    convert, kv,
};
use crate::{
    node::{
        metrics::Method,
        outcome::{Failure, WrittenKind},
        router::Route,
        security::{Action, Resource},
    },
    storage::sequencer::check_key,
};

/// Most keys of one read.
const KEYS_MAX: usize = 4096;
/// A page that has this many bytes is sent.
const PAGE_BYTES: usize = 768 << 10;
/// A page has at most this many rows.
const PAGE_ROWS: usize = 1000;
/// What a row takes beside its key and value, at most.
const ROW_OVERHEAD_BYTES: usize = 48;

/// The service.
#[derive(Debug)]
pub struct TxnService {
    context: Context,
    snapshots: Arc<Snapshots>,
    /// Lets go what nobody asks for any more; ends with the service.
    _sweeper: AbortOnDropHandle<()>,
}

impl TxnService {
    /// Returns the service of a node. Needs a runtime around it.
    pub fn new(context: Context) -> Self {
        let snapshots = Arc::new(Snapshots::default());
        let sweeper =
            AbortOnDropHandle::new(tokio::spawn(snapshots::sweep(Arc::clone(&snapshots))));
        Self { context, snapshots, _sweeper: sweeper }
    }

    async fn begin_now(&self, request: v1::BeginTxnRequest) -> Result<v1::BeginTxnReply, Failure> {
        let route = kv::read_route(&self.context, &request.collection)?;
        check_key(&request.key, self.context.node.config().max_key)?;
        let place = route.of(&request.key)?;
        let handle = self.context.node.shard(place.shard)?;
        handle.read_barrier().await?;
        // Before the snapshot: what is created between the two it may know, and is refused all the same.
        let last_collection = self.context.node.catalog().collections.keys().next_back().copied();
        let last_collection = last_collection.unwrap_or_default();
        let snapshot = Arc::new(handle.shard.snapshot());
        let revision = snapshot.revision();
        let kept = Kept { shard: place.shard, snapshot, last_collection };
        let kept = self.snapshots.keep(kept, Instant::now()).inspect_err(|failure| {
            if failure.code == ErrorCode::Overloaded {
                self.context.node.metrics().limit(crate::node::limits::names::TXN_SNAPSHOTS);
            }
        })?;
        let idle_ms = u32::try_from(snapshots::IDLE.as_millis()).unwrap_or(u32::MAX);
        Ok(v1::BeginTxnReply { snapshot: kept, revision, shard: place.shard, idle_ms })
    }

    fn read_now(&self, request: &v1::ReadTxnRequest) -> Result<v1::ReadTxnReply, Failure> {
        let route = kv::read_route(&self.context, &request.collection)?;
        if request.keys.len() > KEYS_MAX {
            let message = format!("{} keys, limit {KEYS_MAX} (txn-read-keys)", request.keys.len());
            return Err(Failure::new(ErrorCode::MessageTooLarge, message));
        }
        let kept = self.snapshots.find(request.snapshot, Instant::now())?;
        kept.check_collection(&route.collection)?;
        let max_message = self.context.node.config().max_message;
        let mut values = kept.snapshot.values();
        let (mut items, mut bytes) = (Vec::with_capacity(request.keys.len()), 0);
        for key in &request.keys {
            check_key(key, self.context.node.config().max_key)?;
            let place = route.of(key)?;
            check_shard(&kept, place.shard)?;
            let found = match kept.snapshot.leaf(route.collection.id, key) {
                Some(leaf) => Some(values.read(leaf).map_err(|error| Failure::from(&error))?),
                None => None,
            };
            bytes += found.as_ref().map_or(0, |found| found.value.len()) + ROW_OVERHEAD_BYTES;
            // One alone is as a get: it may be older than the limit.
            if bytes > max_message && request.keys.len() > 1 {
                let message = format!("the values are more than {max_message} bytes (max-message)");
                return Err(Failure::new(ErrorCode::MessageTooLarge, message));
            }
            let found =
                found.map(|found| convert::value(found, place.number, kept.snapshot.log_time_ms()));
            items.push(v1::read_txn_reply::Item { found });
        }
        Ok(v1::ReadTxnReply { items })
    }

    fn scan_now(&self, request: &v1::ScanTxnRequest) -> Result<v1::ScanTxnReply, Failure> {
        let route = kv::read_route(&self.context, &request.collection)?;
        let kept = self.snapshots.find(request.snapshot, Instant::now())?;
        kept.check_collection(&route.collection)?;
        for shard in route.shards() {
            check_shard(&kept, shard)?;
        }
        let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
            0 => PAGE_ROWS,
            limit => limit.min(PAGE_ROWS),
        };
        page(&kept, &route, request, limit)
    }

    async fn commit_now(
        &self,
        caller: &Caller,
        request: v1::CommitTxnRequest,
    ) -> Result<v1::CommitTxnReply, Failure> {
        self.context.authorise(Action::Observe, Resource::Cluster)?;
        let (bytes, id) = (request.encoded_len(), request.snapshot);
        let kept = match id {
            0 => None,
            id => Some(self.snapshots.find(id, Instant::now())),
        };
        let (shard, request) = commit::request(&self.context, request, kept)?;
        caller.check_deadline()?;
        let held = self.context.hold(caller, bytes)?;
        let written = kv::submit(&self.context, caller, held, shard, request).await;
        // One that was refused for a while is sent again, and rests on the snapshot still.
        if written.as_ref().err().is_none_or(|failure| is_over(failure.code)) {
            self.snapshots.let_go(id);
        }
        let written = written.map_err(|failure| self.named(failure))?;
        Ok(v1::CommitTxnReply {
            revision: written.revision,
            append_time_ms: written.append_time_ms,
            duplicate: written.kind == WrittenKind::Duplicate,
        })
    }

    /// Says the collection of a conflict by its name.
    fn named(&self, mut failure: Failure) -> Failure {
        if let Some(conflict) = &mut failure.conflict
            && let Ok(id) = conflict.collection.parse()
            && let Some(known) = self.context.node.catalog().collections.get(&id)
        {
            known.name.as_str().clone_into(&mut conflict.collection);
        }
        failure
    }
}

/// Returns whether an answer ends a transaction.
fn is_over(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ConflictDetected | ErrorCode::SnapshotGone | ErrorCode::CrossShard)
}

/// Refuses what does not lie in the transaction's shard.
fn check_shard(kept: &Kept, shard: u32) -> Result<(), Failure> {
    if kept.shard == shard { Ok(()) } else { Err(commit::cross_shard(kept.shard, shard)) }
}

fn page(
    kept: &Kept,
    route: &Route,
    request: &v1::ScanTxnRequest,
    limit: usize,
) -> Result<v1::ScanTxnReply, Failure> {
    let (from, to) = commit::bounds(request.range.as_ref());
    let (from, to) = (from.as_ref().map(Bytes::as_ref), to.as_ref().map(Bytes::as_ref));
    let mut rest = kept.snapshot.range(route.collection.id, from, to);
    let mut values = kept.snapshot.values();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < limit && bytes < PAGE_BYTES {
        let next = if request.reverse { rest.next_back() } else { rest.next() };
        let Some((key, leaf)) = next else { break };
        let value = values.read(leaf).map_err(|error| Failure::from(&error))?.value;
        bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
        rows.push(v1::scan_txn_reply::Row { key: key.into(), value });
    }
    let more = if request.reverse { rest.next_back() } else { rest.next() };
    Ok(v1::ScanTxnReply { rows, more: more.is_some() })
}

#[tonic::async_trait]
impl Txn for TxnService {
    async fn begin(
        &self,
        request: Request<v1::BeginTxnRequest>,
    ) -> Result<Response<v1::BeginTxnReply>, Status> {
        let begun = async {
            let caller = Caller::of(&request);
            caller.check_deadline()?;
            self.begin_now(request.into_inner()).await
        };
        self.context.answer_read(Method::BeginTxn, begun).await
    }

    async fn read(
        &self,
        request: Request<v1::ReadTxnRequest>,
    ) -> Result<Response<v1::ReadTxnReply>, Status> {
        let read = async {
            let caller = Caller::of(&request);
            let request = request.into_inner();
            self.context.authorise(Action::Read, Resource::Collection(&request.collection))?;
            caller.check_deadline()?;
            let _held = self.context.hold(&caller, request.encoded_len())?;
            self.read_now(&request)
        };
        self.context.answer_read(Method::ReadTxn, read).await
    }

    async fn scan(
        &self,
        request: Request<v1::ScanTxnRequest>,
    ) -> Result<Response<v1::ScanTxnReply>, Status> {
        let read = async {
            let caller = Caller::of(&request);
            let request = request.into_inner();
            self.context.authorise(Action::Read, Resource::Collection(&request.collection))?;
            caller.check_deadline()?;
            self.scan_now(&request)
        };
        self.context.answer_read(Method::ScanTxn, read).await
    }

    async fn commit(
        &self,
        request: Request<v1::CommitTxnRequest>,
    ) -> Result<Response<v1::CommitTxnReply>, Status> {
        let committed = async {
            let caller = Caller::of(&request);
            self.commit_now(&caller, request.into_inner()).await
        };
        self.context.answer(Method::CommitTxn, committed).await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackTxnRequest>,
    ) -> Result<Response<v1::RollbackTxnReply>, Status> {
        let ended = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            self.snapshots.let_go(request.into_inner().snapshot);
            Ok(v1::RollbackTxnReply {})
        };
        self.context.answer_read(Method::RollbackTxn, ended).await
    }
}
