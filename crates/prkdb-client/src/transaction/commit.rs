//! One commit: its lane, its partitions, its attempts.
//!
//! Every attempt has the same producer, sequences and time, so that the server makes the same bytes of it
//! and applies it once: a repeat is known in each partition it writes to. The sequences move on only when
//! it was applied.

use std::{collections::BTreeMap, sync::Arc};

use prkdb_proto::v1::{self, commit_txn_request};
use prkdb_types::{ErrorCode, Isolation, transaction::Buffer};
use prost::Message as _;

use super::{Committed, Kept, wire_range};
use crate::{
    attempts::{Attempts, Fault, Next},
    error::{ClientError, Outcome},
    lanes::{LaneGuard, PartitionKey},
    routes::Partitions,
    shared::Shared,
};

/// A commit between its attempts.
struct Course {
    request: v1::CommitTxnRequest,
    lane: LaneGuard,
    /// How many records each partition gets.
    counts: BTreeMap<PartitionKey, u32>,
    routes: Vec<Arc<Partitions>>,
    /// Where the next attempt goes.
    address: String,
    /// What made a server refuse it was mended once.
    mended: bool,
}

/// Returns whether a refusal says nothing about an earlier attempt: it was for a collection that is not there any
/// more, or whose name another one has.
fn is_about_another(fault: &Fault) -> bool {
    let gone =
        [ErrorCode::CollectionNotFound, ErrorCode::PartitionNotFound, ErrorCode::SequenceReused];
    fault.refused_with().is_some_and(|code| gone.contains(&code))
}

impl Shared {
    /// Commits, and returns once all of it is durable and applied.
    ///
    /// Cancel safety: dropping the future retires the lane where the commit was under way.
    pub(super) async fn commit(
        &self,
        buffer: &Buffer<Arc<str>>,
        kept: Option<&Kept>,
        mut attempts: Attempts,
    ) -> Result<Committed, ClientError> {
        let lane = self.lanes.take().await?;
        let mut course = Course {
            request: message(buffer, kept, self.options.clock.now_ms()),
            lane,
            counts: BTreeMap::new(),
            routes: Vec::new(),
            address: kept.map(|kept| kept.address.clone()).unwrap_or_default(),
            mended: false,
        };
        loop {
            let fault = match self.try_commit(&mut course, &attempts).await {
                Ok(reply) => {
                    course.settle(true);
                    let v1::CommitTxnReply { revision, append_time_ms, duplicate } = reply;
                    return Ok(Committed { revision, append_time_ms, duplicate });
                }
                Err(fault) => fault,
            };
            if !attempts.is_in_doubt() && self.mend_commit(&mut course, &fault)? {
                continue;
            }
            if attempts.is_in_doubt() && is_about_another(&fault) {
                let reason = "a collection that it wrote to was dropped, or replaced by another";
                let error = attempts.unknown(reason.to_owned());
                course.failed(&error, true);
                return Err(error);
            }
            let next = attempts.next(fault).await;
            if let Err(error) = &next {
                course.failed(error, attempts.is_in_doubt());
            } else {
                course.lane.set_in_flight(attempts.is_in_doubt());
            }
            match next? {
                Next::Again => {}
                Next::Follow(leader) => course.address = leader,
            }
        }
    }

    async fn try_commit(
        &self,
        course: &mut Course,
        attempts: &Attempts,
    ) -> Result<v1::CommitTxnReply, Fault> {
        // In doubt about an earlier attempt, everything stays as it was.
        if !attempts.is_in_doubt() || course.counts.is_empty() {
            self.place_commit(course, attempts).await?;
        }
        let link = attempts.within(false, self.pool.at(&course.address)).await?;
        let (bytes, limit) = (course.request.encoded_len(), link.message_bytes_max());
        if u64::try_from(bytes).is_ok_and(|bytes| bytes > limit) {
            let message =
                format!("a transaction of {bytes} bytes is above the server's limit of {limit}");
            let code = ErrorCode::MessageTooLarge;
            return Err(Fault::Final(ClientError::Request { code, message }));
        }
        course.lane.set_in_flight(true);
        let request = attempts.request(course.request.clone());
        let answer = async {
            let reply = link.txn().commit(request).await;
            reply.map(tonic::Response::into_inner).map_err(|status| link.fault(status))
        };
        attempts.within(true, answer).await
    }

