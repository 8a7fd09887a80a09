//! The applied state of a shard: what the entries up to one revision add up to.
//!
//! Apply checks nothing and cannot reject: what stands in the log was decided before it got there.
//! An entry that contradicts the state is a defect, and fences the shard.

mod effects;
mod index;
mod saved;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use prkdb_types::{DecompressLimit, ShardCommand, command::Trim};

use super::{
    catalog::{CONTROL_PARTITION, Catalog, Hosting},
    removals::Removals,
    snapshot::ShardSnapshot,
    tree::{Leaf, Root},
    window::{ProducerKey, Remembered, Windows},
};
use crate::storage::{
    StorageError,
    log::{
        Chain, PinnedSegments, Place,
        entry::{Entry, Frame, LogId, Payload, Write, batch_positions},
    },
};

pub use self::effects::Effects;
use self::index::{Index, Lifetime};
pub(in crate::storage) use self::saved::{Head, SavedState};

/// A decompressed batch has at most this many bytes: the largest message there can be.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// A partition as applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// Its collection; 0 for the control partition.
    pub collection: u32,
    /// The first offset there is.
    pub log_start: u64,
    /// The offset that the next record gets.
    pub next_offset: u64,
    /// Bytes of its batches.
    pub size_bytes: u64,
}

/// The roots that readers see, by collection; nothing where they are to ask for one.
pub type Roots = BTreeMap<u32, Arc<ArcSwapOption<Root>>>;

/// What applying a normal entry gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its chain was broken: nothing was applied.
    pub is_void: bool,
    /// The term it was decided in.
    pub sequencer_term: u64,
    /// Its number in that term.
    pub sequence: u64,
    /// Its index.
    pub revision: u64,
    /// When it was decided.
    pub append_time_ms: i64,
    /// One for each frame, in order.
    pub frames: Vec<AppliedFrame>,
}

/// What applying a frame gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedFrame {
    /// The partition's number in frames.
    pub partition: u32,
    /// Offset of its first record.
    pub base_offset: u64,
    /// For a keyed batch of one: the record that was the key's latest before, unless it had expired.
    pub replaced: Option<Leaf>,
}

/// The state.
#[derive(Debug)]
pub struct State {
    applied: Option<LogId>,
    /// The last valid entry of the sequencer's chain.
    chain: Chain,
    membership: Option<(LogId, Bytes)>,
    log_time_ms: i64,
    catalog: Catalog,
    catalog_is_changed: bool,
    partitions: BTreeMap<u32, PartitionStats>,
    indexes: BTreeMap<u32, Index>,
    index_bytes: u64,
    windows: Windows,
    /// What became of records since [`State::take_effects`] was called.
    effects: Effects,
    removals: Removals,
}

impl State {
    /// Returns the state of an empty log.
    pub fn new(producer_bytes_max: u64) -> Self {
        Self {
            applied: None,
            chain: Chain::default(),
            membership: None,
            log_time_ms: 0,
            catalog: Catalog::default(),
            catalog_is_changed: false,
            partitions: BTreeMap::from([(CONTROL_PARTITION, PartitionStats::default())]),
            indexes: BTreeMap::new(),
            index_bytes: 0,
            windows: Windows::new(producer_bytes_max),
            effects: Effects::default(),
            removals: Removals::default(),
        }
    }

    /// Returns the last entry applied.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Returns the last membership and the entry that set it.
    pub fn membership(&self) -> Option<&(LogId, Bytes)> {
        self.membership.as_ref()
    }

    /// Returns the latest append time; the next one is not before it.
    pub fn log_time_ms(&self) -> i64 {
        self.log_time_ms
    }

    /// Returns a partition that the shard hosts.
    pub fn partition(&self, partition: u32) -> Option<&PartitionStats> {
        self.partitions.get(&partition)
    }

    /// Returns whether the shard hosts a partition, or did.
    pub fn has_hosted(&self, partition: u32) -> bool {
        self.catalog.has_hosted(partition)
    }

    /// Returns the producers' windows.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Returns the number of the last entry of a term that is applied; 0 if none is.
    pub fn applied_sequence(&self, term: u64) -> u64 {
        if self.chain.term == term { self.chain.sequence } else { 0 }
    }

    /// Returns which keys lost their value of late.
    pub fn removals(&self) -> &Removals {
        &self.removals
    }

