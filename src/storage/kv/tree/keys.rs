//! The keys of one page: sorted, in one buffer, their common prefix cut off.
//!
//! | field | content |
//! |---|---|
//! | `bytes` | the prefix, then every key without it, end to end |
//! | `heads` | for each of those its first four bytes as a number |
//! | `ends` | and where it ends |
//!
//! A short head is filled up with zeros. Two heads that differ order their keys; only keys with equal
//! heads are compared in full. All heads of a page are compared, one after the other: they lie in eight
//! cache lines that are fetched at once, where each step of a binary search would wait for the one before.
//!
//! Heads and ends are part of the page, not vectors of their own: whoever comes from the page above has
//! one address to wait for, not two. They take the room of a full page in one that is not.

#![expect(
    clippy::indexing_slicing,
    reason = "positions are the page's own: one out of bounds is a defect and must stop"
)]

use std::{cmp::Ordering, ops::Range};

/// Keys of a page: at most this many, so that how many are compared is known to the compiler.
pub(super) const KEYS_MAX: usize = 128;

/// Vectors of a page grow by this many elements at a time, not by doubling: a page has few entries,
/// and room that is never used would be a third of the index.
const GROWTH: usize = 16;

/// The buffer of keys grows by this many bytes at a time.
const BYTES_GROWTH: usize = 256;

/// In this order: what is looked at first lies together.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Keys {
    len: usize,
    prefix_len: usize,
    bytes: Vec<u8>,
    /// Behind the last one are heads that are not less than any.
    heads: [Head; KEYS_MAX],
    ends: [u32; KEYS_MAX],
}

