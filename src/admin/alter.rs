//! What may be changed of a collection that is there.

use prkdb_types::{Cleanup, CollectionName, CollectionSettings, ErrorCode, Retention};

use super::collections::{numbers_gone, place, put_row, tell_shards};
use crate::{
    node::{Node, outcome::Failure},
    storage::kv::catalog::CollectionEntry,
};

/// What is to change; `None`: it stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// How many partitions there are.
    pub(super) partitions: Option<u32>,
    /// How long values last that state nothing else; 0 = for ever.
    pub(super) ttl_ms: Option<u64>,
    /// How old records get; 0 = any age.
    pub(super) retention_ms: Option<u64>,
    /// How many bytes of a partition are kept; 0 = all.
    pub(super) retention_bytes: Option<u64>,
}

impl Changes {
    fn of(self, settings: CollectionSettings) -> CollectionSettings {
        let changed = |to: Option<u64>, from: Option<u64>| match to {
            Some(to) => (to > 0).then_some(to),
            None => from,
        };
        let retention = Retention {
            ms: changed(self.retention_ms, settings.retention.ms),
            bytes: changed(self.retention_bytes, settings.retention.bytes),
        };
        CollectionSettings {
            partitions: self.partitions.unwrap_or(settings.partitions),
            ttl_ms: changed(self.ttl_ms, settings.ttl_ms),
            cleanup: match settings.cleanup {
                Cleanup::Keep if !retention.is_none() => Cleanup::Expire,
                Cleanup::Expire if retention.is_none() => Cleanup::Keep,
                cleanup => cleanup,
            },
            retention,
            ..settings
        }
    }
}

/// Changes a collection; returns its row and whether that changed it.
pub(super) async fn alter(
    node: &Node,
    name: &CollectionName,
    changes: Changes,
) -> Result<(CollectionEntry, bool), Failure> {
    let _one_at_a_time = node.admin_lock().lock().await;
    let route = node.route(name.as_str())?;
    let known = &route.collection;
    let settings = changes.of(known.settings);
    if settings == known.settings {
        // A change that was interrupted is finished by the same request.
        tell_shards(node, known).await?;
        return Ok((known.clone(), false));
    }
    let (now, wanted) = (known.settings.partitions, settings.partitions);
    let refused = |reason: String| {
        let message = format!("collection '{}': {reason}", name.as_str());
        Failure::new(ErrorCode::AlterRefused, message)
    };
    if wanted != now && route.is_keyed() {
        let reason = "it has a key index: other partitions would be other places for its keys";
        return Err(refused(reason.to_owned())
            .with_hint("create another collection with the partitions wanted, and copy"));
    }
    if wanted < now {
        return Err(refused(format!("it has {now} partitions: fewer would lose records")));
    }
    settings.check().map_err(|error| Failure::new(error.code(), error.to_string()))?;
    node.catalog().check_partitions_left(wanted - now).map_err(numbers_gone)?;
    let mut row = CollectionEntry { version: known.version + 1, settings, ..known.clone() };
    row.partitions.extend(place(node, &settings, now));
    put_row(node, &row).await?;
    tell_shards(node, &row).await?;
    Ok((row, true))
}
