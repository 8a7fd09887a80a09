//! Pages: leaf pages hold entries, inner pages hold pages.
//!
//! A page that a root shares is never changed: `Arc::make_mut` copies it first. Functions that change
//! pages keep a running count of the bytes of the whole tree.
//!
//! They recurse by level. All leaves lie at one depth, which grows with the logarithm of the count.

#![expect(
    clippy::indexing_slicing,
    reason = "indexes are the page's own: one out of bounds is a defect and must stop"
)]

use std::sync::Arc;

use super::{
    Leaf,
    keys::{KEYS_MAX, Keys, clone_entries, common_len, grow_by_one},
    leaves::Leaves,
};

/// Entries of a leaf page: about 6 KiB with keys of 16 bytes. It holds one more before it is split.
pub(super) const LEAF_MAX: usize = KEYS_MAX - 1;

/// Children of an inner page, which has one separator less. It holds one more before it is split.
pub(super) const INNER_MAX: usize = KEYS_MAX;

/// Bytes of keys in a page, above which it is split if it has keys enough: long keys must not make
/// pages that are dear to copy.
pub(super) const KEY_BYTES_MAX: usize = 16 * 1024;

/// The two counters in front of what an `Arc` holds.
const ARC_COUNTERS: usize = 2 * size_of::<usize>();

/// A page of either kind. A clone counts a reference.
#[derive(Clone, Debug)]
pub(super) enum Page {
    Leaf(Arc<LeafPage>),
    Inner(Arc<InnerPage>),
}

/// In this order: what is looked at first lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct LeafPage {
    leaves: Leaves,
    keys: Keys,
}

/// In this order: what is looked at first lies together.
#[derive(Debug)]
#[repr(C)]
pub(super) struct InnerPage {
    children: Vec<Page>,
    /// How many entries lie below each child.
    counts: Vec<usize>,
    /// One less than the children: child `i + 1` has the keys from separator `i` on.
    separators: Keys,
}

/// The upper part of a page that had become too big.
#[derive(Debug)]
pub(super) struct Split {
    separator: Vec<u8>,
    right: Page,
}

impl Page {
    /// Returns the page above two others.
    pub(super) fn above(left: Self, split: Split) -> Self {
        let mut separators = Keys::default();
        separators.insert(0, &split.separator);
        let counts = vec![left.count(), split.right.count()];
        Self::Inner(Arc::new(InnerPage { separators, children: vec![left, split.right], counts }))
    }

    /// Returns a leaf page of sorted keys.
    pub(super) fn leaf(keys: Keys, leaves: Leaves) -> Self {
        Self::Leaf(Arc::new(LeafPage { keys, leaves }))
    }

    /// Returns the page above others; a separator is the first key of each but the first.
    pub(super) fn inner(children: Vec<Self>, separators: Keys) -> Self {
        let counts = children.iter().map(Self::count).collect();
        Self::Inner(Arc::new(InnerPage { separators, children, counts }))
    }

    /// Returns the child of a page that has no other, and so is not needed.
    pub(super) fn only_child(&self) -> Option<Self> {
        match self {
            Self::Inner(page) if page.children.len() == 1 => page.children.first().cloned(),
            _ => None,
        }
    }