/// The first bytes of a key, in their order. Signed, since processors compare many of those at once.
type Head = i32;

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many bytes the keys take, the common prefix once.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns how many bytes the keys hold on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Finds a key: `Ok` with its index, or `Err` with the index it would have.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let suffix = match key.split_at_checked(self.prefix_len) {
            Some((start, suffix)) if are_equal(start, prefix) => suffix,
            // All keys begin with the prefix, so they lie on one side of this one.
            _ => return Err(if key < prefix { 0 } else { self.len() }),
        };
        self.search_suffix(suffix)
    }

    /// Returns the index of a key, if it is there.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let (start, suffix) = key.split_at_checked(self.prefix_len)?;
        // Whether it begins with the prefix is asked last: nothing waits for the answer then.
        let index = self.search_suffix(suffix).ok()?;
        are_equal(start, self.prefix()).then_some(index)
    }

    fn search_suffix(&self, suffix: &[u8]) -> Result<usize, usize> {
        let head = head_of(suffix);
        // A sum that checks for overflow would be one comparison at a time.
        let before = self.heads.iter().fold(0_u32, |count, known| {
            let is_before = u32::from(*known < head);
            count.wrapping_add(is_before)
        });
        let first = widened(before);
        // Nearly always the first key with this head is the only one.
        if self.known_heads().get(first) != Some(&head) {
            return Err(first);
        }
        if are_equal(self.suffix(first), suffix) {
            return Ok(first);
        }
        let same = self.known_heads()[first..].partition_point(|known| *known == head);
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
            *self = self.rebuilt(common);
        }
        let suffix = &key[common..];
        let at = self.start(index);
        let old_len = self.bytes.len();
        grow(&mut self.bytes, suffix.len(), BYTES_GROWTH);
        self.bytes.resize(old_len + suffix.len(), 0);
        self.bytes.copy_within(at..old_len, at + suffix.len());
        self.bytes[at..at + suffix.len()].copy_from_slice(suffix);
        let (added, len) = (position(suffix.len()), self.len);
        self.heads.copy_within(index..len, index + 1);
        self.heads[index] = head_of(suffix);
        self.ends.copy_within(index..len, index + 1);
        self.ends[index] = position(at);
        self.len += 1;
        for end in &mut self.ends[index..=len] {
            *end = end.wrapping_add(added);
        }
    }

    /// Returns sorted keys.
    pub(super) fn of<K: AsRef<[u8]>>(sorted: &[K]) -> Self {
        let mut keys = Self::default();
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return keys };
        let prefix_len = common_len(first.as_ref(), last.as_ref());
        keys.set_prefix(&first.as_ref()[..prefix_len]);
        let bytes: usize = sorted.iter().map(|key| key.as_ref().len() - prefix_len).sum();
        grow(&mut keys.bytes, bytes, BYTES_GROWTH);
        for key in sorted {
            let suffix = &key.as_ref()[prefix_len..];
            keys.bytes.extend_from_slice(suffix);
            keys.push_end(head_of(suffix));
        }
        keys
    }

    /// Takes the key at `index` out.
    pub(super) fn remove(&mut self, index: usize) {
        let range = self.range(index);
        let removed = position(range.len());
        self.bytes.drain(range);
        let last = self.len - 1;
        self.heads.copy_within(index + 1..self.len, index);
        self.heads[last] = Head::MAX;
        self.ends.copy_within(index + 1..self.len, index);
        self.len = last;
        for end in &mut self.ends[index..last] {
            *end = end.wrapping_sub(removed);
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
        grow(&mut keys.bytes, bytes - in_common * range.len(), BYTES_GROWTH);
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
        grow(&mut keys.bytes, Self::concat_byte_len(left, right), BYTES_GROWTH);
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
        self.ends[..self.len].partition_point(|end| *end <= half).clamp(1, self.len() - 1)
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

    fn known_heads(&self) -> &[Head] {
        &self.heads[..self.len]
    }

    /// Returns the same keys with a prefix of `prefix_len`, which is shorter.
    fn rebuilt(&self, prefix_len: usize) -> Self {
        let mut keys = Self::default();
        keys.set_prefix(&self.prefix()[..prefix_len]);
        let longer = (self.prefix_len - prefix_len) * self.len();
        grow(&mut keys.bytes, self.bytes.len() - self.prefix_len + longer, BYTES_GROWTH);
        keys.extend_from(self, 0..self.len());
        keys
    }

    fn set_prefix(&mut self, prefix: &[u8]) {
        self.prefix_len = prefix.len();
        self.bytes.extend_from_slice(prefix);
    }

    /// Adds a key whose bytes were just appended.
    fn push_end(&mut self, head: Head) {
        self.heads[self.len] = head;
        self.ends[self.len] = position(self.bytes.len());
        self.len += 1;
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
            self.push_end(head_of(&self.bytes[start..]));
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            len: 0,
            prefix_len: 0,
            bytes: Vec::new(),
            heads: [Head::MAX; KEYS_MAX],
            ends: [0; KEYS_MAX],
        }
    }
}

impl Clone for Keys {
    /// Copies with room for growth: a page is copied because it is about to change.
    fn clone(&self) -> Self {
        Self {
            len: self.len,
            prefix_len: self.prefix_len,
            bytes: clone_with_room(&self.bytes, BYTES_GROWTH),
            heads: self.heads,
            ends: self.ends,
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

/// Compares strings without a call for each: short ones by their first and their last bytes, which overlap,
/// so that lengths that differ from page to page are no branch that differs.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let Some(differ) = differ_at_ends::<8>(one, other) {
        return !differ && (one.len() <= 16 || one == other);
    }
    if let Some(differ) = differ_at_ends::<4>(one, other) {
        return !differ;
    }
    one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Returns whether the first or the last `N` bytes differ; `None` for shorter strings.
fn differ_at_ends<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
    let first = one.first_chunk::<N>()? == other.first_chunk()?;
    let last = one.last_chunk::<N>()? == other.last_chunk()?;
    Some(!(first & last))
}

fn head_of(suffix: &[u8]) -> Head {
    let mut head = [0; 4];
    match suffix.first_chunk() {
        Some(first) => head = *first,
        None => head[..suffix.len()].copy_from_slice(suffix),
    }
    // With the first bit turned over signed numbers lie in the order of unsigned ones.
    (u32::from_be_bytes(head) ^ 1 << 31).cast_signed()
}

fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a page holds at most 128 keys of at most 64 KiB")
}

fn widened(position: u32) -> usize {
    usize::try_from(position).expect("a position was made from a usize")
}
