//! Those who wait for partitions of a shard to grow.
//!
//! Apply says which partitions got records; a listener is woken once and finds the names of its own that
//! grew since it last looked. Nobody is woken for another's partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Who listens to which partition of a shard.
#[derive(Debug, Default)]
pub struct Growth {
    by_partition: Mutex<BTreeMap<u32, Vec<Arc<Ears>>>>,
    /// So that apply takes no lock where nobody listens.
    listeners: AtomicUsize,
}

/// What a listener hears: one for all the shards it listens to.
#[derive(Debug, Default)]
pub struct Ears {
    grown: Mutex<BTreeSet<u32>>,
    notify: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; until it has, what the lock guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ears {
    /// Waits until a partition has grown since [`Ears::take`] was called.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn wait(&self) {
        while lock(&self.grown).is_empty() {
            self.notify.notified().await;
        }
    }

    /// Returns the partitions that have grown.
    pub fn take(&self) -> BTreeSet<u32> {
        std::mem::take(&mut *lock(&self.grown))
    }

    fn hear(&self, partition: u32) {
        if lock(&self.grown).insert(partition) {
            self.notify.notify_one();
        }
    }
}

impl Growth {
    /// Lets `ears` hear of partitions until the listener is dropped.
    pub fn listen(self: &Arc<Self>, partitions: Vec<u32>, ears: &Arc<Ears>) -> Listener {
        let mut by_partition = lock(&self.by_partition);
        for partition in &partitions {
            by_partition.entry(*partition).or_default().push(Arc::clone(ears));
        }
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listener { growth: Arc::clone(self), ears: Arc::clone(ears), partitions }
    }

    /// Says that partitions have grown. Whoever begins to listen meanwhile reads what is there first.
    pub(super) fn grew(&self, partitions: impl Iterator<Item = u32>) {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return;
        }
        let by_partition = lock(&self.by_partition);
        for partition in partitions {
            for ears in by_partition.get(&partition).map_or(&[][..], Vec::as_slice) {
                ears.hear(partition);
            }
        }
    }

    /// Says that any partition may have changed, or gone.
    pub(super) fn changed(&self) {
        for (partition, listening) in lock(&self.by_partition).iter() {
            for ears in listening {
                ears.hear(*partition);
            }
        }
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    growth: Arc<Growth>,
    ears: Arc<Ears>,
    partitions: Vec<u32>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut by_partition = lock(&self.growth.by_partition);
        for partition in &self.partitions {
            let Some(listening) = by_partition.get_mut(partition) else { continue };
            listening.retain(|other| !Arc::ptr_eq(other, &self.ears));
            if listening.is_empty() {
                by_partition.remove(partition);
            }
        }
        self.growth.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_hears_of_its_own_partitions_alone() {
        let growth = Arc::new(Growth::default());
        let ears = Arc::new(Ears::default());
        let listener = growth.listen(vec![3, 5], &ears);
        growth.grew([4].into_iter());
        assert!(ears.take().is_empty());
        growth.grew([5, 4, 3].into_iter());
        growth.grew([3].into_iter());
        ears.wait().await;
        assert_eq!(ears.take(), BTreeSet::from([3, 5]));
        growth.changed();
        ears.wait().await;
        assert_eq!(ears.take().len(), 2);
        drop(listener);
        growth.grew([3].into_iter());
        growth.changed();
        assert!(ears.take().is_empty());
    }
}
