//! `Kv.Expire`: a key's value is given another time to live.
//!
//! The record is appended once more, as it is but for that header, on the condition that nothing was
//! written to the key meanwhile. A repeat after an unknown outcome counts from then on, and does no harm.

use prkdb_proto::v1;
use prkdb_types::{ErrorCode, headers::Ttl, limits::MAX_TTL_MS};

use super::{
    context::{Caller, Context},
    kv,
};
use crate::{
    node::{outcome::Failure, security::Action},
    storage::{
        kv::tree::NEVER,
        sequencer::{WriteRequest, check_key},
    },
};

/// A key that is written to all the time is not tried for ever.
const TRIES: usize = 16;

/// Reads a time to live of a request.
pub(super) fn ttl(ttl_ms: u64) -> Result<Ttl, Failure> {
    if ttl_ms <= MAX_TTL_MS {
        return Ok(Ttl::Ms(ttl_ms));
    }
    let message = format!("a time to live of {ttl_ms} ms, limit {MAX_TTL_MS} ms (max-ttl)");
    Err(Failure::new(ErrorCode::InvalidArgument, message)
        .with_hint("leave it out for a value that does not expire"))
}

/// Serves one request.
pub(super) async fn serve(
    context: &Context,
    caller: &Caller,
    request: v1::ExpireRequest,
) -> Result<v1::ExpireReply, Failure> {
    let route = context.route(Action::Write, &request.collection)?;
    check_key(&request.key, context.node.config().max_key)?;
    if !route.is_keyed() {
        let message = format!("collection '{}' has no key index", request.collection);
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    let ttl = request.ttl_ms.map_or(Ok(Ttl::Never), ttl)?;
    let place = route.of(&request.key)?;
    let handle = context.node.shard(place.shard)?;
    for _ in 0..TRIES {
        caller.check_deadline()?;
        handle.read_barrier().await?;
        let Some(leaf) = handle.shard.leaf(route.collection.id, &request.key) else {
            let revision = handle.shard.revision();
            return Ok(v1::ExpireReply {
                partition: place.number,
                revision,
                ..v1::ExpireReply::default()
            });
        };
        let expired_before = leaf.expires_ms != NEVER;
        let reply = v1::ExpireReply {
            existed: true,
            expired_before,
            version: leaf.version,
            partition: place.number,
            revision: handle.shard.revision(),
        };
        if ttl == Ttl::Never && !expired_before {
            return Ok(reply);
        }
        // A slice would pin the whole message.
        let key = bytes::Bytes::copy_from_slice(&request.key);
        let write = handle
            .shard
            .renewal((place.partition, route.collection.id), key, leaf, ttl)
            .map_err(|error| Failure::from(&error))?;
        let value_bytes = match &write {
            WriteRequest::Put { value, .. } => value.len(),
            _ => 0,
        };
        let held = context.hold(caller, request.key.len() + value_bytes)?;
        match kv::submit(context, caller, held, place.shard, write).await {
            Ok(written) => {
                let version = if ttl == Ttl::Ms(0) { 0 } else { written.base_offset };
                return Ok(v1::ExpireReply { version, revision: written.revision, ..reply });
            }
            Err(failure) if failure.code == ErrorCode::VersionMismatch => {}
            Err(failure) => return Err(failure),
        }
    }
    let message = format!("the key was written to {TRIES} times meanwhile");
    Err(Failure::new(ErrorCode::Overloaded, message).with_hint("try again"))
}
