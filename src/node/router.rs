//! From a collection's name and a key to a partition and its shard.

use std::{collections::BTreeMap, sync::Arc};

use prkdb_types::{CollectionName, ErrorCode, KeyIndex, PartitionTable, command::PartitionPlace};

use super::outcome::Failure;
use crate::storage::kv::catalog::{Catalog, CollectionEntry};

/// A collection and how its keys are partitioned.
#[derive(Debug)]
pub struct Route {
    /// The collection.
    pub collection: CollectionEntry,
    /// Its partitioner's table.
    pub table: Arc<PartitionTable>,
}

impl Route {
    fn new(collection: CollectionEntry) -> Self {
        let settings = &collection.settings;
        let table = PartitionTable::shared(settings.partitioner, settings.partitions);
        Self { collection, table }
    }

    /// Returns the partition a key belongs to.
    ///
    /// # Errors
    /// A [`Failure`] if the catalogue has no such partition: it is being written.
    pub fn of(&self, key: &[u8]) -> Result<PartitionPlace, Failure> {
        self.place(self.table.partition(key))
    }

    /// Returns the partition with a number.
    ///
    /// # Errors
    /// [`ErrorCode::PartitionNotFound`].
    pub fn place(&self, number: u32) -> Result<PartitionPlace, Failure> {
        let places = &self.collection.partitions;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        places.get(at).copied().filter(|place| place.number == number).ok_or_else(|| {
            Failure::new(
                ErrorCode::PartitionNotFound,
                format!(
                    "collection '{}' has {} partitions, there is no number {number}",
                    self.collection.name.as_str(),
                    places.len()
                ),
            )
        })
    }

    /// Returns whether the collection has a key index.
    pub fn is_keyed(&self) -> bool {
        self.collection.settings.key_index == KeyIndex::On
    }

    /// Returns the shards that host it, each once.
    pub fn shards(&self) -> Vec<u32> {
        let shards: std::collections::BTreeSet<u32> =
            self.collection.partitions.iter().map(|place| place.shard).collect();
        shards.into_iter().collect()
    }
}

/// The routes of one version of the catalogue.
#[derive(Debug, Default)]
pub(super) struct Routes {
    catalog: Arc<Catalog>,
    by_name: BTreeMap<String, Arc<Route>>,
}

impl Routes {
    /// Returns the routes of a catalogue.
    pub(super) fn new(catalog: Arc<Catalog>) -> Self {
        let by_name = catalog
            .live()
            .map(|entry| (entry.name.folded(), Arc::new(Route::new(entry.clone()))))
            .collect();
        Self { catalog, by_name }
    }

    /// Returns whether these are the routes of this catalogue.
    pub(super) fn is_of(&self, catalog: &Arc<Catalog>) -> bool {
        Arc::ptr_eq(&self.catalog, catalog)
    }

    /// Returns the route of a collection.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for what is no name, [`ErrorCode::CollectionNotFound`].
    pub(super) fn get(&self, name: &str) -> Result<Arc<Route>, Failure> {
        // A name that stands in the catalogue as it is needs no check and no copy.
        if let Some(route) = self.by_name.get(name) {
            return Ok(Arc::clone(route));
        }
        let name = CollectionName::parse(name)
            .map_err(|error| Failure::new(error.code(), error.to_string()))?;
        self.by_name.get(&name.folded()).cloned().ok_or_else(|| {
            Failure::new(
                ErrorCode::CollectionNotFound,
                format!("collection not found: {}", name.as_str()),
            )
            .with_hint(format!("prkdb collection create {}", name.as_str()))
        })
    }
}