    /// Returns the keys of every collection as they are now, at the cost of a reference for each.
    pub(in crate::storage) fn snapshot(&self, segments: PinnedSegments) -> ShardSnapshot {
        let roots = self.indexes.iter().map(|(id, index)| (*id, index.tree.root()));
        let revision = self.applied.map_or(0, |id| id.index);
        ShardSnapshot::new(revision, self.log_time_ms, roots.collect(), segments)
    }

    /// Returns the keys of a collection as they are now; `None` if it has no key index here.
    pub fn root(&self, collection: u32) -> Option<Root> {
        self.indexes.get(&collection).map(|index| index.tree.root())
    }

    /// Returns whether a collection has a key index here.
    pub fn has_index(&self, collection: u32) -> bool {
        self.indexes.contains_key(&collection)
    }

    /// Returns the latest record of a key, expired or not.
    pub fn leaf(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        self.indexes.get(&collection)?.tree.get(key)
    }

    /// Returns whether the values of a partition last for some time unless they state another.
    pub fn has_ttl(&self, partition: u32) -> bool {
        self.catalog.partitions.get(&partition).is_some_and(|put| put.ttl_ms > 0)
    }

    /// Returns when the next key of the shard expires.
    pub fn next_expiry_ms(&self) -> Option<i64> {
        self.indexes.values().filter_map(|index| index.due.next_ms()).min()
    }

    /// Returns keys that are expired at a time, of one partition, with their versions: some of those
    /// there are, those that were so first.
    pub fn expired(&self, time_ms: i64, keys_max: usize, bytes_max: usize) -> Option<Expired> {
        let due = self.indexes.iter().filter(|(_, index)| !index.due.is_empty());
        let (_, collection, index) = due
            .filter_map(|(collection, index)| Some((index.due.next_ms()?, *collection, index)))
            .min_by_key(|(next_ms, collection, _)| (*next_ms, *collection))?;
        let mut expired = index.due.expired(time_ms);
        let mut found: Option<Expired> = None;
        let mut bytes = 0;
        // Keys of other partitions are passed over: they are the next ones.
        for key in expired.by_ref().take(4 * keys_max) {
            let Some(leaf) = index.tree.get(key) else { continue };
            let partition = leaf.partition;
            let found = found.get_or_insert(Expired { collection, partition, keys: Vec::new() });
            if found.partition != leaf.partition {
                continue;
            }
            bytes += key.len();
            if found.keys.len() == keys_max || (bytes > bytes_max && !found.keys.is_empty()) {
                break;
            }
            found.keys.push((Bytes::copy_from_slice(key), leaf.version));
        }
        found
    }

    /// Returns the keys of a collection that expire behind a time and up to another.
    pub fn expired_between(
        &self,
        collection: u32,
        after_ms: i64,
        to_ms: i64,
    ) -> impl Iterator<Item = &[u8]> {
        let index = self.indexes.get(&collection);
        index.into_iter().flat_map(move |index| index.due.between(after_ms, to_ms))
    }

    /// Returns whether some key of a collection is expired that has no tombstone yet.
    pub fn has_expired(&self, collection: u32) -> bool {
        let index = self.indexes.get(&collection);
        let next_ms = index.and_then(|index| index.due.next_ms());
        next_ms.is_some_and(|next_ms| next_ms <= self.log_time_ms)
    }

    /// Returns how many keys a collection has, those that expired and have no tombstone yet included.
    pub fn keys(&self, collection: u32) -> u64 {
        self.indexes.get(&collection).map_or(0, |index| index.tree.len() as u64)
    }

    /// Returns how many bytes all key indexes take.
    pub fn index_bytes(&self) -> u64 {
        self.index_bytes
    }

    /// Returns how many keys there are in all.
    pub fn keys_total(&self) -> u64 {
        self.indexes.values().map(|index| index.tree.len() as u64).sum()
    }

    /// Applies an entry without frames.
    pub fn apply_blank(&mut self, id: LogId) {
        self.applied = Some(id);
    }

    /// Applies a membership.
    pub fn apply_membership(&mut self, id: LogId, membership: Bytes) {
        self.applied = Some(id);
        self.membership = Some((id, membership));
    }

