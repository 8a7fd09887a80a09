//! The catalogue: collections in the metadata shard, hosted partitions in every shard.
//!
//! It is the fold of the records of partition 0. A repeat of a command (same subject, version not
//! above the one applied) changes nothing.

mod saved;

use std::collections::BTreeMap;

use prkdb_types::{
    Cleanup, CollectionName, CollectionSettings, KeyIndex, ShardCommand,
    command::{
        CollectionPut, CommandError, PartitionDrop, PartitionPlace, PartitionPut, ShardChange, Trim,
    },
};

/// The partition of every shard that holds its metadata records.
pub const CONTROL_PARTITION: u32 = 0;

/// A row of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionEntry {
    /// Its id, given out once.
    pub id: u32,
    /// Version of the row; a change must have a higher one.
    pub version: u64,
    /// Its name.
    pub name: CollectionName,
    /// What it was created with.
    pub settings: CollectionSettings,
    /// When it was created.
    pub created_ms: i64,
    /// Where its partitions lie, by number.
    pub partitions: Vec<PartitionPlace>,
    /// The row is kept so that its id and partitions are not given out again.
    pub is_dropped: bool,
}

impl CollectionEntry {
    /// Returns the metadata record that makes the row what it is.
    pub fn command(&self) -> ShardCommand {
        let put = CollectionPut {
            collection: self.id,
            name: self.name.as_str().to_owned(),
            settings: Some((&self.settings).into()),
            created_ms: self.created_ms,
            partitions: self.partitions.clone(),
            dropped: self.is_dropped,
        };
        let change = Some(ShardChange::CollectionPut(put));
        ShardCommand { id: self.id.into(), version: self.version, change }
    }

    /// Returns the metadata record that tells the shard of a partition what the row says of it.
    pub fn partition_command(&self, place: &PartitionPlace) -> ShardCommand {
        let change = if self.is_dropped {
            ShardChange::PartitionDrop(PartitionDrop { partition: place.partition })
        } else {
            ShardChange::PartitionPut(PartitionPut {
                partition: place.partition,
                collection: self.id,
                number: place.number,
                key_index: self.settings.key_index == KeyIndex::On,
                ttl_ms: self.settings.ttl_ms.unwrap_or_default(),
                compact: self.settings.cleanup == Cleanup::Compact,
                retention_ms: self.settings.retention.ms.unwrap_or_default(),
                retention_bytes: self.settings.retention.bytes.unwrap_or_default(),
            })
        };
        // A row's version rises with each change: what a shard hears of a partition is that of its row.
        ShardCommand { id: place.partition.into(), version: self.version, change: Some(change) }
    }
}

/// Partition numbers are given out once for ever; the catalogue remembers each.
const PARTITIONS_EVER_MAX: u64 = 1_000_000;

/// Numbers are given out once, and there are no more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumbersGone {
    /// Ids of collections.
    #[error("all ids of collections are given out")]
    Collections,
    /// Numbers of partitions.
    #[error("partition numbers up to {PARTITIONS_EVER_MAX} are given out (partitions-ever)")]
    Partitions,
}

/// What a command's version is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Collection(u64),
    Partition(u64),
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Collections by id, dropped ones too.
    pub collections: BTreeMap<u32, CollectionEntry>,
    /// Partitions that this shard hosts, by their number in frames.
    pub partitions: BTreeMap<u32, PartitionPut>,
    by_name: BTreeMap<String, u32>,
    versions: BTreeMap<Subject, u64>,
}

impl Catalog {
    /// Asks for the number of another collection.
    ///
    /// # Errors
    /// [`NumbersGone`].
    pub fn check_collections_left(&self) -> Result<(), NumbersGone> {
        if self.next_collection() == u32::MAX { Err(NumbersGone::Collections) } else { Ok(()) }
    }

    /// Asks for the numbers of so many partitions more.
    ///
    /// # Errors
    /// [`NumbersGone`].
    pub fn check_partitions_left(&self, wanted: u32) -> Result<(), NumbersGone> {
        let last = u64::from(self.next_partition()) + u64::from(wanted);
        if last > PARTITIONS_EVER_MAX { Err(NumbersGone::Partitions) } else { Ok(()) }
    }

    /// Returns the collection of that name, upper and lower case being the same.
    pub fn by_name(&self, name: &CollectionName) -> Option<&CollectionEntry> {
        self.collections.get(self.by_name.get(&name.folded())?)
    }

    /// Returns the collections that are not dropped, by name.
    pub fn live(&self) -> impl Iterator<Item = &CollectionEntry> {
        self.by_name.values().filter_map(|id| self.collections.get(id))
    }

