//! Writes that are not committed, what undoes them, and what was read.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;

use super::{Isolation, Merged, Order, TransactionError};

/// What a key costs beside its bytes.
const WRITE_OVERHEAD: usize = 96;

/// A range of keys that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRead<C> {
    /// The collection.
    pub collection: C,
    /// Where it begins.
    pub from: Bound<Bytes>,
    /// Where it ends.
    pub to: Bound<Bytes>,
}

/// What was read, as far as the isolation asks for it.
#[derive(Clone, Debug)]
pub struct Reads<C> {
    /// Single keys, with or without a value.
    pub keys: BTreeMap<C, BTreeSet<Bytes>>,
    /// Ranges.
    pub ranges: Vec<RangeRead<C>>,
    key_count: usize,
}

/// Puts a key back to what the transaction had for it.
#[derive(Clone, Debug)]
struct Undo<C> {
    collection: C,
    key: Bytes,
    /// `None`: it had not written the key.
    before: Option<Option<Bytes>>,
}

#[derive(Clone, Debug)]
struct Savepoint {
    name: String,
    /// How long the list of undos was.
    undos: usize,
}

/// The writes and reads of one transaction; `C` names a collection.
///
/// ```
/// use prkdb_types::{Isolation, transaction::Buffer};
///
/// let mut buffer = Buffer::new(Isolation::Snapshot, 1 << 20);
/// buffer.put("accounts", "ada".into(), "100".into())?;
/// buffer.savepoint("before the transfer")?;
/// buffer.delete("accounts", "ada".into())?;
/// buffer.rollback_to("before the transfer")?;
/// assert_eq!(buffer.get(&"accounts", b"ada"), Some(Some(&"100".into())));
/// # Ok::<(), prkdb_types::TransactionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Buffer<C> {
    isolation: Isolation,
    writes: BTreeMap<C, BTreeMap<Bytes, Option<Bytes>>>,
    write_count: usize,
    bytes: usize,
    bytes_max: usize,
    undos: Vec<Undo<C>>,
    savepoints: Vec<Savepoint>,
    reads: Reads<C>,
}

impl<C: Ord + Clone> Buffer<C> {
    /// Returns an empty buffer, whose writes may take so many bytes.
    pub fn new(isolation: Isolation, bytes_max: usize) -> Self {
        Self {
            isolation,
            writes: BTreeMap::new(),
            write_count: 0,
            bytes: 0,
            bytes_max,
            undos: Vec::new(),
            savepoints: Vec::new(),
            reads: Reads { keys: BTreeMap::new(), ranges: Vec::new(), key_count: 0 },
        }
    }

