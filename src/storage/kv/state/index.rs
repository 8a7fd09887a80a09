//! The key index of one collection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prkdb_types::{
    DecompressLimit, RecordView,
    headers::{self, Ttl},
};

use super::{DECOMPRESSED_BYTES_MAX, Effects};
use crate::storage::{
    kv::{
        due::Due,
        tree::{Leaf, NEVER, Root, Tree},
    },
    log::{Place, entry::Frame},
};

/// A collection's key index: the writer's tree, and the root that readers see while there are any.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) tree: Tree,
    pub(super) due: Due,
    pub(super) published: Arc<ArcSwapOption<Root>>,
    pub(super) is_changed: bool,
}

/// What decides when the keys of a batch expire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// For a record that states none, in milliseconds.
    pub(super) default_ttl_ms: Option<u64>,
    pub(super) append_time_ms: i64,
    /// The log's time before the batch.
    pub(super) time_before_ms: i64,
}

impl Lifetime {
    fn expires_ms(&self, record: &RecordView<'_>) -> i64 {
        // A batch with a header that is no number was refused before the log.
        let ttl_ms = match headers::ttl(record).unwrap_or_default() {
            Some(Ttl::Never) => None,
            Some(Ttl::Ms(ttl_ms)) => Some(ttl_ms),
            None => self.default_ttl_ms,
        };
        ttl_ms.map_or(NEVER, |ttl_ms| self.append_time_ms.saturating_add_unsigned(ttl_ms))
    }
}

impl Index {
    pub(super) fn bytes(&self) -> u64 {
        (self.tree.bytes() + self.due.bytes()) as u64
    }

    pub(super) fn apply(
        &mut self,
        frame: &Frame,
        place: Place,
        lifetime: Lifetime,
        mut effects: Option<&mut Effects>,
        removed: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Leaf>, String> {
        let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
        let records = frame.batch.records(limit).map_err(|error| error.to_string())?;
        self.is_changed = true;
        let mut replaced = None;
        let mut records = records.iter();
        loop {
            let start = records.position();
            let Some(record) = records.next() else { break };
            let record = record.map_err(|error| error.to_string())?;
            // A record without a key is an event: it is read by its offset alone.
            let Some(key) = record.key else { continue };
            let mut expires_ms = NEVER;
            let before = match record.value {
                None => {
                    removed(key);
                    self.tree.remove(key)
                }
                Some(_) => {
                    let leaf = Leaf {
                        segment: place.segment,
                        position: place.position,
                        start,
                        partition: frame.partition,
                        version: record.offset,
                        expires_ms: lifetime.expires_ms(&record),
                    };
                    expires_ms = leaf.expires_ms;
                    self.tree.insert(key, leaf)
                }
            };
            // In this order: the two may expire at the same time.
            if let Some(before) = before {
                self.due.remove(key, before.expires_ms);
            }
            self.due.insert(key, expires_ms);
            if let Some(effects) = &mut effects {
                if let Some(before) = before {
                    *effects.replaced.entry(before.segment).or_default() += 1;
                }
                if record.value.is_none() {
                    *effects.tombstones.entry(place.segment).or_default() += 1;
                }
            }
            replaced = before;
        }
        let is_live = |leaf: &Leaf| !leaf.is_expired(lifetime.time_before_ms);
        Ok(replaced.filter(|leaf| frame.record_count == 1 && is_live(leaf)))
    }
}
