//! Which partition a key belongs to and where its leader answers.
//!
//! Owns what the client remembers of collections. It is a memory, not the truth: servers check, and an
//! answer that contradicts it makes the client forget and ask again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prkdb_proto::v1;
use prkdb_types::{PartitionTable, Partitioner, limits};

use crate::lanes::PartitionKey;

/// How many collections are remembered.
const COLLECTIONS_MAX: usize = 4096;

/// The partitions of one collection, as a server described them.
#[derive(Debug)]
pub struct Partitions {
    collection: v1::Collection,
    table: Arc<PartitionTable>,
}

impl Partitions {
    /// Checks what a server said of a collection.
    pub(crate) fn new(collection: v1::Collection) -> Result<Self, String> {
        let Some(settings) = collection.settings else {
            return Err(format!("collection '{}' has no settings", collection.name));
        };
        let partitions = settings.partitions;
        if !(1..=limits::MAX_PARTITIONS).contains(&partitions) {
            return Err(format!("collection '{}' has {partitions} partitions", collection.name));
        }
        let partitioner = match settings.partitioner() {
            v1::Partitioner::Ring => Partitioner::Ring,
            v1::Partitioner::Kafka => Partitioner::Kafka,
            v1::Partitioner::Unspecified => {
                return Err(format!("collection '{}' has no partitioner", collection.name));
            }
        };
        let table = PartitionTable::shared(partitioner, partitions);
        Ok(Self { collection, table })
    }

    /// Returns the collection as the server described it.
    pub fn collection(&self) -> &v1::Collection {
        &self.collection
    }

    /// Returns how many partitions there are.
    pub fn count(&self) -> u32 {
        self.table.partitions()
    }

    /// Returns the number of the key's partition.
    pub fn of(&self, key: &[u8]) -> u32 {
        self.table.partition(key)
    }

    /// Returns the name of a partition that no other ever has.
    pub(crate) fn key(&self, partition: u32) -> PartitionKey {
        PartitionKey { collection: self.collection.id, partition }
    }

    /// Returns where a partition's leader answers; empty where that is not known.
    pub(crate) fn leader(&self, partition: u32) -> &str {
        // Places come by number; a server that left some out is not trusted to the index.
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let place = self.collection.partitions.get(index);
        place
            .filter(|place| place.number == partition)
            .map_or("", |place| place.leader_address.as_str())
    }
}

/// What is remembered of collections.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    known: Mutex<HashMap<String, Arc<Partitions>>>,
    /// Held while asking, so that one asks for all.
    asking: tokio::sync::Mutex<()>,
}

impl Routes {
    pub(crate) fn known(&self, collection: &str) -> Option<Arc<Partitions>> {
        self.lock().get(collection).cloned()
    }

    /// Waits for the turn to ask.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.asking.lock().await
    }

    pub(crate) fn learn(&self, partitions: Partitions) -> Arc<Partitions> {
        let partitions = Arc::new(partitions);
        let mut known = self.lock();
        if known.len() >= COLLECTIONS_MAX {
            known.clear();
        }
        known.insert(partitions.collection.name.clone(), Arc::clone(&partitions));
        partitions
    }

    /// Forgets a collection, unless it was asked about since `seen`.
    pub(crate) fn forget(&self, seen: &Arc<Partitions>) {
        let mut known = self.lock();
        if known.get(&seen.collection.name).is_some_and(|now| Arc::ptr_eq(now, seen)) {
            known.remove(&seen.collection.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Partitions>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