    /// Returns what the transaction is kept from seeing.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.write_count == 0
    }

    /// Returns how many keys were written.
    pub fn len(&self) -> usize {
        self.write_count
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`TransactionError::TooMany`] and [`TransactionError::TooLarge`].
    pub fn put(&mut self, collection: C, key: Bytes, value: Bytes) -> Result<(), TransactionError> {
        self.write(collection, key, Some(value))
    }

    /// Takes a key's value away.
    ///
    /// # Errors
    /// As [`Buffer::put`].
    pub fn delete(&mut self, collection: C, key: Bytes) -> Result<(), TransactionError> {
        self.write(collection, key, None)
    }

    fn write(
        &mut self,
        collection: C,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<(), TransactionError> {
        let known = self.writes.get(&collection).and_then(|keys| keys.get(&key));
        if known.is_none() {
            TransactionError::check_writes(self.write_count)?;
        }
        // What can be undone is kept, so it counts like what is there.
        let bytes = self.bytes + write_bytes(&key, value.as_ref());
        if bytes > self.bytes_max {
            return Err(TransactionError::TooLarge { bytes, limit: self.bytes_max });
        }
        self.bytes = bytes;
        // The clones count references.
        let before = self.writes.entry(collection.clone()).or_default().insert(key.clone(), value);
        self.write_count += usize::from(before.is_none());
        if self.savepoints.is_empty() {
            if let Some(replaced) = before {
                self.bytes -= write_bytes(&key, replaced.as_ref());
            }
        } else {
            self.undos.push(Undo { collection, key, before });
        }
        Ok(())
    }

    /// Returns what the transaction wrote for a key: a value, or that it has none; `None` if it wrote
    /// nothing.
    pub fn get(&self, collection: &C, key: &[u8]) -> Option<Option<&Bytes>> {
        Some(self.writes.get(collection)?.get(key)?.as_ref())
    }

    /// Returns keys of a range as the transaction sees them, over what lies below it in the same order.
    pub fn merge<B, I: Iterator<Item = (Bytes, B)>>(
        &self,
        collection: &C,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        base: I,
    ) -> Merged<'_, B, I> {
        let is_empty = match (from, to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Excluded(to) | Bound::Included(to),
            ) => from >= to,
        };
        let keys = self.writes.get(collection).filter(|_| !is_empty);
        Merged::new(keys.map(|keys| keys.range::<[u8], _>((from, to))), order, base)
    }

    /// Returns everything written, by collection and key; `None` for a key whose value goes.
    pub fn writes(&self) -> impl Iterator<Item = (&C, &Bytes, Option<&Bytes>)> {
        self.writes.iter().flat_map(|(collection, keys)| {
            keys.iter().map(move |(key, value)| (collection, key, value.as_ref()))
        })
    }

    /// Notes that a key was read below the buffer.
    ///
    /// # Errors
    /// [`TransactionError::TooMany`].
    pub fn note_read(&mut self, collection: C, key: Bytes) -> Result<(), TransactionError> {
        if self.isolation == Isolation::Snapshot {
            return Ok(());
        }
        let keys = self.reads.keys.entry(collection).or_default();
        if keys.contains(&key) {
            return Ok(());
        }
        TransactionError::check_reads(self.reads.key_count)?;
        keys.insert(key);
        self.reads.key_count += 1;
        Ok(())
    }

    /// Notes that a range was read below the buffer.
    ///
    /// # Errors
    /// [`TransactionError::TooMany`].
    pub fn note_range(&mut self, range: RangeRead<C>) -> Result<(), TransactionError> {
        if self.isolation == Isolation::Snapshot || self.reads.ranges.contains(&range) {
            return Ok(());
        }
        TransactionError::check_ranges(self.reads.ranges.len())?;
        self.reads.ranges.push(range);
        Ok(())
    }

    /// Returns what was read. Going back to a savepoint takes nothing from it: what was decided there
    /// rests on it.
    pub fn reads(&self) -> &Reads<C> {
        &self.reads
    }

    /// Sets a mark that the transaction can go back to. One of the same name is hidden by it.
    ///
    /// # Errors
    /// [`TransactionError::TooMany`].
    pub fn savepoint(&mut self, name: &str) -> Result<(), TransactionError> {
        TransactionError::check_savepoints(self.savepoints.len())?;
        self.savepoints.push(Savepoint { name: name.to_owned(), undos: self.undos.len() });
        Ok(())
    }

    /// Undoes what was written since a mark. The mark stays; marks set after it go.
    ///
    /// # Errors
    /// [`TransactionError::NoSuchSavepoint`].
    pub fn rollback_to(&mut self, name: &str) -> Result<(), TransactionError> {
        let at = self.find(name)?;
        self.savepoints.truncate(at + 1);
        let kept = self.savepoints.last().map_or(0, |savepoint| savepoint.undos);
        for undo in self.undos.split_off(kept).into_iter().rev() {
            let keys = self.writes.entry(undo.collection.clone()).or_default();
            let gone = match undo.before {
                Some(value) => keys.insert(undo.key.clone(), value),
                None => {
                    self.write_count -= 1;
                    keys.remove(&undo.key)
                }
            };
            let is_empty = keys.is_empty();
            if let Some(gone) = gone {
                self.bytes -= write_bytes(&undo.key, gone.as_ref());
            }
            if is_empty {
                self.writes.remove(&undo.collection);
            }
        }
        Ok(())
    }

    /// Forgets a mark and those set after it; what was written stays.
    ///
    /// # Errors
    /// [`TransactionError::NoSuchSavepoint`].
    pub fn release(&mut self, name: &str) -> Result<(), TransactionError> {
        let at = self.find(name)?;
        self.savepoints.truncate(at);
        if self.savepoints.is_empty() {
            for undo in self.undos.drain(..) {
                if let Some(replaced) = undo.before {
                    self.bytes -= write_bytes(&undo.key, replaced.as_ref());
                }
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, TransactionError> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name)
            .ok_or_else(|| TransactionError::NoSuchSavepoint { name: name.to_owned() })
    }

    /// Returns how many bytes the writes take, with what undoes them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn write_bytes(key: &Bytes, value: Option<&Bytes>) -> usize {
    WRITE_OVERHEAD + key.len() + value.map_or(0, Bytes::len)
}
