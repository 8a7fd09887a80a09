//! Collections as messages.

use prkdb_proto::v1;
use prkdb_types::{Cleanup, CollectionSettings, Durability, KeyIndex, Partitioner, Placement};

use crate::{node::Node, storage::kv::catalog::CollectionEntry};

/// Returns settings as a message.
pub(super) fn settings(settings: &CollectionSettings) -> v1::CollectionSettings {
    v1::CollectionSettings {
        partitions: settings.partitions,
        partitioner: match settings.partitioner {
            Partitioner::Ring => v1::Partitioner::Ring,
            Partitioner::Kafka => v1::Partitioner::Kafka,
        }
        .into(),
        durability: match settings.durability {
            Durability::Sync => v1::Durability::Sync,
        }
        .into(),
        cleanup: match settings.cleanup {
            Cleanup::Keep => v1::Cleanup::Keep,
            Cleanup::Compact => v1::Cleanup::Compact,
            Cleanup::Expire => v1::Cleanup::Expire,
        }
        .into(),
        placement: match settings.placement {
            Placement::Spread => v1::Placement::Spread,
            Placement::Colocated => v1::Placement::Colocated,
        }
        .into(),
        key_index: match settings.key_index {
            KeyIndex::On => v1::KeyIndex::On,
            KeyIndex::Off => v1::KeyIndex::Off,
        }
        .into(),
        ttl_ms: settings.ttl_ms.unwrap_or_default(),
        retention_ms: settings.retention.ms.unwrap_or_default(),
        retention_bytes: settings.retention.bytes.unwrap_or_default(),
    }
}

/// Returns a collection as a message.
pub(super) fn collection(node: &Node, entry: &CollectionEntry) -> v1::Collection {
    let partitions = entry
        .partitions
        .iter()
        .map(|place| v1::PartitionPlace {
            number: place.number,
            shard: place.shard,
            leader_address: node.advertised().to_owned(),
        })
        .collect();
    v1::Collection {
        id: entry.id,
        name: entry.name.as_str().to_owned(),
        settings: Some(settings(&entry.settings)),
        created_ms: entry.created_ms,
        partitions,
    }
}

/// Returns a collection with what its partitions hold.
pub(super) fn state(node: &Node, entry: &CollectionEntry) -> v1::CollectionState {
    let described = collection(node, entry);
    let mut keys = 0;
    let shards: std::collections::BTreeSet<u32> =
        entry.partitions.iter().map(|place| place.shard).collect();
    for number in shards {
        if let Ok(handle) = node.shard(number) {
            keys += handle.shard.keys(entry.id);
        }
    }
    let partitions = entry
        .partitions
        .iter()
        .zip(&described.partitions)
        .map(|(place, described)| {
            let stats = node
                .shard(place.shard)
                .ok()
                .and_then(|handle| handle.shard.partition_state(place.partition))
                .unwrap_or_default();
            v1::PartitionState {
                place: Some(described.clone()),
                leader_node: node.node_id(),
                log_start: stats.log_start,
                log_end: stats.next_offset,
                size_bytes: stats.size_bytes,
            }
        })
        .collect();
    v1::CollectionState { collection: Some(described), partitions, keys }
}
