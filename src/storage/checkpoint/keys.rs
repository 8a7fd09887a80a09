//! A key index as sections: its keys in order, each without what it has in common with the one before.

use std::{collections::BTreeMap, io, ops::Bound};

use super::{
    codec::{Malformed, Put as _, Take},
    renumber::Renumber,
};
use crate::storage::kv::{
    due::Due,
    tree::{Builder, Leaf, NEVER, Root, Tree},
};

/// A section has about this many bytes.
const SECTION_BYTES: usize = 1 << 20;

/// Hands the keys of a collection on, section by section.
pub(super) fn save(
    collection: u32,
    root: &Root,
    mut section: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut keys = root.range(Bound::Unbounded, Bound::Unbounded);
    let (mut key, mut before) = (Vec::new(), Vec::new());
    let mut content = Vec::with_capacity(SECTION_BYTES + SECTION_BYTES / 8);
    while let Some(leaf) = keys.next_into(&mut key) {
        if content.is_empty() {
            content.put_number(collection.into());
            before.clear();
        }
        let common = key.iter().zip(&before).take_while(|(one, other)| one == other).count();
        content.put_number(common as u64);
        content.put_bytes(key.get(common..).unwrap_or_default());
        content.put_number(leaf.segment.into());
        content.put_number(leaf.position.into());
        content.put_number(leaf.start.into());
        content.put_number(leaf.partition.into());
        content.put_number(leaf.version);
        content.push((leaf.expires_ms != NEVER).into());
        if leaf.expires_ms != NEVER {
            content.put_signed(leaf.expires_ms);
        }
        std::mem::swap(&mut key, &mut before);
        if content.len() >= SECTION_BYTES {
            section(&content)?;
            content.clear();
        }
    }
    if content.is_empty() { Ok(()) } else { section(&content) }
}

/// Gathers the keys of all collections.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<u32, (Builder, Due)>);

impl Gathered {
    /// Adds the keys of a section.
    pub(super) fn add(
        &mut self,
        content: &[u8],
        renumber: Option<&Renumber>,
    ) -> Result<(), Malformed> {
        let mut from = Take(content);
        let (keys, due) = self.0.entry(from.narrow()?).or_default();
        let mut key = Vec::new();
        while !from.is_empty() {
            let common: usize = from.narrow()?;
            if common > key.len() {
                return Err(Malformed);
            }
            key.truncate(common);
            key.extend_from_slice(from.bytes()?);
            let (mut segment, position) = (from.narrow()?, from.narrow()?);
            if let Some(renumber) = renumber {
                segment = renumber.of_place(segment, position)?;
            }
            let leaf = Leaf {
                segment,
                position,
                start: from.narrow()?,
                partition: from.narrow()?,
                version: from.number()?,
                expires_ms: if from.flag()? { from.signed()? } else { NEVER },
            };
            if !keys.push(&key, leaf) {
                return Err(Malformed);
            }
            due.insert(&key, leaf.expires_ms);
        }
        Ok(())
    }

    /// Returns the trees, and which keys expire.
    pub(super) fn finish(self) -> BTreeMap<u32, (Tree, Due)> {
        let gathered = self.0.into_iter();
        gathered.map(|(collection, (keys, due))| (collection, (keys.finish(), due))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tree_comes_back_from_its_sections(
            keys in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 0..40),
                any::<(u32, u32, u32, u32, u64, i64)>(),
                0..300,
            ),
        ) {
            let mut tree = Tree::new();
            for (key, (segment, position, start, partition, version, expires_ms)) in &keys {
                let (segment, position, start) = (*segment, *position, *start);
                let (partition, version, expires_ms) = (*partition, *version, *expires_ms);
                let leaf = Leaf { segment, position, start, partition, version, expires_ms };
                tree.insert(key, leaf);
            }
            let mut gathered = Gathered::default();
            save(7, &tree.root(), |section| {
                gathered.add(section, None).unwrap();
                Ok(())
            }).unwrap();
            let trees = gathered.finish();
            let all = |tree: &Tree| {
                tree.root().range(Bound::Unbounded, Bound::Unbounded).collect::<Vec<_>>()
            };
            let loaded = trees.get(&7).map(|(tree, _)| all(tree)).unwrap_or_default();
            prop_assert_eq!(loaded, all(&tree));
            let expiring = keys.values().filter(|leaf| leaf.5 != NEVER).count();
            prop_assert_eq!(trees.get(&7).map_or(0, |(_, due)| due.len()), expiring);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _read = Gathered::default().add(&bytes, None);
        }
    }
}
