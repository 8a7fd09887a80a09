//! A snapshot that openraft gives to a replica that has nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{BasicNode, Config, Raft, RaftMetrics, SnapshotPolicy};

use super::{Opened, Place, TypeConfig};
use crate::{
    node::raft::{network::NoPeers, state_machine::StateMachine},
    storage::log::entry::LogId,
};

type Replica = Raft<TypeConfig, StateMachine>;

async fn start(opened: &Opened, replica: u64) -> Replica {
    let config = Config {
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_leader_restore: Some(false),
        // Nobody is there who would answer.
        enable_elect: false,
        ..Config::default()
    };
    let config = Arc::new(config.validate().unwrap());
    Raft::new(replica, config, NoPeers, opened.store.clone(), opened.machine()).await.unwrap()
}

async fn reached(raft: &Replica, what: impl Fn(&RaftMetrics<TypeConfig>) -> bool + Send) {
    raft.wait(Some(Duration::from_secs(10))).metrics(what, "it gets there").await.unwrap();
}

#[tokio::test]
async fn a_replica_goes_on_from_a_snapshot_after_a_restart_too() {
    let (leading, place) = (Place::new_sim().open(), Place::new_sim());
    let leader = start(&leading, 1).await;
    let node = BasicNode { addr: "nowhere".to_owned() };
    leader.initialize(BTreeMap::from([(1, node.clone())])).await.unwrap();
    // Learners are added to a membership that is committed: the entry behind the first one has been.
    let leads = |metrics: &RaftMetrics<TypeConfig>| {
        metrics.current_leader == Some(1) && metrics.last_applied.is_some_and(|id| id.index > 0)
    };
    reached(&leader, leads).await;
    for replica in 2..6 {
        leader.add_learner(replica, node.clone(), false).await.unwrap();
    }
    leading.driver.as_ref().unwrap().checkpointer().ask().await.unwrap().unwrap();
    let (applied, membership) = leading.shard.applied();
    let snapshot = leader.get_snapshot().await.unwrap().unwrap();
    let index = applied.map(|id| id.index);
    assert_eq!(snapshot.meta.last_log_id.map(|id| id.index), index);
    let vote = openraft_rt::WatchReceiver::borrow_watched(&leader.metrics()).vote;

    let opened = place.open();
    let follower = start(&opened, 2).await;
    follower.install_full_snapshot(vote, snapshot).await.unwrap();
    let is_there = |metrics: &RaftMetrics<TypeConfig>| {
        metrics.last_applied.map(|id| id.index) == index
            && metrics.purged.map(|id| id.index) == index
            && metrics.snapshot.map(|id| id.index) == index
    };
    reached(&follower, is_there).await;
    assert_eq!(opened.shard.applied(), (applied, membership.clone()));
    follower.shutdown().await.unwrap();
    drop((follower, opened));

    let opened = place.open();
    let follower = start(&opened, 2).await;
    reached(&follower, is_there).await;
    assert_eq!(opened.shard.applied(), (applied, membership));
    assert_eq!(opened.shard.vote().map(|vote| vote.term), applied.map(|LogId { term, .. }| term));
    follower.shutdown().await.unwrap();
    leader.shutdown().await.unwrap();
}
