//! A tree of keys that come in order, built from its leaves up: each page is written once.

use super::{
    Leaf, Root, Tree,
    keys::Keys,
    leaves::Leaves,
    page::{INNER_MAX, KEY_BYTES_MAX, LEAF_MAX, Page},
};

/// Pages are not filled to the brim, or the next keys would split each of them.
const LEAF_FILL: usize = LEAF_MAX - LEAF_MAX / 16;
const INNER_FILL: usize = INNER_MAX - INNER_MAX / 16;

/// Builds a tree.
#[derive(Debug, Default)]
pub struct Builder {
    /// Pages with their first keys.
    pages: Vec<(Vec<u8>, Page)>,
    keys: Vec<Vec<u8>>,
    /// How many of the keys are in use: their buffers are used again.
    used: usize,
    key_bytes: usize,
    leaves: Leaves,
    len: usize,
}

impl Builder {
    /// Adds a key that is greater than all before. Returns whether it is.
    pub fn push(&mut self, key: &[u8], leaf: Leaf) -> bool {
        let is_greater = match (self.used.checked_sub(1), self.pages.is_empty()) {
            (Some(last), _) => self.keys.get(last).is_some_and(|last| last.as_slice() < key),
            // A page was just ended by its last key.
            (None, false) => self.keys.get(LAST_KEY).is_some_and(|last| last.as_slice() < key),
            (None, true) => true,
        };
        if !is_greater {
            return false;
        }
        match self.keys.get_mut(self.used) {
            Some(buffer) => {
                buffer.clear();
                buffer.extend_from_slice(key);
            }
            None => self.keys.push(key.to_vec()),
        }
        self.used += 1;
        self.key_bytes += key.len();
        self.leaves.push(leaf);
        self.len += 1;
        if self.used == LEAF_FILL || self.key_bytes >= KEY_BYTES_MAX / 2 {
            self.end_page();
        }
        true
    }

    fn end_page(&mut self) {
        let Some(keys) = self.keys.get(..self.used).filter(|keys| !keys.is_empty()) else { return };
        let first = keys.first().cloned().unwrap_or_default();
        let page = Page::leaf(Keys::of(keys), std::mem::take(&mut self.leaves));
        self.pages.push((first, page));
        self.leaves.reserve_exact(LEAF_FILL);
        self.keys.swap(LAST_KEY, self.used - 1);
        (self.used, self.key_bytes) = (0, 0);
    }

    /// Returns the tree.
    #[must_use]
    pub fn finish(mut self) -> Tree {
        self.end_page();
        let mut bytes = self.pages.iter().map(|(_, page)| page.bytes()).sum();
        let mut pages = self.pages;
        while pages.len() > 1 {
            let mut above = Vec::with_capacity(pages.len().div_ceil(INNER_FILL));
            let mut rest = pages.into_iter().peekable();
            while rest.peek().is_some() {
                let (firsts, children): (Vec<Vec<u8>>, Vec<Page>) =
                    rest.by_ref().take(INNER_FILL).unzip();
                let separators = Keys::of(firsts.get(1..).unwrap_or_default());
                let page = Page::inner(children, separators);
                bytes += page.bytes();
                above.push((firsts.into_iter().next().unwrap_or_default(), page));
            }
            pages = above;
        }
        match pages.pop() {
            Some((_, page)) => Tree { root: Root { page, len: self.len }, bytes },
            None => Tree::new(),
        }
    }
}

/// Where the last key of the page before is kept.
const LAST_KEY: usize = 0;

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::{super::NEVER, *};

    fn leaf(version: u64) -> Leaf {
        Leaf { segment: 1, position: 2, start: 3, partition: 4, version, expires_ms: NEVER }
    }

    fn built<'a>(keys: impl Iterator<Item = &'a Vec<u8>>) -> Tree {
        let mut builder = Builder::default();
        for (version, key) in (0..).zip(keys) {
            assert!(builder.push(key, leaf(version)));
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn a_built_tree_is_that_of_its_keys_and_takes_more(
            keys in prop::collection::btree_set(prop::collection::vec(0_u8..4, 0..8), 0..3000),
            more in prop::collection::vec(prop::collection::vec(0_u8..5, 0..9), 0..50),
        ) {
            let mut tree = built(keys.iter());
            let (_, bytes) = tree.root().page.check(None, None);
            prop_assert_eq!(bytes, tree.bytes());
            let all: Vec<(Vec<u8>, Leaf)> =
                tree.root().range(Bound::Unbounded, Bound::Unbounded).collect();
            let expected: Vec<_> = keys.iter().cloned().zip((0..).map(leaf)).collect();
            prop_assert_eq!(all, expected);
            for key in &more {
                tree.insert(key, leaf(9));
                prop_assert_eq!(tree.get(key), Some(leaf(9)));
            }
            let (_, bytes) = tree.root().page.check(None, None);
            prop_assert_eq!(bytes, tree.bytes());
        }
    }

    #[test]
    fn many_keys_and_long_ones_make_pages_of_all_levels() {
        let keys: Vec<Vec<u8>> =
            (0..200_000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        let tree = built(keys.iter());
        let (depth, bytes) = tree.root().page.check(None, None);
        assert_eq!((depth, bytes, tree.len()), (3, tree.bytes(), 200_000));
        let long: Vec<Vec<u8>> =
            (0..500_u32).map(|number| [&number.to_be_bytes()[..], &[7; 4000]].concat()).collect();
        built(long.iter()).root().page.check(None, None);
    }

    #[test]
    fn a_key_out_of_order_is_refused() {
        let mut builder = Builder::default();
        for number in 0..LEAF_FILL {
            assert!(builder.push(&[u8::try_from(number).unwrap() + 1], leaf(0)));
        }
        assert!(!builder.push(&[1], leaf(0)) && !builder.push(&[60], leaf(0)));
        assert!(builder.push(&[200], leaf(0)) && !builder.push(&[200], leaf(0)));
    }
}
