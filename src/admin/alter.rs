//! Changing a collection that is there.

use prkdb_types::{CollectionChanges, CollectionName};

use super::collections::{numbers_gone, place, put_row, tell_shards};
use crate::{
    node::{Node, outcome::Failure},
    storage::kv::catalog::CollectionEntry,
};

/// Changes a collection; returns its row and whether that changed it.
pub(super) async fn alter(
    node: &Node,
    name: &CollectionName,
    changes: CollectionChanges,
) -> Result<(CollectionEntry, bool), Failure> {
    let _one_at_a_time = node.admin_lock().lock().await;
    let route = node.route(name.as_str())?;
    let known = &route.collection;
    let settings = changes.of(&known.settings).map_err(|error| {
        let message = format!("collection '{}': {error}", name.as_str());
        let failure = Failure::new(error.code(), message);
        if error.hint().is_empty() { failure } else { failure.with_hint(error.hint()) }
    })?;
    if settings == known.settings {
        // A change that was interrupted is finished by the same request.
        tell_shards(node, known).await?;
        return Ok((known.clone(), false));
    }
    let now = known.settings.partitions;
    node.catalog().check_partitions_left(settings.partitions - now).map_err(numbers_gone)?;
    let mut row = CollectionEntry { version: known.version + 1, settings, ..known.clone() };
    row.partitions.extend(place(node, &settings, now));
    put_row(node, &row).await?;
    tell_shards(node, &row).await?;
    Ok((row, true))
}
