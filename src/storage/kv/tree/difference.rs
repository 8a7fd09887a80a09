//! Where two trees differ, one of which came of the other.
//!
//! The writer copies only what it changes, so most pages of an old root are pages of the new one too: they
//! are passed over without looking at their keys.

use std::{cmp::Ordering, ops::Bound};

use super::Root;

impl Root {
    /// Returns the first key between two bounds that only one of the trees has, or that has another version
    /// in the other; `None` if there is none. Where records lie makes no difference.
    pub fn first_difference(
        &self,
        other: &Self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Option<Vec<u8>> {
        if self.is_same(other) {
            return None;
        }
        let (mut mine, mut theirs) = (self.range(from, to), other.range(from, to));
        let (mut my_key, mut their_key) = (Vec::new(), Vec::new());
        loop {
            mine.skip_shared(&mut theirs);
            let found = (mine.next_into(&mut my_key), theirs.next_into(&mut their_key));
            match found {
                (None, None) => return None,
                (Some(_), None) => return Some(my_key),
                (None, Some(_)) => return Some(their_key),
                (Some(one), Some(two)) => match my_key.cmp(&their_key) {
                    Ordering::Equal if one.version == two.version => {}
                    Ordering::Less | Ordering::Equal => return Some(my_key),
                    Ordering::Greater => return Some(their_key),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::kv::tree::{Leaf, NEVER, Tree};

    fn leaf(version: u64) -> Leaf {
        Leaf { segment: 0, position: 0, start: 0, partition: 0, version, expires_ms: NEVER }
    }

    fn key(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    #[test]
    fn a_change_outside_of_the_bounds_is_none() {
        let mut tree = Tree::new();
        for number in 0..10_000 {
            tree.insert(&key(number), leaf(0));
        }
        let before = tree.root();
        assert_eq!(before.first_difference(&tree.root(), Bound::Unbounded, Bound::Unbounded), None);
        tree.insert(&key(5000), leaf(1));
        let after = tree.root();
        let (low, middle, high) = (key(0), key(5000), key(9000));
        let between =
            |from: Bound<&[u8]>, to: Bound<&[u8]>| before.first_difference(&after, from, to);
        assert_eq!(between(Bound::Included(&low), Bound::Excluded(&middle)), None);
        assert_eq!(between(Bound::Excluded(&middle), Bound::Included(&high)), None);
        let found = between(Bound::Included(&low), Bound::Included(&middle));
        assert_eq!(found, Some(middle.to_vec()));
    }

    proptest! {
        #[test]
        fn the_first_difference_is_that_of_two_maps(
            first in prop::collection::vec(0..400u32, 0..400),
            changes in prop::collection::vec((0..400u32, any::<Option<bool>>()), 0..6),
            bounds in (0..400u32, 0..400u32),
        ) {
            let (mut tree, mut map) = (Tree::new(), BTreeMap::new());
            for number in first {
                tree.insert(&key(number), leaf(0));
                map.insert(key(number).to_vec(), 0);
            }
            let (root, before) = (tree.root(), map.clone());
            for (number, change) in changes {
                match change {
                    Some(is_new) => {
                        let version = u64::from(is_new);
                        tree.insert(&key(number), leaf(version));
                        map.insert(key(number).to_vec(), version);
                    }
                    None => {
                        tree.remove(&key(number));
                        map.remove(&key(number)[..]);
                    }
                }
            }
            let (from, to) = (key(bounds.0).to_vec(), key(bounds.1).to_vec());
            let is_inside = |key: &&Vec<u8>| **key >= from && **key < to;
            let differs = |key: &&Vec<u8>| before.get(*key) != map.get(*key);
            let expected = before.keys().chain(map.keys()).filter(is_inside).filter(differs).min();
            let found = root.first_difference(
                &tree.root(),
                Bound::Included(&from),
                Bound::Excluded(&to),
            );
            prop_assert_eq!(found.as_ref(), expected);
        }
    }
}
