//! From the message of a commit to a request of the sequencer.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use prkdb_proto::v1::{self, commit_txn_request::Part};
use prkdb_types::{ErrorCode, Isolation, ProducerStamp, limits, transaction::RangeRead};

use super::snapshots::Kept;
use crate::{
    node::{
        outcome::Failure,
        router::Route,
        security::Action,
        service::{context::Context, convert},
    },
    storage::sequencer::{Basis, KeyChange, KeyRead, Transaction, WriteRequest, check_key},
};

/// The failure of a transaction whose keys lie in two shards.
pub(super) fn cross_shard(one: u32, other: u32) -> Failure {
    let message = format!("keys of shards {one} and {other}: a transaction covers one shard");
    Failure::new(ErrorCode::CrossShard, message)
        .with_hint("collections that share transactions are created with: prkdb collection create NAME --colocate")
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message.into())
}

/// Returns the bounds of a range.
pub(super) fn bounds(range: Option<&v1::KeyRange>) -> (Bound<Bytes>, Bound<Bytes>) {
    let Some(range) = range else { return (Bound::Unbounded, Bound::Unbounded) };
    // Keys are copied out of the message they came in: a slice would pin the whole buffer.
    let from = Bytes::copy_from_slice(&range.from);
    let from = match (from.is_empty(), range.from_excluded) {
        (true, _) => Bound::Unbounded,
        (false, false) => Bound::Included(from),
        (false, true) => Bound::Excluded(from),
    };
    let to = match &range.to {
        None => Bound::Unbounded,
        Some(to) if range.to_included => Bound::Included(Bytes::copy_from_slice(to)),
        Some(to) => Bound::Excluded(Bytes::copy_from_slice(to)),
    };
    (from, to)
}

/// What is gathered of the parts.
struct Gathered<'a> {
    context: &'a Context,
    /// The shard of everything seen so far.
    shard: Option<u32>,
    producer: Option<ProducerStamp>,
    /// The snapshot that it rests on.
    kept: Option<Kept>,
    transaction: Transaction,
}

/// Returns the request of a commit, and the shard it goes to.
pub(super) fn request(
    context: &Context,
    request: v1::CommitTxnRequest,
    kept: Option<Result<Kept, Failure>>,
) -> Result<(u32, WriteRequest), Failure> {
    let isolation = match request.isolation() {
        v1::Isolation::Snapshot => Isolation::Snapshot,
        v1::Isolation::Serializable => Isolation::Serializable,
    };
    if v1::Isolation::try_from(request.isolation).is_err() {
        return Err(invalid(format!("isolation {} is not known", request.isolation)));
    }
    let (kept, basis) = match kept {
        None => (None, Basis::Nothing),
        Some(Ok(kept)) => {
            // The clone counts a reference.
            let basis = Basis::Snapshot(Arc::clone(&kept.snapshot));
            (Some(kept), basis)
        }
        // It may be the repeat of a commit that let the snapshot go.
        Some(Err(_)) => (None, Basis::Lost),
    };
    let mut gathered = Gathered {
        context,
        shard: kept.as_ref().map(|kept| kept.shard),
        kept,
        producer: convert::stamp(request.producer)?,
        transaction: Transaction {
            basis,
            isolation,
            changes: Vec::new(),
            reads: Vec::new(),
            ranges: Vec::new(),
            timestamp_ms: request.timestamp_ms,
            producers: BTreeMap::new(),
        },
    };
    for part in request.parts {
        gathered.take(part)?;
    }
    let Some(shard) = gathered.shard.filter(|_| !gathered.transaction.changes.is_empty()) else {
        return Err(invalid("the transaction writes nothing"));
    };
    Ok((shard, WriteRequest::Transaction(Arc::new(gathered.transaction))))
}

impl Gathered<'_> {
    fn take(&mut self, part: Part) -> Result<(), Failure> {
        if !part.changes.is_empty() {
            let route = self.route(Action::Write, &part.collection)?;
            self.take_changes(&route, &part)?;
        }
        if !part.reads.is_empty() || !part.ranges.is_empty() {
            let route = self.route(Action::Read, &part.collection)?;
            self.take_reads(&route, part)?;
        }
        Ok(())
    }

    fn route(&mut self, action: Action, collection: &str) -> Result<Arc<Route>, Failure> {
        let route = self.context.route(action, collection)?;
        let is_later = |kept: &Kept| kept.check_collection(&route.collection).is_err();
        if self.kept.as_ref().is_some_and(is_later) {
            // Refused as such, unless it is the repeat of a commit that was applied.
            self.transaction.basis = Basis::Lost;
        }
        Ok(route)
    }

    fn take_changes(&mut self, route: &Route, part: &Part) -> Result<(), Failure> {
        let node = &self.context.node;
        for change in &part.changes {
            if let Some(value) = &change.value {
                convert::check_value(node, value)?;
            }
            let partition = self.place(route, &change.key)?;
            self.transaction.changes.push(KeyChange {
                partition,
                collection: route.collection.id,
                key: Bytes::copy_from_slice(&change.key),
                // The clone counts a reference.
                value: change.value.clone(),
            });
        }
        let Some(stamp) = self.producer else { return Ok(()) };
        for sequence in &part.sequences {
            let place = route.place(sequence.partition)?;
            let base_sequence = i32::try_from(sequence.sequence)
                .map_err(|_| invalid(format!("sequence {} is too large", sequence.sequence)))?;
            let stamp = ProducerStamp { base_sequence, ..stamp };
            self.transaction.producers.insert(place.partition, stamp);
        }
        Ok(())
    }

    fn take_reads(&mut self, route: &Route, part: Part) -> Result<(), Failure> {
        let too_many = |what: &str, limit: usize| {
            let message = format!("a transaction has at most {limit} {what}");
            Failure::new(ErrorCode::MessageTooLarge, message)
        };
        for key in &part.reads {
            let partition = self.place(route, key)?;
            self.transaction.reads.push(KeyRead {
                partition,
                collection: route.collection.id,
                key: Bytes::copy_from_slice(key),
            });
        }
        if self.transaction.reads.len() > limits::MAX_TRANSACTION_READS {
            return Err(too_many("keys read", limits::MAX_TRANSACTION_READS));
        }
        if !part.ranges.is_empty() {
            for shard in route.shards() {
                self.meet(shard)?;
            }
        }
        for range in part.ranges {
            let (from, to) = bounds(Some(&range));
            self.transaction.ranges.push(RangeRead { collection: route.collection.id, from, to });
        }
        if self.transaction.ranges.len() > limits::MAX_TRANSACTION_RANGES {
            return Err(too_many("ranges read", limits::MAX_TRANSACTION_RANGES));
        }
        Ok(())
    }

    /// Returns the partition of a key, which must lie in the one shard.
    fn place(&mut self, route: &Route, key: &Bytes) -> Result<u32, Failure> {
        check_key(key, self.context.node.config().max_key)?;
        if !route.is_keyed() {
            let name = route.collection.name.as_str();
            return Err(invalid(format!("collection '{name}' has no key index")));
        }
        let place = route.of(key)?;
        self.meet(place.shard)?;
        Ok(place.partition)
    }

    fn meet(&mut self, shard: u32) -> Result<(), Failure> {
        match *self.shard.get_or_insert(shard) {
            known if known == shard => Ok(()),
            known => Err(cross_shard(known, shard)),
        }
    }
}