    /// Returns how many bytes this page takes, without the pages below.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Leaf(page) => page.bytes(),
            Self::Inner(page) => page.bytes(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Leaf(page) => page.len(),
            Self::Inner(page) => page.counts.iter().sum(),
        }
    }

    /// Returns whether both are one page in memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(one), Self::Leaf(two)) => Arc::ptr_eq(one, two),
            (Self::Inner(one), Self::Inner(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Leaf> {
        let mut page = self;
        loop {
            match page {
                Self::Inner(inner) => page = &inner.children[inner.child_of(key)],
                Self::Leaf(leaf) => {
                    return leaf.keys.find(key).map(|index| leaf.leaves.get(index));
                }
            }
        }
    }

    /// Shows the entries below the page, in the order of their keys.
    pub(super) fn for_each(&self, see: &mut impl FnMut(Leaf)) {
        match self {
            Self::Leaf(page) => {
                for index in 0..page.len() {
                    see(page.leaves.get(index));
                }
            }
            Self::Inner(page) => page.children.iter().for_each(|child| child.for_each(see)),
        }
    }

    /// Returns how many keys are less than this one, and whether this one is there.
    pub(super) fn rank(&self, key: &[u8]) -> (usize, bool) {
        let mut rank = 0;
        let mut page = self;
        loop {
            match page {
                Self::Inner(inner) => {
                    let index = inner.child_of(key);
                    rank += inner.counts[..index].iter().sum::<usize>();
                    page = &inner.children[index];
                }
                Self::Leaf(leaf) => {
                    return match leaf.keys.search(key) {
                        Ok(index) => (rank + index, true),
                        Err(index) => (rank + index, false),
                    };
                }
            }
        }
    }

    /// Returns the leaf page and the index in it of the entry that `rank` others precede.
    pub(super) fn locate(&self, mut rank: usize) -> Option<(&Arc<LeafPage>, usize)> {
        let mut page = self;
        loop {
            match page {
                Self::Leaf(leaf) => return (rank < leaf.len()).then_some((leaf, rank)),
                Self::Inner(inner) => {
                    let index = inner.counts.iter().position(|count| {
                        let is_before = rank >= *count;
                        rank -= if is_before { *count } else { 0 };
                        !is_before
                    })?;
                    page = &inner.children[index];
                }
            }
        }
    }

    /// Sets a key's entry; returns the one before, and what must go beside this page.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        leaf: Leaf,
        bytes: &mut usize,
    ) -> (Option<Leaf>, Option<Split>) {
        match self {
            Self::Leaf(page) => {
                *bytes -= page.bytes();
                let page = Arc::make_mut(page);
                let result = page.insert(key, leaf);
                *bytes += page.bytes() + result.1.as_ref().map_or(0, |split| split.right.bytes());
                result
            }
            Self::Inner(page) => {
                *bytes -= page.bytes();
                let page = Arc::make_mut(page);
                let result = page.insert(key, leaf, bytes);
                *bytes += page.bytes() + result.1.as_ref().map_or(0, |split| split.right.bytes());
                result
            }
        }
    }

    /// Takes a key out that is there.
    pub(super) fn remove(&mut self, key: &[u8], bytes: &mut usize) {
        *bytes -= self.bytes();
        match self {
            Self::Leaf(page) => Arc::make_mut(page).remove(key),
            Self::Inner(page) => Arc::make_mut(page).remove(key, bytes),
        }
        *bytes += self.bytes();
    }

    /// Returns whether the page is worth putting together with a neighbour.
    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(page) => {
                page.len() < LEAF_MAX / 4 && page.keys.byte_len() < KEY_BYTES_MAX / 4
            }
            Self::Inner(page) => page.children.len() < INNER_MAX / 4,
        }
    }

    /// Puts two neighbours into one page, unless it would be full soon.
    fn merged(left: &Self, separator: &[u8], right: &Self) -> Option<Self> {
        let fits = |left: &Keys, right: &Keys| {
            Keys::concat_byte_len(left, right) + separator.len() <= KEY_BYTES_MAX / 4 * 3
        };
        match (left, right) {
            (Self::Leaf(left), Self::Leaf(right))
                if left.len() + right.len() <= LEAF_MAX / 4 * 3
                    && fits(&left.keys, &right.keys) =>
            {
                let keys = Keys::concat(&left.keys, &right.keys);
                let leaves = Leaves::concat(&left.leaves, &right.leaves);
                Some(Self::Leaf(Arc::new(LeafPage { keys, leaves })))
            }
            (Self::Inner(left), Self::Inner(right))
                if left.children.len() + right.children.len() <= INNER_MAX / 4 * 3
                    && fits(&left.separators, &right.separators) =>
            {
                let mut separators = Keys::concat(&left.separators, &right.separators);
                separators.insert(left.separators.len(), separator);
                let children = [left.children.as_slice(), &right.children].concat();
                let counts = [left.counts.as_slice(), &right.counts].concat();
                Some(Self::Inner(Arc::new(InnerPage { separators, children, counts })))
            }
            _ => None,
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::Leaf(Arc::default())
    }
}