    /// Applies an entry that lies at `place`. `None` for one without frames.
    ///
    /// # Errors
    /// [`StorageError::Apply`] if it contradicts the state.
    pub fn apply(&mut self, entry: &Entry, place: Place) -> Result<Option<Applied>, StorageError> {
        let write = match &entry.payload {
            Payload::Blank => {
                self.apply_blank(entry.id);
                return Ok(None);
            }
            Payload::Membership(bytes) => {
                self.apply_membership(entry.id, bytes.clone());
                return Ok(None);
            }
            Payload::Normal(write) => write,
        };
        let mut applied = Applied {
            is_void: entry.is_void,
            sequencer_term: write.sequencer_term,
            sequence: write.sequence,
            revision: entry.id.index,
            append_time_ms: write.append_time_ms,
            frames: Vec::new(),
        };
        if !entry.is_void {
            let time_before_ms = self.log_time_ms;
            self.log_time_ms = time_before_ms.max(write.append_time_ms);
            self.chain = Chain { term: entry.id.term, sequence: write.sequence };
            applied.frames.reserve_exact(write.frames.len());
            for (frame, position) in write.frames.iter().zip(batch_positions(write)) {
                let place = Place { position: place.position + position, ..place };
                let frame = self.apply_frame(entry.id, write, frame, place, time_before_ms)?;
                applied.frames.push(frame);
            }
        }
        self.applied = Some(entry.id);
        Ok(Some(applied))
    }

    fn apply_frame(
        &mut self,
        id: LogId,
        write: &Write,
        frame: &Frame,
        place: Place,
        time_before_ms: i64,
    ) -> Result<AppliedFrame, StorageError> {
        let contradicts = |reason: String| StorageError::Apply { index: id.index, reason };
        let Some(partition) = self.partitions.get_mut(&frame.partition) else {
            return Err(contradicts(format!("partition {} is not hosted", frame.partition)));
        };
        if partition.next_offset != frame.base_offset {
            return Err(contradicts(format!(
                "partition {} is at offset {}, the batch at {}",
                frame.partition, partition.next_offset, frame.base_offset
            )));
        }
        partition.next_offset += u64::from(frame.record_count);
        partition.size_bytes += frame.batch.len() as u64;
        let collection = partition.collection;
        self.remember(id, write, frame);
        let mut replaced = None;
        if frame.partition == CONTROL_PARTITION {
            self.apply_commands(frame).map_err(contradicts)?;
        } else if let Some(index) = self.indexes.get_mut(&collection) {
            let hosted = self.catalog.partitions.get(&frame.partition);
            let default_ttl_ms = hosted.map(|put| put.ttl_ms).filter(|ttl_ms| *ttl_ms > 0);
            let append_time_ms = write.append_time_ms;
            let lifetime = Lifetime { default_ttl_ms, append_time_ms, time_before_ms };
            let before = index.bytes();
            let is_compacted = hosted.is_some_and(|put| put.compact);
            let effects = is_compacted.then_some(&mut self.effects);
            let removals = &mut self.removals;
            let mut removed = |key: &[u8]| removals.push(id.index, collection, key);
            replaced =
                index.apply(frame, place, lifetime, effects, &mut removed).map_err(contradicts)?;
            self.index_bytes = self.index_bytes + index.bytes() - before;
        }
        Ok(AppliedFrame { partition: frame.partition, base_offset: frame.base_offset, replaced })
    }

    fn remember(&mut self, id: LogId, write: &Write, frame: &Frame) {
        let header = frame.batch.header();
        if !header.has_producer() {
            return;
        }
        let key = ProducerKey { partition: frame.partition, producer: header.producer_id };
        let remembered = Remembered {
            sequence: header.base_sequence,
            count: header.record_count(),
            crc: header.crc,
            base_offset: frame.base_offset,
            entry: id.index,
            append_time_ms: write.append_time_ms,
        };
        self.windows.push(key, header.producer_epoch, remembered);
    }

