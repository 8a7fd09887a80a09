//! `Collections.Truncate`: partitions begin later.

use prkdb_proto::v1::{
    self, truncate_collection_reply as reply, truncate_collection_request::Before,
};
use prkdb_types::command::PartitionPlace;

use super::collections::invalid;
use crate::node::{
    Node,
    outcome::{Failure, Outcome},
    read::{Position, resolve},
    router::Route,
    trim,
};

/// Serves one request.
pub(super) async fn serve(
    node: &Node,
    request: &v1::TruncateCollectionRequest,
) -> Result<v1::TruncateCollectionReply, Failure> {
    let route = node.route(&request.name)?;
    let before = request.before.as_ref().ok_or_else(|| invalid("it does not say before what"))?;
    let places = match request.partition {
        Some(number) => vec![route.place(number)?],
        None => route.collection.partitions.clone(),
    };
    let mut partitions: Vec<reply::Partition> = Vec::with_capacity(places.len());
    for place in places {
        match truncate(node, &route, place, before).await {
            Ok(done) => partitions.push(done),
            Err(failure) => {
                let trimmed = partitions.iter().filter(|done| done.trimmed > 0);
                let trimmed: Vec<String> = trimmed.map(|done| done.number.to_string()).collect();
                return Err(if trimmed.is_empty() {
                    failure
                } else {
                    let (number, done) = (place.number, trimmed.join(", "));
                    let message =
                        format!("partition {number}: {failure}; truncated: {done}").into();
                    Failure { outcome: Outcome::Unknown, message, ..failure }
                });
            }
        }
    }
    Ok(v1::TruncateCollectionReply { partitions })
}

async fn truncate(
    node: &Node,
    route: &Route,
    place: PartitionPlace,
    before: &Before,
) -> Result<reply::Partition, Failure> {
    let handle = node.shard(place.shard)?;
    handle.read_barrier().await?;
    let position = match before {
        Before::Offset(offset) => Position::Offset(*offset),
        Before::TimestampMs(time_ms) => Position::Time(*time_ms),
    };
    let found = resolve(node, place, position)?;
    let (from, end) = (found.bounds.log_start, found.bounds.high_watermark);
    let log_start = found.offset.clamp(from, end);
    let trimmed = log_start - from;
    let begun = handle.shard.log_start(place.partition);
    if let Some(point) = handle.shard.trim_point(place.partition, log_start) {
        trim(node, handle, (place.partition, route.collection.id), (begun, point)).await?;
    }
    Ok(reply::Partition { number: place.number, log_start, trimmed })
}
