//! From messages to requests of the sequencer, and from answers to messages.

use std::sync::Arc;

use bytes::Bytes;
use prkdb_proto::v1;
use prkdb_types::{ErrorCode, ProducerStamp, command::PartitionPlace};

use super::expire;
use crate::{
    node::{
        Node,
        limits::{names, size_and_limit},
        outcome::{Failure, Written, WrittenKind},
        router::Route,
    },
    storage::{
        Found, Shard,
        kv::tree::NEVER,
        sequencer::{Condition, WriteRequest, check_key},
    },
};

/// A key is copied out of the message it came in: a slice would pin the whole buffer.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Returns a producer's stamp.
pub(super) fn stamp(producer: Option<v1::Producer>) -> Result<Option<ProducerStamp>, Failure> {
    let Some(producer) = producer else { return Ok(None) };
    let invalid = |field: &str, value: u64| {
        let message = format!("producer.{field} is {value}, it is too large");
        Failure::new(ErrorCode::InvalidArgument, message)
    };
    Ok(Some(ProducerStamp {
        id: i64::try_from(producer.id).map_err(|_| invalid("id", producer.id))?,
        epoch: i16::try_from(producer.epoch)
            .map_err(|_| invalid("epoch", producer.epoch.into()))?,
        base_sequence: i32::try_from(producer.sequence)
            .map_err(|_| invalid("sequence", producer.sequence.into()))?,
    }))
}

/// Returns where a key lies, checked against what the client computed.
fn place(route: &Route, key: &[u8], claimed: Option<u32>) -> Result<PartitionPlace, Failure> {
    if !route.is_keyed() {
        let message = format!("collection '{}' has no key index", route.collection.name.as_str());
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    let place = route.of(key)?;
    if let Some(claimed) = claimed.filter(|claimed| *claimed != place.number) {
        // One that does not exist is told as such.
        route.place(claimed)?;
        let message = format!("the key belongs to partition {}, not {claimed}", place.number);
        return Err(Failure::new(ErrorCode::WrongPartition, message));
    }
    Ok(place)
}

/// Refuses a value that is too long.
pub(super) fn check_value(node: &Node, value: &[u8]) -> Result<(), Failure> {
    let limit = node.config().max_value;
    if value.len() <= limit {
        return Ok(());
    }
    node.metrics().limit(names::SIZE);
    let message = format!("value is {} (max-value)", size_and_limit(value.len(), limit));
    Err(Failure::new(ErrorCode::ValueTooLarge, message))
}

/// A write, and the shard it goes to.
pub(super) struct Routed {
    pub(super) shard: u32,
    pub(super) number: u32,
    pub(super) request: WriteRequest,
    pub(super) wants_previous: bool,
}

/// Returns the write of a put.
pub(super) fn put(node: &Node, route: &Route, put: v1::PutRequest) -> Result<Routed, Failure> {
    check_key(&put.key, node.config().max_key)?;
    check_value(node, &put.value)?;
    let place = place(route, &put.key, put.partition)?;
    let condition = match put.condition {
        Some(v1::put_request::Condition::IfAbsent(true)) => Condition::IfAbsent,
        Some(v1::put_request::Condition::IfVersion(version)) => Condition::IfVersion(version),
        Some(v1::put_request::Condition::IfAbsent(false)) | None => Condition::None,
    };
    let request = WriteRequest::Put {
        partition: place.partition,
        collection: route.collection.id,
        key: own(&put.key),
        value: put.value,
        timestamp_ms: put.timestamp_ms,
        producer: stamp(put.producer)?,
        condition,
        ttl: put.ttl_ms.map(expire::ttl).transpose()?,
        headers: Vec::new(),
    };
    let (shard, number) = (place.shard, place.number);
    Ok(Routed { shard, number, request, wants_previous: put.want_previous })
}

/// Returns the write of a delete.
pub(super) fn delete(
    node: &Node,
    route: &Route,
    delete: &v1::DeleteRequest,
) -> Result<Routed, Failure> {
    check_key(&delete.key, node.config().max_key)?;
    let place = place(route, &delete.key, delete.partition)?;
    let request = WriteRequest::Delete {
        partition: place.partition,
        collection: route.collection.id,
        key: own(&delete.key),
        timestamp_ms: delete.timestamp_ms,
        producer: stamp(delete.producer)?,
        condition: delete.if_version.map_or(Condition::None, Condition::IfVersion),
    };
    let (shard, number) = (place.shard, place.number);
    Ok(Routed { shard, number, request, wants_previous: delete.want_previous })
}

/// What a reply needs of the request it answers.
#[derive(Clone, Debug)]
pub(super) struct ReplyShape {
    pub(super) shard: Arc<Shard>,
    pub(super) number: u32,
    pub(super) wants_previous: bool,
}

/// Returns the reply to a write.
pub(super) fn write_reply(
    written: &Written,
    shape: &ReplyShape,
) -> Result<v1::WriteReply, Failure> {
    let previous = match written.replaced.filter(|_| shape.wants_previous) {
        // What was replaced stays readable: nothing written is overwritten.
        Some(leaf) => Some(shape.shard.leaf_value(leaf).map_err(|e| Failure::from(&e))?.value),
        None => None,
    };
    let existed = match written.kind {
        // A repeat of a delete was a tombstone once, so there was something to delete.
        WrittenKind::Duplicate => true,
        WrittenKind::Absent => false,
        WrittenKind::Appended => written.replaced.is_some(),
    };
    Ok(v1::WriteReply {
        partition: shape.number,
        offset: written.base_offset,
        revision: written.revision,
        append_time_ms: written.append_time_ms,
        existed,
        previous,
        duplicate: written.kind == WrittenKind::Duplicate,
    })
}

/// Returns until when a value lasts, and for how long from a time of the log on; nothing for ever.
pub(super) fn expiry(expires_ms: i64, log_time_ms: i64) -> (Option<i64>, Option<u64>) {
    if expires_ms == NEVER {
        return (None, None);
    }
    let left = expires_ms.saturating_sub(log_time_ms);
    (Some(expires_ms), Some(u64::try_from(left).unwrap_or_default()))
}

/// Returns a value as a message.
pub(super) fn value(found: Found, number: u32, log_time_ms: i64) -> v1::Value {
    let (expires_at_ms, ttl_ms) = expiry(found.expires_ms, log_time_ms);
    v1::Value {
        expires_at_ms,
        ttl_ms,
        value: found.value,
        version: found.version,
        partition: number,
        timestamp_ms: found.timestamp_ms,
    }
}

/// Returns the limits of a node.
pub fn limits(node: &Node) -> v1::Limits {
    v1::Limits {
        max_key_bytes: node.config().max_key as u64,
        max_value_bytes: node.config().max_value as u64,
        max_message_bytes: node.config().max_message as u64,
        max_keyed_batch_records: prkdb_types::limits::MAX_KEYED_BATCH_RECORDS,
    }
}
