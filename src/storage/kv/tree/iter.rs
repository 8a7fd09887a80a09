//! Reading a range from both ends.
//!
//! The iterator keeps the leaf page it is in and finds the next one by its rank from the root: one
//! descent for up to 127 entries, and no stack to keep right in two directions.

use std::{iter::FusedIterator, sync::Arc};

use super::{Leaf, Root, page::LeafPage};

/// Keys of a range, in order, with the places of their records.
///
/// [`Iter::next_into`] fills a buffer of the caller's; the [`Iterator`] allocates each key.
#[derive(Clone, Debug)]
pub struct Iter {
    root: Root,
    // The ranks not given out yet: `first..end`.
    first: usize,
    end: usize,
    front: Option<Place>,
    back: Option<Place>,
}

/// An entry of a leaf page.
#[derive(Clone, Debug)]
struct Place {
    page: Arc<LeafPage>,
    index: usize,
}

impl Iter {
    pub(super) fn new(root: Root, first: usize, end: usize) -> Self {
        Self { root, first: first.min(end), end, front: None, back: None }
    }

    /// Takes the first key left: replaces the content of `key` by it and returns its place.
    pub fn next_into(&mut self, key: &mut Vec<u8>) -> Option<Leaf> {
        if self.first == self.end {
            return None;
        }
        let following = self.front.take().and_then(Place::next);
        let place = match following {
            Some(place) => place,
            None => self.locate(self.first)?,
        };
        let leaf = place.page.entry(place.index, key);
        self.front = Some(place);
        self.first += 1;
        Some(leaf)
    }

    /// Takes the last key left: replaces the content of `key` by it and returns its place.
    pub fn next_back_into(&mut self, key: &mut Vec<u8>) -> Option<Leaf> {
        if self.first == self.end {
            return None;
        }
        let preceding = self.back.take().and_then(Place::previous);
        let place = match preceding {
            Some(place) => place,
            None => self.locate(self.end - 1)?,
        };
        let leaf = place.page.entry(place.index, key);
        self.back = Some(place);
        self.end -= 1;
        Some(leaf)
    }

    /// Passes over pages that come next in both, where both are between two pages.
    pub(super) fn skip_shared(&mut self, other: &mut Self) {
        while self.is_between_pages() || other.is_between_pages() {
            let (Some(mine), Some(theirs)) = (self.locate(self.first), other.locate(other.first))
            else {
                return;
            };
            if mine.index != theirs.index || !Arc::ptr_eq(&mine.page, &theirs.page) {
                return;
            }
            let left = (self.end - self.first).min(other.end - other.first);
            let shared = (mine.page.len() - mine.index).min(left);
            if shared == 0 {
                return;
            }
            for iter in [&mut *self, other] {
                iter.first += shared;
                iter.front = None;
            }
        }
    }

    fn is_between_pages(&self) -> bool {
        self.front.as_ref().is_none_or(|place| place.index + 1 == place.page.len())
    }

    fn locate(&self, rank: usize) -> Option<Place> {
        self.root.page.locate(rank).map(|(page, index)| Place { page: Arc::clone(page), index })
    }
}

impl Place {
    /// Returns the entry behind this one, if the page has it.
    fn next(mut self) -> Option<Self> {
        self.index += 1;
        (self.index < self.page.len()).then_some(self)
    }

    /// Returns the entry before this one, if the page has it.
    fn previous(mut self) -> Option<Self> {
        self.index = self.index.checked_sub(1)?;
        Some(self)
    }
}

impl Iterator for Iter {
    type Item = (Vec<u8>, Leaf);

    fn next(&mut self) -> Option<Self::Item> {
        let mut key = Vec::new();
        let leaf = self.next_into(&mut key)?;
        Some((key, leaf))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.first;
        (left, Some(left))
    }

    fn count(self) -> usize {
        self.end - self.first
    }

    fn nth(&mut self, skipped: usize) -> Option<Self::Item> {
        let left = self.end - self.first;
        self.first += skipped.min(left);
        self.front = None;
        self.next()
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let mut key = Vec::new();
        let leaf = self.next_back_into(&mut key)?;
        Some((key, leaf))
    }
}

impl ExactSizeIterator for Iter {}

impl FusedIterator for Iter {}