    /// Finds the partitions of what is written, and gives each its sequence.
    async fn place_commit(&self, course: &mut Course, attempts: &Attempts) -> Result<(), Fault> {
        (course.counts, course.routes) = (BTreeMap::new(), Vec::new());
        let producer = course.lane.producer(PartitionKey { collection: 0, partition: 0 });
        course.request.producer = Some(v1::Producer { sequence: 0, ..producer });
        for part in &mut course.request.parts {
            part.sequences.clear();
            if part.changes.is_empty() {
                continue;
            }
            let asked = attempts.within(false, self.partitions(&part.collection)).await;
            let partitions = asked?;
            let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
            for change in &part.changes {
                *counts.entry(partitions.of(&change.key)).or_default() += 1;
            }
            for (partition, count) in counts {
                let key = partitions.key(partition);
                let sequence = course.lane.producer(key).sequence;
                part.sequences.push(commit_txn_request::Sequence { partition, sequence });
                course.counts.insert(key, count);
                if course.address.is_empty() {
                    partitions.leader(partition).clone_into(&mut course.address);
                }
            }
            course.routes.push(partitions);
        }
        Ok(())
    }

    /// Mends, once, what made a server refuse a commit that was not applied: the client's memory of a
    /// collection, or a producer that the cluster has forgotten. Returns whether to try again.
    fn mend_commit(&self, course: &mut Course, fault: &Fault) -> Result<bool, ClientError> {
        if course.mended {
            return Ok(false);
        }
        match fault.refused_with() {
            Some(
                ErrorCode::CollectionNotFound
                | ErrorCode::PartitionNotFound
                | ErrorCode::WrongPartition,
            ) => {
                for partitions in course.routes.drain(..) {
                    self.routes.forget(&partitions);
                }
            }
            Some(ErrorCode::UnknownProducer) => course.lane.renew()?,
            _ => return Ok(false),
        }
        course.lane.set_in_flight(false);
        course.mended = true;
        Ok(true)
    }
}

impl Course {
    /// Leaves the lane as the last answer says; in doubt it is retired.
    fn failed(&mut self, error: &ClientError, in_doubt: bool) {
        match error.outcome() {
            Some(Outcome::Applied) => self.settle(true),
            Some(Outcome::NotApplied) if !in_doubt && !error.has_lost_count() => self.settle(false),
            _ => self.lane.set_in_flight(true),
        }
    }

    fn settle(&mut self, wrote: bool) {
        self.lane.set_in_flight(false);
        if wrote {
            for (key, count) in &self.counts {
                self.lane.advance_by(*key, *count);
            }
        }
    }
}

fn message(
    buffer: &Buffer<Arc<str>>,
    kept: Option<&Kept>,
    timestamp_ms: i64,
) -> v1::CommitTxnRequest {
    let mut parts: BTreeMap<&Arc<str>, commit_txn_request::Part> = BTreeMap::new();
    for (collection, key, value) in buffer.writes() {
        // The clones count references.
        let change = commit_txn_request::Change { key: key.clone(), value: value.cloned() };
        parts.entry(collection).or_default().changes.push(change);
    }
    let reads = buffer.reads();
    for (collection, keys) in &reads.keys {
        parts.entry(collection).or_default().reads.extend(keys.iter().cloned());
    }
    for range in &reads.ranges {
        let wire = wire_range(&range.from, &range.to);
        parts.entry(&range.collection).or_default().ranges.push(wire);
    }
    let named = |(name, part): (&Arc<str>, commit_txn_request::Part)| commit_txn_request::Part {
        collection: (**name).to_owned(),
        ..part
    };
    let isolation = match buffer.isolation() {
        Isolation::Snapshot => v1::Isolation::Snapshot,
        Isolation::Serializable => v1::Isolation::Serializable,
    };
    v1::CommitTxnRequest {
        snapshot: kept.map_or(0, |kept| kept.id),
        isolation: isolation.into(),
        parts: parts.into_iter().map(named).collect(),
        timestamp_ms,
        producer: None,
    }
}