    /// Returns the version of the last command about a partition; 0 if there was none.
    pub fn partition_version(&self, partition: u32) -> u64 {
        self.versions.get(&Subject::Partition(partition.into())).copied().unwrap_or_default()
    }

    /// Returns the first id that was never given out.
    pub fn next_collection(&self) -> u32 {
        self.collections.last_key_value().map_or(1, |(id, _)| id.saturating_add(1))
    }

    /// Returns the first partition number that was never given out.
    pub fn next_partition(&self) -> u32 {
        let given = self.collections.values().flat_map(|entry| &entry.partitions);
        given.map(|place| place.partition.saturating_add(1)).max().unwrap_or(CONTROL_PARTITION + 1)
    }

    /// Returns whether this shard hosts a partition, or did.
    pub fn has_hosted(&self, partition: u32) -> bool {
        self.versions.contains_key(&Subject::Partition(partition.into()))
    }

    /// Applies one command; returns what changed in what this shard hosts.
    ///
    /// # Errors
    /// [`CommandError`] if the command cannot be understood: a newer version wrote it.
    pub(in crate::storage) fn apply(
        &mut self,
        command: &ShardCommand,
    ) -> Result<Hosting, CommandError> {
        let Some(change) = &command.change else { return Ok(Hosting::Unchanged) };
        let subject = match change {
            // A start only rises: no version is needed.
            ShardChange::Trim(trim) => return Ok(Hosting::Trimmed(*trim)),
            ShardChange::CollectionPut(_) => Subject::Collection(command.id),
            ShardChange::PartitionPut(_) | ShardChange::PartitionDrop(_) => {
                Subject::Partition(command.id)
            }
        };
        if self.versions.get(&subject).is_some_and(|known| command.version <= *known) {
            return Ok(Hosting::Unchanged);
        }
        let hosting = match change {
            ShardChange::CollectionPut(put) => {
                let entry = CollectionEntry {
                    id: put.collection,
                    version: command.version,
                    name: put.typed_name()?,
                    settings: put.typed_settings()?,
                    created_ms: put.created_ms,
                    partitions: put.partitions.clone(),
                    is_dropped: put.dropped,
                };
                let folded = entry.name.folded();
                // A name leads to a row that has it, whatever the rows were before.
                if let Some(before) = self.collections.insert(put.collection, entry) {
                    let before = before.name.folded();
                    if self.by_name.get(&before) == Some(&put.collection) {
                        self.by_name.remove(&before);
                    }
                }
                if !put.dropped {
                    self.by_name.insert(folded, put.collection);
                }
                Hosting::Unchanged
            }
            ShardChange::PartitionPut(put) => {
                self.partitions.insert(put.partition, *put);
                Hosting::Added(*put)
            }
            ShardChange::PartitionDrop(drop) => {
                self.partitions.remove(&drop.partition);
                Hosting::Removed(drop.partition)
            }
            ShardChange::Trim(_) => Hosting::Unchanged,
        };
        self.versions.insert(subject, command.version);
        Ok(hosting)
    }
}

/// What a command changed in what the shard hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Hosting {
    Unchanged,
    Added(PartitionPut),
    Removed(u32),
    Trimmed(Trim),
}

#[cfg(test)]
mod tests {
    use prkdb_types::command::{CollectionPut, SettingsRecord};

    use super::*;

    fn put(id: u32, version: u64, name: &str, dropped: bool) -> ShardCommand {
        let put = CollectionPut {
            collection: id,
            name: name.to_owned(),
            settings: Some(SettingsRecord::from(&CollectionSettings::default())),
            created_ms: 0,
            partitions: vec![PartitionPlace { partition: u32::MAX, number: 0, shard: 1 }],
            dropped,
        };
        ShardCommand { id: id.into(), version, change: Some(ShardChange::CollectionPut(put)) }
    }

    fn names(commands: &[ShardCommand]) -> Vec<(u32, String)> {
        let mut catalog = Catalog::default();
        for command in commands {
            catalog.apply(command).unwrap();
        }
        catalog.live().map(|row| (row.id, row.name.as_str().to_owned())).collect()
    }

    #[test]
    fn a_name_leads_to_a_row_that_has_it() {
        assert_eq!(names(&[put(7, 1, "a", false), put(7, 2, "b", false)]), [(7, "b".to_owned())]);
        assert_eq!(names(&[put(7, 1, "a", false), put(7, 2, "b", true)]), []);
        let taken = [put(7, 1, "a", false), put(8, 1, "a", false), put(7, 2, "a", true)];
        assert_eq!(names(&taken), [(8, "a".to_owned())]);
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let mut catalog = Catalog::default();
        catalog.apply(&put(u32::MAX, 1, "a", false)).unwrap();
        assert_eq!((catalog.next_collection(), catalog.next_partition()), (u32::MAX, u32::MAX));
    }
}