impl LeafPage {
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Replaces the content of `key` by the key at `index` and returns its entry.
    pub(super) fn entry(&self, index: usize, key: &mut Vec<u8>) -> Leaf {
        self.keys.copy_to(index, key);
        self.leaves.get(index)
    }

    fn bytes(&self) -> usize {
        ARC_COUNTERS + size_of::<Self>() + self.keys.heap_bytes() + self.leaves.heap_bytes()
    }

    fn insert(&mut self, key: &[u8], leaf: Leaf) -> (Option<Leaf>, Option<Split>) {
        match self.keys.search(key) {
            Ok(index) => (Some(self.leaves.replace(index, leaf)), None),
            Err(index) => {
                self.keys.insert(index, key);
                self.leaves.insert(index, leaf);
                (None, self.split_point(index).map(|at| self.split(at)))
            }
        }
    }

    /// Returns where to split the page after an insertion at `index`, if it is too big.
    fn split_point(&self, index: usize) -> Option<usize> {
        let count = self.len();
        if count > LEAF_MAX {
            return Some(biased_middle(index, count));
        }
        (self.keys.byte_len() > KEY_BYTES_MAX && count >= 2).then(|| self.keys.byte_middle())
    }

    fn split(&mut self, at: usize) -> Split {
        let right_keys = self.keys.part(at..self.len());
        self.keys = self.keys.part(0..at);
        let right_leaves = self.leaves.part(at..self.len());
        self.leaves = self.leaves.part(0..at);
        // The shortest key that is greater than all on the left and not greater than any on the right.
        let mut separator = right_keys.key(0);
        let last = self.keys.key(at - 1);
        separator.truncate(common_len(&separator, &last) + 1);
        let right = Self { keys: right_keys, leaves: right_leaves };
        Split { separator, right: Page::Leaf(Arc::new(right)) }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Ok(index) = self.keys.search(key) {
            self.keys.remove(index);
            self.leaves.remove(index);
        }
    }
}

/// Returns where to split after an insertion at `index`. Keys that arrive in order leave full pages
/// behind them.
fn biased_middle(index: usize, count: usize) -> usize {
    if index + 1 == count {
        count / 8 * 7
    } else if index == 0 {
        count / 8
    } else {
        count / 2
    }
}

impl Clone for LeafPage {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), leaves: self.leaves.clone() }
    }
}

impl InnerPage {
    fn child_of(&self, key: &[u8]) -> usize {
        match self.separators.search(key) {
            Ok(index) => index + 1,
            Err(index) => index,
        }
    }

    fn bytes(&self) -> usize {
        ARC_COUNTERS
            + size_of::<Self>()
            + self.separators.heap_bytes()
            + size_of::<Page>() * self.children.capacity()
            + size_of::<usize>() * self.counts.capacity()
    }

    fn insert(
        &mut self,
        key: &[u8],
        leaf: Leaf,
        bytes: &mut usize,
    ) -> (Option<Leaf>, Option<Split>) {
        let index = self.child_of(key);
        let (before, split) = self.children[index].insert(key, leaf, bytes);
        self.counts[index] += usize::from(before.is_none());
        let Some(split) = split else { return (before, None) };
        let right_count = split.right.count();
        self.counts[index] -= right_count;
        self.separators.insert(index, &split.separator);
        grow_by_one(&mut self.children);
        self.children.insert(index + 1, split.right);
        grow_by_one(&mut self.counts);
        self.counts.insert(index + 1, right_count);
        (before, self.split_point(index + 1).map(|at| self.split(at)))
    }

    fn split_point(&self, index: usize) -> Option<usize> {
        let count = self.children.len();
        let has_long_keys = self.separators.byte_len() > KEY_BYTES_MAX && count >= 4;
        if count > INNER_MAX {
            Some(biased_middle(index, count))
        } else {
            has_long_keys.then_some(count / 2)
        }
    }

