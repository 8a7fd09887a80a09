//! The entries of a leaf page: 24 bytes each, and 8 more where some key of the page expires.

#![expect(
    clippy::indexing_slicing,
    reason = "indexes are the page's own: one out of bounds is a defect and must stop"
)]

use std::ops::Range;

use super::{
    Leaf, NEVER,
    keys::{clone_entries, grow_by_one},
};

/// A leaf without when it expires.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u32,
    position: u32,
    start: u32,
    partition: u32,
    version: u64,
}

const _: () = assert!(size_of::<Place>() == 24);

/// The entries of a page, in the order of its keys.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    places: Vec<Place>,
    /// As many as places, or none where no key expires.
    expiries: Vec<i64>,
}

impl Place {
    fn of(leaf: Leaf) -> Self {
        let Leaf { segment, position, start, partition, version, expires_ms: _ } = leaf;
        Self { segment, position, start, partition, version }
    }
}

impl Leaves {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, index: usize) -> Leaf {
        let Place { segment, position, start, partition, version } = self.places[index];
        let expires_ms = self.expiries.get(index).copied().unwrap_or(NEVER);
        Leaf { segment, position, start, partition, version, expires_ms }
    }

    /// Puts an entry in the place of another, and returns that one.
    pub(super) fn replace(&mut self, index: usize, leaf: Leaf) -> Leaf {
        let before = self.get(index);
        self.expire_if(leaf.expires_ms != NEVER);
        self.places[index] = Place::of(leaf);
        if let Some(expires_ms) = self.expiries.get_mut(index) {
            *expires_ms = leaf.expires_ms;
        }
        before
    }

    pub(super) fn insert(&mut self, index: usize, leaf: Leaf) {
        self.expire_if(leaf.expires_ms != NEVER);
        if !self.expiries.is_empty() || leaf.expires_ms != NEVER {
            grow_by_one(&mut self.expiries);
            self.expiries.insert(index, leaf.expires_ms);
        }
        grow_by_one(&mut self.places);
        self.places.insert(index, Place::of(leaf));
    }

    pub(super) fn push(&mut self, leaf: Leaf) {
        self.insert(self.len(), leaf);
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.places.remove(index);
        if index < self.expiries.len() {
            self.expiries.remove(index);
        }
    }

    /// Returns some of the entries; when they expire is left out if none of them does.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let expiries = self.expiries.get(range.clone()).unwrap_or_default();
        let expiries = if expiries.iter().all(|at| *at == NEVER) { &[] } else { expiries };
        Self { places: clone_entries(&self.places[range]), expiries: clone_entries(expiries) }
    }

    pub(super) fn concat(left: &Self, right: &Self) -> Self {
        let places = [left.places.as_slice(), &right.places].concat();
        let mut expiries = Vec::new();
        if !left.expiries.is_empty() || !right.expiries.is_empty() {
            expiries.reserve_exact(places.len());
            for side in [left, right] {
                expiries.extend_from_slice(&side.expiries);
                let without = side.len() - side.expiries.len();
                expiries.extend(std::iter::repeat_n(NEVER, without));
            }
        }
        Self { places, expiries }
    }

    pub(super) fn reserve_exact(&mut self, more: usize) {
        self.places.reserve_exact(more);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Place>() * self.places.capacity() + size_of::<i64>() * self.expiries.capacity()
    }

    /// Makes room for when each entry expires, if one will.
    fn expire_if(&mut self, expires: bool) {
        if expires && self.expiries.is_empty() {
            self.expiries = vec![NEVER; self.places.len()];
        }
    }
}

impl Clone for Leaves {
    fn clone(&self) -> Self {
        Self { places: clone_entries(&self.places), expiries: clone_entries(&self.expiries) }
    }
}
