//! The snapshots that clients' transactions read.
//!
//! One is kept until its transaction ends, until it was not used for [`IDLE`], or until it is [`AGE_MAX`]
//! old: it holds the pages of the index that changed since, and a client may be gone. There are at most
//! [`SNAPSHOTS_MAX`]. A restart forgets them all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prkdb_types::ErrorCode;
use tokio::time::Instant;

use crate::{
    node::{limits::names, outcome::Failure},
    storage::{ShardSnapshot, kv::catalog::CollectionEntry},
};

/// How long one is kept after its last use.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// How long one is kept in any case.
const AGE_MAX: Duration = Duration::from_mins(5);
/// How many are kept.
pub(super) const SNAPSHOTS_MAX: usize = 1024;
/// How often those are looked for that are not to be kept any more.
const SWEEP: Duration = Duration::from_secs(5);

/// Those that are kept, by the number that a client has.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<BTreeMap<u64, Held>>);

#[derive(Debug)]
struct Held {
    kept: Kept,
    began: Instant,
    used: Instant,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The shard it is of.
    pub(super) shard: u32,
    /// Its keys.
    pub(super) snapshot: Arc<ShardSnapshot>,
    /// The highest number of a collection that there was when it was taken.
    pub(super) last_collection: u32,
}

impl Kept {
    /// Refuses a collection that was created later: one of its name may have been dropped for it, which the
    /// snapshot has.
    pub(super) fn check_collection(&self, collection: &CollectionEntry) -> Result<(), Failure> {
        if collection.id <= self.last_collection {
            return Ok(());
        }
        let name = collection.name.as_str();
        let message = format!(
            "collection '{name}' was created after the snapshot: run the transaction again"
        );
        Err(Failure::new(ErrorCode::SnapshotGone, message))
    }
}

impl Held {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) > IDLE || now.duration_since(self.began) > AGE_MAX
    }
}

/// The failure of a call on a snapshot that is not kept.
fn gone(id: u64) -> Failure {
    let message = format!("snapshot {id} is not kept any more: run the transaction again");
    Failure::new(ErrorCode::SnapshotGone, message)
}

impl Snapshots {
    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one; returns its number.
    pub(super) fn keep(&self, kept: Kept, now: Instant) -> Result<u64, Failure> {
        let drawn = getrandom::u64().map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("draw the number of a snapshot: {error}"))
        })?;
        let id = drawn.max(1);
        let mut held = self.held();
        if held.len() >= SNAPSHOTS_MAX {
            held.retain(|_, held| !held.is_over(now));
        }
        if held.len() >= SNAPSHOTS_MAX {
            let name = names::TXN_SNAPSHOTS;
            let message = format!("{SNAPSHOTS_MAX} transactions are under way ({name})");
            return Err(Failure::new(ErrorCode::Overloaded, message));
        }
        held.insert(id, Held { kept, began: now, used: now });
        Ok(id)
    }

    /// Returns one, which is kept for longer by that.
    pub(super) fn find(&self, id: u64, now: Instant) -> Result<Kept, Failure> {
        let mut held = self.held();
        let found = held.get_mut(&id).filter(|held| !held.is_over(now)).ok_or_else(|| gone(id))?;
        found.used = now;
        // The clone counts a reference.
        Ok(found.kept.clone())
    }

    /// Lets those go that are over.
    fn sweep_at(&self, now: Instant) {
        self.held().retain(|_, held| !held.is_over(now));
    }

    /// Lets one go.
    pub(super) fn let_go(&self, id: u64) {
        self.held().remove(&id);
    }
}

/// Lets those go that are over, again and again.
pub(super) async fn sweep(snapshots: Arc<Snapshots>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        let now = ticks.tick().await;
        snapshots.sweep_at(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Kept {
        Kept { shard: 1, snapshot: Arc::new(ShardSnapshot::default()), last_collection: 0 }
    }

    #[test]
    fn one_that_is_used_is_kept_and_one_that_is_not_is_gone() {
        let (snapshots, began) = (Snapshots::default(), Instant::now());
        let keep = || snapshots.keep(one(), began).unwrap();
        let (used, idle) = (keep(), keep());
        let mut now = began;
        for _ in 0..4 {
            now += IDLE / 2;
            assert_eq!(snapshots.find(used, now).unwrap().shard, 1);
        }
        let gone = |id| snapshots.find(id, now).unwrap_err().code == ErrorCode::SnapshotGone;
        assert!(gone(idle));
        snapshots.let_go(used);
        assert!(gone(used));
    }

    #[test]
    fn none_is_kept_for_ever() {
        let (snapshots, began) = (Snapshots::default(), Instant::now());
        let used = snapshots.keep(one(), began).unwrap();
        let mut now = began;
        while snapshots.find(used, now).is_ok() {
            now += IDLE / 2;
        }
        let kept = now - began;
        assert!(kept > AGE_MAX && kept <= AGE_MAX + IDLE, "{kept:?}");
    }

    #[test]
    fn the_one_after_the_last_is_refused_until_one_is_over() {
        let (snapshots, began) = (Snapshots::default(), Instant::now());
        for _ in 0..SNAPSHOTS_MAX {
            snapshots.keep(one(), began).unwrap();
        }
        let refused = snapshots.keep(one(), began + IDLE).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Overloaded);
        assert!(refused.message.contains("(transaction-snapshots)"), "{refused}");
        let later = began + IDLE + SWEEP;
        snapshots.keep(one(), later).unwrap();
        assert_eq!(snapshots.held().len(), 1);
        snapshots.sweep_at(later + IDLE + SWEEP);
        assert_eq!(snapshots.held().len(), 0);
    }
}
