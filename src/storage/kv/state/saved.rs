//! The applied state in a checkpoint.
//!
//! Small things are encoded while the state stands still; of each key index its root is taken, which
//! copies nothing, and encoded beside the writer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    super::{
        catalog::Catalog,
        due::Due,
        removals::Removals,
        tree::{Root, Tree},
    },
    Index, PartitionStats, State,
};
use crate::storage::{
    checkpoint::codec::{Malformed, Put as _, Take},
    log::{Chain, entry::LogId, header::NUMBERS_END},
};

/// Windows are encoded in sections of about this size.
const WINDOWS_BYTES: usize = 1 << 20;

/// The state as it was at one entry.
#[derive(Debug)]
pub(in crate::storage) struct SavedState {
    /// The entry.
    pub(in crate::storage) applied: LogId,
    /// The sequencer's chain there.
    pub(in crate::storage) chain: Chain,
    /// Everything but windows and keys.
    pub(in crate::storage) section: Vec<u8>,
    /// The producers' windows.
    pub(in crate::storage) windows: Vec<Vec<u8>>,
    /// The keys of each collection.
    pub(in crate::storage) roots: Vec<(u32, Root)>,
}

/// What a section of the state begins with.
pub(in crate::storage) struct Head {
    /// The entry.
    pub(in crate::storage) applied: LogId,
    chain: Chain,
    /// The membership there, with the entry that set it.
    pub(in crate::storage) membership: Option<(LogId, Bytes)>,
}

impl Head {
    pub(in crate::storage) fn load(from: &mut Take<'_>) -> Result<Self, Malformed> {
        let applied = from.id()?;
        let chain = Chain { term: from.number()?, sequence: from.number()? };
        if chain.sequence >= NUMBERS_END {
            return Err(Malformed);
        }
        let membership = if from.flag()? {
            let id = from.id()?;
            Some((id, Bytes::copy_from_slice(from.bytes()?)))
        } else {
            None
        };
        Ok(Self { applied, chain, membership })
    }
}

impl State {
    /// Returns the state as it is; `None` where nothing is applied.
    pub(in crate::storage) fn save(&self) -> Option<SavedState> {
        let applied = self.applied?;
        let mut section = Vec::new();
        section.put_id(applied);
        section.put_number(self.chain.term);
        section.put_number(self.chain.sequence);
        section.push(self.membership.is_some().into());
        if let Some((id, membership)) = &self.membership {
            section.put_id(*id);
            section.put_bytes(membership);
        }
        section.put_signed(self.log_time_ms);
        self.catalog.save(&mut section);
        section.put_number(self.partitions.len() as u64);
        for (number, partition) in &self.partitions {
            section.put_number((*number).into());
            section.put_number(partition.collection.into());
            section.put_number(partition.log_start);
            section.put_number(partition.next_offset);
            section.put_number(partition.size_bytes);
        }
        section.put_number(self.indexes.len() as u64);
        for (collection, index) in &self.indexes {
            section.put_number((*collection).into());
            section.put_number(index.tree.len() as u64);
        }
        let roots = self.indexes.iter().map(|(collection, index)| (*collection, index.tree.root()));
        Some(SavedState {
            applied,
            chain: self.chain,
            section,
            windows: self.windows.save(WINDOWS_BYTES),
            roots: roots.collect(),
        })
    }

    /// Returns the state that a section and the keys of each collection make; the windows come after.
    pub(in crate::storage) fn load(
        mut from: Take<'_>,
        mut keys: BTreeMap<u32, (Tree, Due)>,
        producer_bytes_max: u64,
    ) -> Result<Self, Malformed> {
        let mut state = Self::new(producer_bytes_max);
        let Head { applied, chain, membership } = Head::load(&mut from)?;
        (state.applied, state.removals) = (Some(applied), Removals::after(applied.index));
        (state.chain, state.membership) = (chain, membership);
        state.log_time_ms = from.signed()?;
        state.catalog = Catalog::load(&mut from)?;
        state.partitions.clear();
        for _ in 0..from.count()? {
            let number = from.narrow()?;
            let partition = PartitionStats {
                collection: from.narrow()?,
                log_start: from.number()?,
                next_offset: from.number()?,
                size_bytes: from.number()?,
            };
            if partition.next_offset >= NUMBERS_END {
                return Err(Malformed);
            }
            state.partitions.insert(number, partition);
        }
        for _ in 0..from.count()? {
            let (collection, count) = (from.narrow()?, from.number()?);
            let (tree, due) = keys.remove(&collection).unwrap_or_default();
            if tree.len() as u64 != count {
                return Err(Malformed);
            }
            let index = Index { tree, due, is_changed: true, ..Index::default() };
            state.index_bytes += index.bytes();
            state.indexes.insert(collection, index);
        }
        // Keys of a collection without an index are nobody's.
        if !keys.is_empty() {
            return Err(Malformed);
        }
        from.end()?;
        state.catalog_is_changed = true;
        Ok(state)
    }

    /// Adds the windows of a section.
    pub(in crate::storage) fn load_windows(&mut self, from: Take<'_>) -> Result<(), Malformed> {
        self.windows.load(from)
    }

    /// Returns the next offset of each partition.
    pub(in crate::storage) fn next_offsets(&self) -> BTreeMap<u32, u64> {
        let ends = self.partitions.iter();
        ends.map(|(number, partition)| (*number, partition.next_offset)).collect()
    }

    /// Returns the sequencer's chain at the last entry applied.
    pub(in crate::storage) fn chain(&self) -> Chain {
        self.chain
    }
}
