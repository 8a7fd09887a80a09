//! The types openraft is used with, and how they map to those of the storage engine.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use openraft::{
    BasicNode, EntryPayload, Membership, OptionalSend, RaftTypeConfig,
    impls::{BoxedErrorSource, InlineBatch, leader_id_std},
    raft::responder::Responder,
    type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf},
};
use prost::Message as _;

use super::runtime::Runtime;
use crate::storage::{
    kv::state::Applied,
    log::entry::{Entry, LogId, Payload, Vote, Write},
};

/// The types of every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Response;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, BasicNode>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Once<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// What is proposed: an entry of the sequencer.
#[derive(Clone, Debug)]
pub(super) struct Proposal(pub(super) Arc<Write>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.sequencer_term, self.0.sequence)
    }
}

/// What apply answers; `None` for entries without frames.
#[derive(Clone, Debug)]
pub(super) struct Response(pub(super) Option<Applied>);

/// A responder that is a closure. Dropped unanswered, it means that the outcome is unknown.
pub(super) struct Once<T>(pub(super) Box<dyn FnOnce(T) + Send>);

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Once<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// A membership as it stands in the log: the nodes of each configuration, and all addresses.
#[derive(Clone, PartialEq, prost::Message)]
struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<Voters>,
    #[prost(message, repeated, tag = "2")]
    replicas: Vec<Replica>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    replicas: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Replica {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    address: String,
}

/// The replicas of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote; while a membership changes, in the old or in the new configuration.
    pub voters: Vec<u64>,
    /// Those that only follow.
    pub learners: Vec<u64>,
}

impl Members {
    /// Decodes a membership as it stands in the log.
    ///
    /// # Errors
    /// That the bytes are none.
    pub fn decode(bytes: &Bytes) -> io::Result<Self> {
        let membership = membership_from_bytes(bytes)?;
        let voters: Vec<u64> = membership.voter_ids().collect();
        Ok(Self { learners: membership.learner_ids().collect(), voters })
    }
}

/// Encodes a membership for the log.
pub(in crate::node) fn membership_to_bytes(membership: &Membership<u64, BasicNode>) -> Bytes {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|voters| Voters { replicas: voters.iter().copied().collect() })
        .collect();
    let replicas = membership
        .nodes()
        .map(|(id, node)| Replica { id: *id, address: node.addr.clone() })
        .collect();
    MembershipRecord { configs, replicas }.encode_to_vec().into()
}

/// Decodes a membership from the log.
///
/// # Errors
/// That the bytes are none.
pub(in crate::node) fn membership_from_bytes(
    bytes: &Bytes,
) -> io::Result<Membership<u64, BasicNode>> {
    let record = MembershipRecord::decode(bytes.clone()).map_err(io::Error::other)?;
    let configs = record.configs.into_iter().map(|voters| voters.replicas.into_iter().collect());
    let nodes: std::collections::BTreeMap<u64, BasicNode> = record
        .replicas
        .into_iter()
        .map(|replica| (replica.id, BasicNode { addr: replica.address }))
        .collect();
    Membership::new(configs.collect(), nodes).map_err(io::Error::other)
}

/// Returns openraft's name of an entry.
pub(super) fn to_log_id(id: LogId) -> LogIdOf<TypeConfig> {
    openraft::LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(id.term), id.index)
}

/// Returns our name of an entry.
pub(super) fn from_log_id(id: &LogIdOf<TypeConfig>) -> LogId {
    LogId { term: **id.committed_leader_id(), index: id.index() }
}

/// Returns openraft's vote.
pub(super) fn to_vote(vote: Vote) -> VoteOf<TypeConfig> {
    if vote.is_committed {
        VoteOf::<TypeConfig>::new_committed(vote.term, vote.replica)
    } else {
        VoteOf::<TypeConfig>::new(vote.term, vote.replica)
    }
}

/// Returns our vote.
pub(super) fn from_vote(vote: &VoteOf<TypeConfig>) -> Vote {
    Vote {
        term: vote.leader_id.term,
        replica: vote.leader_id.voted_for,
        is_committed: vote.committed,
    }
}

/// Returns an entry as openraft has it; its payload is shared.
///
/// # Errors
/// That a membership in the log cannot be read.
pub(super) fn to_entry(entry: &Entry) -> io::Result<EntryOf<TypeConfig>> {
    let payload = match &entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Normal(write) => EntryPayload::Normal(Proposal(Arc::clone(write))),
        Payload::Membership(bytes) => EntryPayload::Membership(membership_from_bytes(bytes)?),
    };
    Ok(openraft::Entry { log_id: to_log_id(entry.id), payload })
}

/// Returns an entry as the log has it. The log itself finds out whether it is void.
pub(super) fn from_entry(entry: EntryOf<TypeConfig>) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(Proposal(write)) => Payload::Normal(write),
        EntryPayload::Membership(membership) => {
            Payload::Membership(membership_to_bytes(&membership))
        }
    };
    Entry { id: from_log_id(&entry.log_id), is_void: false, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_reads_back_as_written() {
        let nodes = [(1, "a:1"), (2, "b:2"), (3, "")]
            .map(|(id, addr)| (id, BasicNode { addr: addr.to_owned() }));
        let membership = Membership::new(
            vec![[1, 2].into(), [2, 3].into()],
            std::collections::BTreeMap::from(nodes),
        )
        .unwrap();
        let bytes = membership_to_bytes(&membership);
        assert_eq!(membership_from_bytes(&bytes).unwrap(), membership);
    }
}
