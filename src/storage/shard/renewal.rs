//! Another time to live for a value that is there.

use bytes::Bytes;
use prkdb_types::headers::{self, Ttl};

use super::Shard;
use crate::storage::{
    StorageError,
    kv::tree::Leaf,
    sequencer::{Condition, WriteRequest},
};

impl Shard {
    /// Returns what gives a key's value another time to live: its record once more as it is but for that, or
    /// a tombstone where the time is nothing; either if nothing was written to the key meanwhile.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`].
    pub fn renewal(
        &self,
        (partition, collection): (u32, u32),
        key: Bytes,
        leaf: Leaf,
        ttl: Ttl,
    ) -> Result<WriteRequest, StorageError> {
        let (producer, condition) = (None, Condition::IfVersion(leaf.version));
        let (found, headers) = self.record(leaf)?;
        let timestamp_ms = found.timestamp_ms;
        if ttl == Ttl::Ms(0) {
            return Ok(WriteRequest::Delete {
                partition,
                collection,
                key,
                timestamp_ms,
                producer,
                condition,
            });
        }
        let others = headers.into_iter().filter(|(name, _)| name != headers::TTL_MS);
        Ok(WriteRequest::Put {
            partition,
            collection,
            key,
            value: found.value,
            timestamp_ms,
            producer,
            condition,
            ttl: Some(ttl),
            headers: others.collect(),
        })
    }
}
