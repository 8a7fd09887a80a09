//! The settings of a collection, as they are asked for.

use prkdb_proto::v1;
use prkdb_types::{
    Cleanup, CollectionSettings, Durability, KeyIndex, Partitioner, Placement, Retention,
};

use super::collections::invalid;
use crate::node::outcome::Failure;

/// Returns the settings asked for, defaults where nothing is said.
pub(super) fn parse_settings(
    asked: Option<v1::CollectionSettings>,
) -> Result<CollectionSettings, Failure> {
    let asked = asked.unwrap_or_default();
    let unknown = |field: &str, number: i32| invalid(format!("{field} {number} is not known"));
    let mut settings = match asked.partitions {
        0 => CollectionSettings::default(),
        count => CollectionSettings::with_partitions(count),
    };
    let some = |number: u64| (number > 0).then_some(number);
    let retention = Retention { ms: some(asked.retention_ms), bytes: some(asked.retention_bytes) };
    settings.retention = retention;
    match v1::Partitioner::try_from(asked.partitioner) {
        Ok(v1::Partitioner::Unspecified) => {}
        Ok(v1::Partitioner::Ring) => settings.partitioner = Partitioner::Ring,
        Ok(v1::Partitioner::Kafka) => settings.partitioner = Partitioner::Kafka,
        Err(_) => return Err(unknown("partitioner", asked.partitioner)),
    }
    match v1::Durability::try_from(asked.durability) {
        Ok(v1::Durability::Unspecified | v1::Durability::Sync) => {
            settings.durability = Durability::Sync;
        }
        Err(_) => return Err(unknown("durability", asked.durability)),
    }
    match v1::Cleanup::try_from(asked.cleanup) {
        Ok(v1::Cleanup::Unspecified) if retention.is_none() => settings.cleanup = Cleanup::Keep,
        // What a retention says is what this does.
        Ok(v1::Cleanup::Unspecified) => settings.cleanup = Cleanup::Expire,
        Ok(v1::Cleanup::Keep) => settings.cleanup = Cleanup::Keep,
        Ok(v1::Cleanup::Compact) => settings.cleanup = Cleanup::Compact,
        Ok(v1::Cleanup::Expire) => settings.cleanup = Cleanup::Expire,
        Err(_) => return Err(unknown("cleanup", asked.cleanup)),
    }
    match v1::Placement::try_from(asked.placement) {
        Ok(v1::Placement::Unspecified) => {}
        Ok(v1::Placement::Spread) => settings.placement = Placement::Spread,
        Ok(v1::Placement::Colocated) => settings.placement = Placement::Colocated,
        Err(_) => return Err(unknown("placement", asked.placement)),
    }
    match v1::KeyIndex::try_from(asked.key_index) {
        Ok(v1::KeyIndex::Unspecified) => {}
        Ok(v1::KeyIndex::On) => settings.key_index = KeyIndex::On,
        Ok(v1::KeyIndex::Off) => settings.key_index = KeyIndex::Off,
        Err(_) => return Err(unknown("key index", asked.key_index)),
    }
    settings.ttl_ms = some(asked.ttl_ms);
    settings.check().map_err(|error| Failure::new(error.code(), error.to_string()))?;
    Ok(settings)
}
