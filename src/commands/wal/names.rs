//! Which collection a partition of a log belongs to: read from the log of shard 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use prkdb_types::{
    DecompressLimit, ShardCommand,
    command::{CollectionPut, ShardChange},
};

use super::place::Place;
use crate::storage::{
    kv::{catalog::CONTROL_PARTITION, state::DECOMPRESSED_BYTES_MAX},
    log::{
        entry::{Entry, Frame, Item, Payload},
        inspect::Visited,
    },
};

/// The shard with the catalogue.
pub(super) const METADATA_SHARD: u32 = 0;

/// A partition's collection, and its number there.
#[derive(Clone, Debug)]
struct Name {
    collection: String,
    number: u32,
    shard: u32,
}

/// The names of all partitions, as far as the catalogue can be read.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_partition: BTreeMap<u32, Name>,
}

impl Names {
    /// Reads the catalogue. What cannot be read has no name; that it cannot, `verify` tells.
    pub(super) fn read(place: &Place) -> Self {
        Self::read_to(place, u64::MAX)
    }

    /// Reads the catalogue as it is when the log of its shard ends with this index.
    pub(super) fn read_to(place: &Place, last: u64) -> Self {
        let mut names = Self::default();
        // An error ends the reading: the names so far are right.
        let _read = place.walk(METADATA_SHARD, |visited| {
            for change in changes(visited, last) {
                if let ShardChange::CollectionPut(put) = change {
                    names.put(&put);
                }
            }
            ControlFlow::Continue(())
        });
        names
    }

    /// Says which partitions of other shards would have no name any more. Their numbers would be given
    /// out again, and two collections would meet in one partition.
    pub(super) fn nameless(&self, place: &Place, shards: &[u32]) -> Option<String> {
        for shard in shards.iter().filter(|shard| **shard != METADATA_SHARD) {
            let hosted = hosted(place, *shard);
            let lost: Vec<String> = hosted
                .iter()
                .filter(|partition| !self.by_partition.contains_key(partition))
                .map(u32::to_string)
                .collect();
            if !lost.is_empty() {
                return Some(format!("partitions {} of shard {shard}", lost.join(", ")));
            }
        }
        None
    }

    fn put(&mut self, put: &CollectionPut) {
        for place in &put.partitions {
            let name =
                Name { collection: put.name.clone(), number: place.number, shard: place.shard };
            self.by_partition.insert(place.partition, name);
        }
    }

    /// Returns the collection of a partition and its number there.
    pub(super) fn of(&self, partition: u32) -> Option<(&str, u32)> {
        self.by_partition.get(&partition).map(|name| (name.collection.as_str(), name.number))
    }

    /// Returns the shards that collections lie in, dropped ones too, in order.
    pub(super) fn shards(&self) -> Vec<u32> {
        let mut shards: Vec<u32> = self.by_partition.values().map(|name| name.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

/// The partitions that a shard hosts, by what its log says.
fn hosted(place: &Place, shard: u32) -> BTreeSet<u32> {
    let mut hosted = BTreeSet::new();
    let _read = place.walk(shard, |visited| {
        for change in changes(visited, u64::MAX) {
            match change {
                ShardChange::PartitionPut(put) => hosted.insert(put.partition),
                ShardChange::PartitionDrop(drop) => hosted.remove(&drop.partition),
                ShardChange::CollectionPut(_) | ShardChange::Trim(_) => false,
            };
        }
        ControlFlow::Continue(())
    });
    hosted
}

/// The metadata records of an entry up to an index.
fn changes(visited: &Visited<'_>, last: u64) -> Vec<ShardChange> {
    let Item::Entry(Entry { id, payload: Payload::Normal(write), is_void: false }) = visited.item
    else {
        return Vec::new();
    };
    let frames = write.frames.iter().filter(|frame| frame.partition == CONTROL_PARTITION);
    frames.filter(|_| id.index <= last).flat_map(changes_of).collect()
}

fn changes_of(frame: &Frame) -> Vec<ShardChange> {
    let Ok(records) = frame.batch.records(DecompressLimit::new(DECOMPRESSED_BYTES_MAX)) else {
        return Vec::new();
    };
    let values = records.iter().filter_map(|record| record.ok()?.value);
    values.filter_map(|value| ShardCommand::parse_record(value).ok()?.change).collect()
}