    /// Splits before child `at`; the separator before it goes up.
    fn split(&mut self, at: usize) -> Split {
        let separator = self.separators.key(at - 1);
        let right = Self {
            separators: self.separators.part(at..self.separators.len()),
            children: clone_entries(&self.children[at..]),
            counts: clone_entries(&self.counts[at..]),
        };
        self.separators = self.separators.part(0..at - 1);
        self.children = clone_entries(&self.children[..at]);
        self.counts = clone_entries(&self.counts[..at]);
        Split { separator, right: Page::Inner(Arc::new(right)) }
    }

    fn remove(&mut self, key: &[u8], bytes: &mut usize) {
        let index = self.child_of(key);
        self.children[index].remove(key, bytes);
        self.counts[index] -= 1;
        if self.counts[index] == 0 {
            *bytes -= self.children[index].bytes();
            self.drop_child(index, index.saturating_sub(1));
        } else if self.children[index].is_small() {
            let neighbours = [index.checked_sub(1), Some(index)];
            let _merged = neighbours.into_iter().flatten().any(|left| self.merge(left, bytes));
        }
    }

    /// Puts child `left` and the one behind it together, if there is one and they fit into a page.
    fn merge(&mut self, left: usize, bytes: &mut usize) -> bool {
        let Some([one, other]) = self.children.get(left..left + 2) else { return false };
        let separator = self.separators.key(left);
        let Some(page) = Page::merged(one, &separator, other) else { return false };
        *bytes += page.bytes();
        *bytes -= one.bytes() + other.bytes();
        self.children[left] = page;
        self.counts[left] += self.counts[left + 1];
        self.drop_child(left + 1, left);
        true
    }

    fn drop_child(&mut self, index: usize, separator: usize) {
        self.children.remove(index);
        self.counts.remove(index);
        if separator < self.separators.len() {
            self.separators.remove(separator);
        }
    }
}

impl Clone for InnerPage {
    fn clone(&self) -> Self {
        Self {
            separators: self.separators.clone(),
            children: clone_entries(&self.children),
            counts: clone_entries(&self.counts),
        }
    }
}

#[cfg(test)]
impl Page {
    /// Checks order, counts and depth of the pages below and returns their depth and bytes.
    pub(super) fn check(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> (usize, usize) {
        let is_inside =
            |key: &[u8]| from.is_none_or(|from| from <= key) && to.is_none_or(|to| key < to);
        let assert_sorted = |keys: &Keys| {
            for index in 0..keys.len() {
                assert!(is_inside(&keys.key(index)));
                assert_eq!(keys.search(&keys.key(index)), Ok(index));
                assert!(index == 0 || keys.key(index - 1) < keys.key(index));
            }
        };
        match self {
            Self::Leaf(page) => {
                assert_sorted(&page.keys);
                assert_eq!(page.keys.len(), page.leaves.len());
                assert!(page.len() <= LEAF_MAX);
                (1, page.bytes())
            }
            Self::Inner(page) => {
                assert_sorted(&page.separators);
                assert_eq!(page.separators.len() + 1, page.children.len());
                assert!(page.children.len() <= INNER_MAX);
                let (mut depths, mut bytes) = (Vec::new(), page.bytes());
                for (index, child) in page.children.iter().enumerate() {
                    assert!(page.counts[index] > 0);
                    assert_eq!(page.counts[index], child.count());
                    let separator =
                        |at: usize| (at < page.separators.len()).then(|| page.separators.key(at));
                    let lower = index.checked_sub(1).and_then(separator);
                    let upper = separator(index);
                    let lower = lower.as_deref().or(from);
                    let (depth, below) = child.check(lower, upper.as_deref().or(to));
                    depths.push(depth);
                    bytes += below;
                }
                depths.dedup();
                assert_eq!(depths.len(), 1, "all leaves lie at one depth");
                (depths[0] + 1, bytes)
            }
        }
    }
}
