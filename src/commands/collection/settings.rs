//! The settings of a collection as arguments, as text and as members of a document.

use prkdb_client::{Ttl, wire};

use super::CreateArgs;
use crate::commands::{
    failure::{self, Failure},
    output::{Cell, Object, readable_duration, readable_size},
    values,
};

/// What is kept of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetentionArg {
    /// Everything.
    None,
    /// What is younger, in milliseconds.
    Age(u64),
    /// The newest, so many bytes.
    Size(u64),
}

/// Parses an age or a size.
pub(super) fn retention(text: &str) -> Result<RetentionArg, String> {
    let above_0 = |number: u64| match number {
        0 => Err("a retention is above 0".to_owned()),
        number => Ok(number),
    };
    if let Ok(age) = values::duration(text) {
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        return above_0(ms).map(RetentionArg::Age);
    }
    match values::size(text) {
        Ok(bytes) => above_0(bytes).map(RetentionArg::Size),
        Err(_) => Err("write an age, such as 12h or 7d, or a size, such as 10GiB".to_owned()),
    }
}

/// Refuses two ages, two sizes, and none of both beside one: the last would win without a word.
///
/// # Errors
/// 2.
pub(super) fn check_retention(given: &[RetentionArg]) -> failure::Result {
    let count = |is_it: fn(&RetentionArg) -> bool| given.iter().filter(|arg| is_it(arg)).count();
    let has_two = count(|arg| matches!(arg, RetentionArg::Age(_))) > 1
        || count(|arg| matches!(arg, RetentionArg::Size(_))) > 1;
    if has_two || (given.len() > 1 && count(|arg| matches!(arg, RetentionArg::None)) > 0) {
        return Err(Failure::usage("--retention: one age and one size at most, or none").into());
    }
    Ok(())
}

/// Parses an age, a size, or `none`.
pub(super) fn retention_or_none(text: &str) -> Result<RetentionArg, String> {
    if text == "none" { Ok(RetentionArg::None) } else { retention(text) }
}

/// Parses a time to live; one of nothing is none.
pub(super) fn ttl(text: &str) -> Result<Ttl, String> {
    match Ttl::of(values::duration(text)?) {
        Ttl::Ms(0) => Err("a collection's time to live is above 0".to_owned()),
        ttl => Ok(ttl),
    }
}

/// Parses a time to live, or `none`.
pub(super) fn ttl_or_none(text: &str) -> Result<Ttl, String> {
    if text == "none" { Ok(Ttl::Never) } else { ttl(text) }
}

/// How keys find their partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PartitionerArg {
    /// Consistent hashing.
    Ring,
    /// As Kafka's default partitioner.
    Kafka,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DurabilityArg {
    /// It is on the disks of a majority.
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CleanupArg {
    /// Every record is kept.
    Keep,
    /// The latest record of each key is kept.
    Compact,
    /// Records beyond --retention go.
    Expire,
}

/// `DURABILITY_SYNC` is `sync` outside of the wire.
pub(super) fn wire_name(name: &str) -> &'static str {
    match name {
        "DURABILITY_SYNC" => "sync",
        "CLEANUP_KEEP" => "keep",
        "CLEANUP_COMPACT" => "compact",
        "CLEANUP_EXPIRE" => "expire",
        "PLACEMENT_SPREAD" => "spread",
        "PLACEMENT_COLOCATED" => "colocated",
        "KEY_INDEX_ON" => "on",
        "KEY_INDEX_OFF" => "off",
        "PARTITIONER_RING" => "ring",
        "PARTITIONER_KAFKA" => "kafka",
        _ => "unknown",
    }
}

/// Adds the settings of a collection to a document.
pub(super) fn add_settings(document: &mut Object, settings: wire::CollectionSettings) {
    document
        .add("partition_count", settings.partitions)
        .add("partitioner", wire_name(settings.partitioner().as_str_name()))
        .add("durability", wire_name(settings.durability().as_str_name()))
        .add("cleanup", wire_name(settings.cleanup().as_str_name()))
        .add("placement", wire_name(settings.placement().as_str_name()))
        .add("key_index", wire_name(settings.key_index().as_str_name()))
        .add("ttl_ms", (settings.ttl_ms > 0).then_some(settings.ttl_ms))
        .add("retention_ms", (settings.retention_ms > 0).then_some(settings.retention_ms))
        .add("retention_bytes", (settings.retention_bytes > 0).then_some(settings.retention_bytes));
}

pub(super) fn settings(args: &CreateArgs) -> wire::CollectionSettings {
    let mut settings =
        wire::CollectionSettings { partitions: args.partitions, ..Default::default() };
    if let Some(partitioner) = args.partitioner {
        settings.set_partitioner(match partitioner {
            PartitionerArg::Ring => wire::Partitioner::Ring,
            PartitionerArg::Kafka => wire::Partitioner::Kafka,
        });
    }
    let DurabilityArg::Sync = args.durability;
    settings.set_durability(wire::Durability::Sync);
    if let Some(cleanup) = args.cleanup {
        settings.set_cleanup(match cleanup {
            CleanupArg::Keep => wire::Cleanup::Keep,
            CleanupArg::Compact => wire::Cleanup::Compact,
            CleanupArg::Expire => wire::Cleanup::Expire,
        });
    }
    for retention in &args.retention {
        match retention {
            RetentionArg::Age(ms) => settings.retention_ms = *ms,
            RetentionArg::Size(bytes) => settings.retention_bytes = *bytes,
            RetentionArg::None => {}
        }
    }
    settings.set_placement(if args.colocate {
        wire::Placement::Colocated
    } else {
        wire::Placement::Spread
    });
    if let Some(Ttl::Ms(ttl_ms)) = args.ttl {
        settings.ttl_ms = ttl_ms;
    }
    settings.set_key_index(if args.no_index { wire::KeyIndex::Off } else { wire::KeyIndex::On });
    settings
}

/// Returns what a collection keeps of each partition.
pub(super) fn retention_cell(settings: &wire::CollectionSettings) -> Cell {
    let age = (settings.retention_ms > 0).then(|| readable_duration(settings.retention_ms));
    let size = (settings.retention_bytes > 0).then(|| readable_size(settings.retention_bytes));
    let both: Vec<String> = [age, size].into_iter().flatten().collect();
    if both.is_empty() { Cell::Absent } else { Cell::Text(both.join(", ")) }
}
