//! The keys of one page: sorted, in one buffer, their common prefix cut off.
//!
//! | field | content |
//! |---|---|
//! | `bytes` | the prefix, then every key without it, end to end |
//! | `heads` | for each of those its first four bytes as a number |
//! | `ends` | and where it ends |
//!
//! A short head is filled up with zeros. Two heads that differ order their keys; only keys with equal
//! heads are compared in full. All heads of a page are compared, one after the other: they lie in four
//! cache lines that are fetched at once, where each step of a binary search would wait for the one before.

#![expect(
    clippy::indexing_slicing,
    reason = "positions are the page's own: one out of bounds is a defect and must stop"
)]

use std::{cmp::Ordering, ops::Range};

/// Vectors of a page grow by this many elements at a time, not by doubling: a page has few entries,
/// and room that is never used would be a third of the index.
const GROWTH: usize = 8;

/// The buffer of keys grows by this many bytes at a time.
const BYTES_GROWTH: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Keys {
    prefix_len: usize,
    bytes: Vec<u8>,
    heads: Vec<u32>,
    ends: Vec<u32>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns how many bytes the keys take, the common prefix once.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns how many bytes the keys hold on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<u32>() * (self.heads.capacity() + self.ends.capacity())
    }

    /// Finds a key: `Ok` with its index, or `Err` with the index it would have.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let suffix = match key.split_at_checked(self.prefix_len) {
            Some((start, suffix)) if are_equal(start, prefix) => suffix,
            // All keys begin with the prefix, so they lie on one side of this one.
            _ => return Err(if key < prefix { 0 } else { self.len() }),
        };
        let head = head_of(suffix);
        let before: u32 = self.heads.iter().map(|known| u32::from(*known < head)).sum();
        let first = widened(before);
        // Nearly always the first key with this head is the only one.
        if self.heads.get(first) != Some(&head) {
            return Err(first);
        }
        if are_equal(self.suffix(first), suffix) {
            return Ok(first);
        }
        let same = self.heads[first..].partition_point(|known| *known == head);
        let mut range = first..first + same;
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => range.start = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => range.end = middle,
            }
        }
        Err(range.start)
    }

    /// Replaces the content of `to` by the key at `index`.
    pub(super) fn copy_to(&self, index: usize, to: &mut Vec<u8>) {
        to.clear();
        to.extend_from_slice(self.prefix());
        to.extend_from_slice(self.suffix(index));
    }

    /// Returns a copy of the key at `index`.
    pub(super) fn key(&self, index: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(index)].concat()
    }

    /// Puts a key at the index that [`Keys::search`] gave.
    pub(super) fn insert(&mut self, index: usize, key: &[u8]) {
        if self.len() == 0 {
            self.bytes.clear();
            self.prefix_len = 0;
        }
        let common = common_len(self.prefix(), key);
        if common < self.prefix_len {
            *self = self.rebuilt(common, self.len() + 1);
        }
        let suffix = &key[common..];
        let at = self.start(index);
        let old_len = self.bytes.len();
        grow(&mut self.bytes, suffix.len(), BYTES_GROWTH);
        self.bytes.resize(old_len + suffix.len(), 0);
        self.bytes.copy_within(at..old_len, at + suffix.len());
        self.bytes[at..at + suffix.len()].copy_from_slice(suffix);
        let added = position(suffix.len());
        for end in &mut self.ends[index..] {
            *end += added;
        }
        grow_by_one(&mut self.heads);
        self.heads.insert(index, head_of(suffix));
        grow_by_one(&mut self.ends);
        self.ends.insert(index, position(at) + added);
    }

    /// Returns sorted keys.
    pub(super) fn of<K: AsRef<[u8]>>(sorted: &[K]) -> Self {
        let mut keys = Self::default();
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return keys };
        let prefix_len = common_len(first.as_ref(), last.as_ref());
        keys.set_prefix(&first.as_ref()[..prefix_len]);
        let bytes: usize = sorted.iter().map(|key| key.as_ref().len() - prefix_len).sum();
        keys.reserve(sorted.len(), bytes);
        for key in sorted {
            let suffix = &key.as_ref()[prefix_len..];
            keys.bytes.extend_from_slice(suffix);
            keys.heads.push(head_of(suffix));
            keys.ends.push(position(keys.bytes.len()));
        }
        keys
    }

    /// Takes the key at `index` out.
    pub(super) fn remove(&mut self, index: usize) {
        let range = self.range(index);
        let removed = position(range.len());
        self.bytes.drain(range);
        self.heads.remove(index);
        self.ends.remove(index);
        for end in &mut self.ends[index..] {
            *end -= removed;
        }
    }

    /// Returns the keys of a range of indexes, with the longest prefix they have in common.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let mut keys = Self::default();
        if range.is_empty() {
            return keys;
        }
        let in_common = common_len(self.suffix(range.start), self.suffix(range.end - 1));
        keys.set_prefix(&self.key(range.start)[..self.prefix_len + in_common]);
        let bytes = self.range(range.end - 1).end - self.start(range.start);
        keys.reserve(range.len(), bytes - in_common * range.len());
        keys.extend_from(self, range);
        keys
    }

    /// Returns the keys of `left` and then those of `right`, which are greater.
    pub(super) fn concat(left: &Self, right: &Self) -> Self {
        let (Some(last), true) = (right.len().checked_sub(1), left.len() > 0) else {
            let some = if left.len() > 0 { left } else { right };
            return some.part(0..some.len());
        };
        let (first, last) = (left.key(0), right.key(last));
        let mut keys = Self::default();
        keys.set_prefix(&first[..common_len(&first, &last)]);
        keys.reserve(left.len() + right.len(), Self::concat_byte_len(left, right));
        keys.extend_from(left, 0..left.len());
        keys.extend_from(right, 0..right.len());
        keys
    }

    /// Returns how many bytes the keys of [`Keys::concat`] take.
    pub(super) fn concat_byte_len(left: &Self, right: &Self) -> usize {
        let (Some(last), true) = (right.len().checked_sub(1), left.len() > 0) else {
            return left.byte_len() + right.byte_len();
        };
        let prefix_len = common_len(&left.key(0), &right.key(last));
        // A page's own prefix may be shorter than it could be.
        let suffixes = |keys: &Self| {
            let whole = keys.byte_len() - keys.prefix_len + keys.len() * keys.prefix_len;
            whole - keys.len() * prefix_len
        };
        prefix_len + suffixes(left) + suffixes(right)
    }

    /// Returns the index at which the first half of the bytes ends, neither 0 nor the length.
    ///
    /// There must be two keys.
    pub(super) fn byte_middle(&self) -> usize {
        let half = position(self.prefix_len + (self.bytes.len() - self.prefix_len) / 2);
        self.ends.partition_point(|end| *end <= half).clamp(1, self.len() - 1)
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_len]
    }

    fn suffix(&self, index: usize) -> &[u8] {
        &self.bytes[self.range(index)]
    }

    fn range(&self, index: usize) -> Range<usize> {
        self.start(index)..widened(self.ends[index])
    }

    fn start(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => widened(self.ends[before]),
            None => self.prefix_len,
        }
    }

    /// Returns the same keys with a prefix of `prefix_len`, which is shorter, and room for `count`.
    fn rebuilt(&self, prefix_len: usize, count: usize) -> Self {
        let mut keys = Self::default();
        keys.set_prefix(&self.prefix()[..prefix_len]);
        let longer = (self.prefix_len - prefix_len) * self.len();
        keys.reserve(count, self.bytes.len() - self.prefix_len + longer);
        keys.extend_from(self, 0..self.len());
        keys
    }

    fn set_prefix(&mut self, prefix: &[u8]) {
        self.prefix_len = prefix.len();
        self.bytes.extend_from_slice(prefix);
    }

    fn reserve(&mut self, count: usize, bytes: usize) {
        grow(&mut self.bytes, bytes, BYTES_GROWTH);
        grow(&mut self.heads, count, GROWTH);
        grow(&mut self.ends, count, GROWTH);
    }

    /// Appends keys of another page, all greater than those here, that begin with the prefix.
    fn extend_from(&mut self, other: &Self, range: Range<usize>) {
        for index in range {
            let suffix = other.suffix(index);
            let start = self.bytes.len();
            if let Some(longer) = self.prefix_len.checked_sub(other.prefix_len) {
                self.bytes.extend_from_slice(&suffix[longer..]);
            } else {
                self.bytes.extend_from_slice(&other.prefix()[self.prefix_len..]);
                self.bytes.extend_from_slice(suffix);
            }
            self.heads.push(head_of(&self.bytes[start..]));
            self.ends.push(position(self.bytes.len()));
        }
    }
}

