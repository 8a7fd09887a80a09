//! The applied state of a shard: what the entries up to one revision add up to.
//!
//! Apply checks nothing and cannot reject: what stands in the log was decided before it got there.
//! An entry that contradicts the state is a defect, and fences the shard.

mod saved;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use prkdb_types::{DecompressLimit, ShardCommand};

use super::{
    catalog::{CONTROL_PARTITION, Catalog, Hosting},
    removals::Removals,
    snapshot::ShardSnapshot,
    tree::{Leaf, Root, Tree},
    window::{ProducerKey, Remembered, Windows},
};
use crate::storage::{
    StorageError,
    log::{
        Chain, Place,
        entry::{Entry, Frame, LogId, Payload, Write, batch_positions},
    },
};

pub(in crate::storage) use self::saved::SavedState;

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

/// A collection's key index: the writer's tree, and the root that readers see while there are any.
#[derive(Debug, Default)]
struct Index {
    tree: Tree,
    published: Arc<ArcSwapOption<Root>>,
    is_changed: bool,
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
    /// For a keyed batch of one: the record that was the key's latest before.
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
    /// Partitions that went since [`State::take_removed`] was called.
    removed: Vec<u32>,
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
            removed: Vec::new(),
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
    pub fn snapshot(&self) -> ShardSnapshot {
        let roots = self.indexes.iter().map(|(id, index)| (*id, index.tree.root()));
        ShardSnapshot::new(self.applied.map_or(0, |id| id.index), roots.collect())
    }

    /// Returns the keys of a collection as they are now; `None` if it has no key index here.
    pub fn root(&self, collection: u32) -> Option<Root> {
        self.indexes.get(&collection).map(|index| index.tree.root())
    }

    /// Returns whether a collection has a key index here.
    pub fn has_index(&self, collection: u32) -> bool {
        self.indexes.contains_key(&collection)
    }

    /// Returns the latest record of a key.
    pub fn leaf(&self, collection: u32, key: &[u8]) -> Option<Leaf> {
        self.indexes.get(&collection)?.tree.get(key)
    }

    /// Returns how many keys a collection has.
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
            self.log_time_ms = self.log_time_ms.max(write.append_time_ms);
            self.chain = Chain { term: entry.id.term, sequence: write.sequence };
            applied.frames.reserve_exact(write.frames.len());
            for (frame, position) in write.frames.iter().zip(batch_positions(write)) {
                let place = Place { position: place.position + position, ..place };
                applied.frames.push(self.apply_frame(entry.id, write, frame, place)?);
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
            let before = index.tree.bytes() as u64;
            let removals = &mut self.removals;
            let mut removed = |key: &[u8]| removals.push(id.index, collection, key);
            replaced = index.apply(frame, place, &mut removed).map_err(contradicts)?;
            self.index_bytes = self.index_bytes + index.tree.bytes() as u64 - before;
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
                    if put.key_index && !self.indexes.contains_key(&collection) {
                        let index = Index::default();
                        self.index_bytes += index.tree.bytes() as u64;
                        self.indexes.insert(collection, index);
                    }
                }
                Hosting::Removed(partition) => self.remove_partition(partition),
            }
        }
        Ok(())
    }

    fn remove_partition(&mut self, partition: u32) {
        let Some(gone) = self.partitions.remove(&partition) else { return };
        self.removed.push(partition);
        let is_used = self.partitions.values().any(|other| other.collection == gone.collection);
        if !is_used && let Some(index) = self.indexes.remove(&gone.collection) {
            self.index_bytes -= index.tree.bytes() as u64;
        }
    }

    /// Returns the partitions that went since the last call.
    pub fn take_removed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.removed)
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

impl Index {
    fn apply(
        &mut self,
        frame: &Frame,
        place: Place,
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
            replaced = match record.value {
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
                    };
                    self.tree.insert(key, leaf)
                }
            };
        }
        Ok(replaced.filter(|_| frame.record_count == 1))
    }
}