    fn apply_commands(&mut self, frame: &Frame) -> Result<(), String> {
        let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
        let records = frame.batch.records(limit).map_err(|error| error.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let command = ShardCommand::parse_record(record.value.unwrap_or_default())
                .map_err(|error| error.to_string())?;
            self.catalog_is_changed = true;
            match self.catalog.apply(&command).map_err(|error| error.to_string())? {
                Hosting::Unchanged => {}
                Hosting::Added(put) => {
                    let collection = put.collection;
                    let empty = PartitionStats { collection, ..PartitionStats::default() };
                    self.partitions.entry(put.partition).or_insert(empty);
                    let is_marked = put.retention_ms > 0 || put.retention_bytes > 0;
                    self.effects.marked.push((put.partition, is_marked));
                    if put.key_index && !self.indexes.contains_key(&collection) {
                        let index = Index::default();
                        self.index_bytes += index.bytes();
                        self.indexes.insert(collection, index);
                    }
                }
                Hosting::Removed(partition) => self.remove_partition(partition),
                Hosting::Trimmed(trim) => self.trim(trim),
            }
        }
        Ok(())
    }

    fn remove_partition(&mut self, partition: u32) {
        let Some(gone) = self.partitions.remove(&partition) else { return };
        self.effects.removed.push(partition);
        let is_used = self.partitions.values().any(|other| other.collection == gone.collection);
        if !is_used && let Some(index) = self.indexes.remove(&gone.collection) {
            self.index_bytes -= index.bytes();
        }
    }

    fn trim(&mut self, trim: Trim) {
        let Some(partition) = self.partitions.get_mut(&trim.partition) else { return };
        let log_start = trim.log_start.min(partition.next_offset);
        if log_start > partition.log_start {
            partition.log_start = log_start;
            partition.size_bytes = partition.size_bytes.saturating_sub(trim.bytes);
            self.effects.trimmed.push((trim.partition, log_start));
        }
    }

    /// Returns what became of records since the last call.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Says where the record of a version of a key stands now, if it is its latest and stood in one of
    /// the segments of a run.
    pub(in crate::storage) fn relocate(
        &mut self,
        collection: u32,
        key: &[u8],
        (partition, version): (u32, u64),
        run: &[u64],
        to: (u32, u32, u32),
    ) -> bool {
        let Some(index) = self.indexes.get_mut(&collection) else { return false };
        let Some(leaf) = index.tree.get(key) else { return false };
        let is_it = (leaf.partition, leaf.version) == (partition, version)
            && run.contains(&u64::from(leaf.segment));
        if !is_it {
            return false;
        }
        let (segment, position, start) = to;
        let before = index.tree.bytes();
        index.tree.insert(key, Leaf { segment, position, start, ..leaf });
        // The page may have been copied.
        self.index_bytes = self.index_bytes + index.tree.bytes() as u64 - before as u64;
        index.is_changed = true;
        true
    }

    /// Returns the keys of every collection as they are.
    pub(in crate::storage) fn roots(&self) -> BTreeMap<u32, Root> {
        self.indexes.iter().map(|(collection, index)| (*collection, index.tree.root())).collect()
    }

    /// Returns the catalogue as it is.
    pub(in crate::storage) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Publishes what was applied since the last call: the roots that changed, and, if the set of
    /// collections did, the map of them and the catalogue.
    ///
    /// Without readers a root is taken back instead: the tree would copy every page that changes while
    /// somebody holds one. Whoever wants it asks ([`State::show`]).
    pub fn publish(
        &mut self,
        roots: &ArcSwap<Roots>,
        catalog: &ArcSwap<Catalog>,
        has_readers: bool,
    ) {
        for index in self.indexes.values_mut().filter(|index| index.is_changed) {
            index.published.store(has_readers.then(|| Arc::new(index.tree.root())));
            index.is_changed = false;
        }
        if self.catalog_is_changed {
            self.catalog_is_changed = false;
            let published =
                self.indexes.iter().map(|(id, index)| (*id, Arc::clone(&index.published)));
            roots.store(Arc::new(published.collect()));
            catalog.store(Arc::new(self.catalog.clone()));
        }
    }

    /// Publishes the root of a collection and returns it.
    pub fn show(&mut self, collection: u32) -> Option<Arc<Root>> {
        let index = self.indexes.get_mut(&collection)?;
        let root = Arc::new(index.tree.root());
        index.published.store(Some(Arc::clone(&root)));
        index.is_changed = false;
        Some(root)
    }
}

/// Keys of one partition that are expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Their collection.
    pub collection: u32,
    /// Their partition.
    pub partition: u32,
    /// The keys with their versions.
    pub keys: Vec<(Bytes, u64)>,
}