impl Clone for Keys {
    /// Copies with room for growth: a page is copied because it is about to change.
    fn clone(&self) -> Self {
        Self {
            prefix_len: self.prefix_len,
            bytes: clone_with_room(&self.bytes, BYTES_GROWTH),
            heads: clone_with_room(&self.heads, GROWTH),
            ends: clone_with_room(&self.ends, GROWTH),
        }
    }
}

/// Makes room for `more` elements, and a few besides.
pub(super) fn grow<T>(vec: &mut Vec<T>, more: usize, step: usize) {
    let needed = vec.len() + more;
    if needed > vec.capacity() {
        vec.reserve_exact(needed.next_multiple_of(step) - vec.len());
    }
}

/// Copies a vector that is about to take one more element.
pub(super) fn clone_with_room<T: Clone>(vec: &[T], step: usize) -> Vec<T> {
    let mut copy = Vec::with_capacity((vec.len() + 1).next_multiple_of(step));
    copy.extend_from_slice(vec);
    copy
}

/// Makes room for one more entry of a page.
pub(super) fn grow_by_one<T>(vec: &mut Vec<T>) {
    grow(vec, 1, GROWTH);
}

/// Copies the entries of a page.
pub(super) fn clone_entries<T: Clone>(vec: &[T]) -> Vec<T> {
    clone_with_room(vec, GROWTH)
}

/// Returns how many bytes two keys have in common at their start.
pub(super) fn common_len(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Compares short strings without a call.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (one, one_rest) = one.as_chunks::<8>();
    let (other, other_rest) = other.as_chunks::<8>();
    let words = one.iter().zip(other);
    let rest = one_rest.iter().zip(other_rest);
    words.fold(0, |differ, (a, b)| differ | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))) == 0
        && rest.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn head_of(suffix: &[u8]) -> u32 {
    if let Some(head) = suffix.first_chunk::<4>() {
        return u32::from_be_bytes(*head);
    }
    let mut head = [0; 4];
    head[..suffix.len()].copy_from_slice(suffix);
    u32::from_be_bytes(head)
}

fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a page holds at most 65 keys of at most 64 KiB")
}

fn widened(position: u32) -> usize {
    usize::try_from(position).expect("a position was made from a usize")
}
