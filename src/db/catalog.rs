//! Collections: rows of the catalogue, as in a node, and the partitions they have here.
//!
//! One shard is both the metadata shard and the one with data, so a collection is created or dropped by
//! one entry: it is there whole or not at all.

use std::sync::{Arc, PoisonError};

use prkdb_types::{
    CollectionChanges, CollectionName, CollectionSettings, ErrorCode, KeyIndex, PartitionTable,
    command::PartitionPlace,
};

use super::{DbError, PrkDb, builder::SHARD, database::overloaded, engine::refused};
use crate::storage::{
    kv::catalog::{CollectionEntry, NumbersGone},
    sequencer::WriteRequest,
};

/// A collection of a database. A clone counts references.
#[derive(Clone, Debug)]
pub struct Collection {
    row: Arc<CollectionEntry>,
    table: Arc<PartitionTable>,
}

impl Collection {
    fn new(row: CollectionEntry) -> Self {
        let CollectionSettings { partitioner, partitions, .. } = row.settings;
        Self { row: Arc::new(row), table: PartitionTable::shared(partitioner, partitions) }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.row.name.as_str()
    }

    /// Returns what it had been told when this handle was asked for.
    pub fn settings(&self) -> &CollectionSettings {
        &self.row.settings
    }

    /// Returns how many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.row.settings.partitions
    }

    /// Returns the number of the partition that a key belongs to.
    pub fn partition_of(&self, key: &[u8]) -> u32 {
        self.table.partition(key)
    }

    pub(super) fn id(&self) -> u32 {
        self.row.id
    }

    pub(super) fn is_keyed(&self) -> bool {
        self.row.settings.key_index == KeyIndex::On
    }

    /// Returns the number in frames of a partition.
    pub(super) fn place(&self, number: u32) -> Result<u32, DbError> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let place = self.row.partitions.get(at).filter(|place| place.number == number);
        place.map(|place| place.partition).ok_or_else(|| {
            let message = format!(
                "collection '{}' has {} partitions, there is no number {number}",
                self.name(),
                self.partitions()
            );
            refused(ErrorCode::PartitionNotFound, message)
        })
    }

    /// Returns the number in the collection of a partition in frames.
    pub(super) fn number(&self, partition: u32) -> u32 {
        let mut places = self.row.partitions.iter();
        places.find(|place| place.partition == partition).map_or(0, |place| place.number)
    }

    pub(super) fn check_keyed(&self) -> Result<(), DbError> {
        if self.is_keyed() {
            return Ok(());
        }
        let message = format!("collection '{}' has no key index", self.name());
        Err(refused(ErrorCode::InvalidArgument, message))
    }
}

/// Returns the collection of a name.
pub(super) fn find(db: &PrkDb, name: &str) -> Result<Collection, DbError> {
    let parsed =
        CollectionName::parse(name).map_err(|error| refused(error.code(), error.to_string()))?;
    let catalog = db.shard().catalog();
    match catalog.by_name(&parsed) {
        Some(row) => Ok(Collection::new(row.clone())),
        None => Err(DbError::NoSuchCollection { name: name.to_owned() }),
    }
}

/// Returns the collection that every database has.
pub(super) fn default_of(db: &PrkDb) -> Collection {
    let settings = CollectionSettings::with_partitions(1);
    find(db, CollectionName::DEFAULT).unwrap_or_else(|_| {
        // It was dropped: writes are refused and nothing is found, as in any that was.
        Collection::new(CollectionEntry {
            id: u32::MAX,
            version: 0,
            name: CollectionName::default_name(),
            settings,
            created_ms: 0,
            partitions: vec![PartitionPlace { partition: u32::MAX, number: 0, shard: SHARD }],
            is_dropped: true,
        })
    })
}

/// Creates the collection `default` in a database that has none yet.
pub(super) fn ensure_default(db: &PrkDb, settings: CollectionSettings) -> Result<(), DbError> {
    if !db.shard().catalog().collections.is_empty() {
        return Ok(());
    }
    create(db, CollectionName::default_name(), settings).map(drop)
}

/// Creates a collection, or returns it where it is there.
pub(super) fn create(
    db: &PrkDb,
    name: CollectionName,
    settings: CollectionSettings,
) -> Result<Collection, DbError> {
    settings.check().map_err(|error| refused(error.code(), error.to_string()))?;
    let _one_at_a_time = db.catalogue_lock().lock().unwrap_or_else(PoisonError::into_inner);
    let catalog = db.shard().catalog();
    if let Some(known) = catalog.by_name(&name) {
        if known.settings != settings {
            let message = format!("collection '{name}' exists with other settings");
            return Err(refused(ErrorCode::CollectionExists, message));
        }
        return Ok(Collection::new(known.clone()));
    }
    let gone = |gone: NumbersGone| overloaded(gone.to_string());
    catalog.check_collections_left().map_err(gone)?;
    catalog.check_partitions_left(settings.partitions).map_err(gone)?;
    let first = catalog.next_partition();
    let place = |number| PartitionPlace { partition: first + number, number, shard: SHARD };
    let row = CollectionEntry {
        id: catalog.next_collection(),
        version: 1,
        name,
        settings,
        created_ms: db.engine().clock.wall_ms(),
        partitions: (0..settings.partitions).map(place).collect(),
        is_dropped: false,
    };
    put_row(db, &row)?;
    Ok(Collection::new(row))
}

/// Changes a collection, or returns it where it is so already.
pub(super) fn alter(
    db: &PrkDb,
    name: &str,
    changes: CollectionChanges,
) -> Result<Collection, DbError> {
    let _one_at_a_time = db.catalogue_lock().lock().unwrap_or_else(PoisonError::into_inner);
    let known = find(db, name)?;
    let settings = changes
        .of(known.settings())
        .map_err(|error| refused(error.code(), format!("collection '{name}': {error}")))?;
    if settings == *known.settings() {
        return Ok(known);
    }
    let catalog = db.shard().catalog();
    let (now, wanted) = (known.partitions(), settings.partitions);
    let gone = |gone: NumbersGone| overloaded(gone.to_string());
    catalog.check_partitions_left(wanted.saturating_sub(now)).map_err(gone)?;
    let mut row = CollectionEntry {
        version: known.row.version + 1,
        settings,
        ..CollectionEntry::clone(&known.row)
    };
    let next = catalog.next_partition();
    row.partitions.extend((now..wanted).map(|number| PartitionPlace {
        partition: next + (number - now),
        number,
        shard: SHARD,
    }));
    put_row(db, &row)?;
    Ok(Collection::new(row))
}

/// Drops a collection.
pub(super) fn drop_collection(db: &PrkDb, name: &str) -> Result<(), DbError> {
    let _one_at_a_time = db.catalogue_lock().lock().unwrap_or_else(PoisonError::into_inner);
    let known = find(db, name)?;
    let row = CollectionEntry {
        version: known.row.version + 1,
        is_dropped: true,
        ..CollectionEntry::clone(&known.row)
    };
    put_row(db, &row)
}

/// Writes a row of the catalogue, and what it says of its partitions.
fn put_row(db: &PrkDb, row: &CollectionEntry) -> Result<(), DbError> {
    let mut commands = vec![row.command()];
    commands.extend(row.partitions.iter().map(|place| row.partition_command(place)));
    let timestamp_ms = db.engine().clock.wall_ms();
    db.write(WriteRequest::Control { commands, timestamp_ms }, |_| ()).wait()
}
