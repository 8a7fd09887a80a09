//! What a transaction wrote, laid over what it found.

use std::{cmp::Ordering, collections::btree_map, iter::Peekable};

use bytes::Bytes;

/// The direction of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first key to the last.
    #[default]
    Forward,
    /// From the last key to the first.
    Reverse,
}

/// Where a key's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<B> {
    /// The transaction wrote it.
    Written(Bytes),
    /// It is what lies below the transaction.
    Base(B),
}

/// Keys in order, each once: the transaction's where it wrote one, without those that it deleted.
#[derive(Debug)]
pub struct Merged<'a, B, I: Iterator<Item = (Bytes, B)>> {
    written: Option<btree_map::Range<'a, Bytes, Option<Bytes>>>,
    next_written: Option<(&'a Bytes, &'a Option<Bytes>)>,
    order: Order,
    base: Peekable<I>,
}

impl<'a, B, I: Iterator<Item = (Bytes, B)>> Merged<'a, B, I> {
    pub(super) fn new(
        written: Option<btree_map::Range<'a, Bytes, Option<Bytes>>>,
        order: Order,
        base: I,
    ) -> Self {
        let mut merged = Self { written, next_written: None, order, base: base.peekable() };
        merged.advance();
        merged
    }

    fn advance(&mut self) {
        self.next_written = self.written.as_mut().and_then(|written| match self.order {
            Order::Forward => written.next(),
            Order::Reverse => written.next_back(),
        });
    }
}

impl<B, I: Iterator<Item = (Bytes, B)>> Iterator for Merged<'_, B, I> {
    type Item = (Bytes, Source<B>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, value)) = self.next_written else {
                return self.base.next().map(|(key, base)| (key, Source::Base(base)));
            };
            let before = self.base.peek().map_or(Ordering::Less, |(below, _)| match self.order {
                Order::Forward => key.cmp(below),
                Order::Reverse => below.cmp(key),
            });
            if before == Ordering::Greater {
                return self.base.next().map(|(key, base)| (key, Source::Base(base)));
            }
            if before == Ordering::Equal {
                self.base.next();
            }
            self.advance();
            if let Some(value) = value {
                // The clones count references.
                return Some((key.clone(), Source::Written(value.clone())));
            }
        }
    }
}
