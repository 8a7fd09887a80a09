//! Segments that go under other numbers, each byte where it was.

use std::collections::BTreeMap;

use super::codec::Malformed;

/// Which segment of one log is which of another, and how many bytes of it count.
#[derive(Debug, Default)]
pub(in crate::storage) struct Renumber(BTreeMap<u64, (u64, u64)>);

impl Renumber {
    /// Adds a segment of `len` bytes.
    pub(in crate::storage) fn add(&mut self, number: u64, new: u64, len: u64) {
        self.0.insert(number, (new, len));
    }

    /// Returns the new number of a segment; `None` for one that has none.
    pub(in crate::storage) fn get(&self, number: u64) -> Option<u64> {
        self.0.get(&number).map(|(new, _)| *new)
    }

    /// Returns the new number of a segment that has one, and bytes behind a position.
    pub(super) fn of_place(&self, number: u32, position: u32) -> Result<u32, Malformed> {
        let (new, len) = self.0.get(&number.into()).ok_or(Malformed)?;
        if u64::from(position) >= *len {
            return Err(Malformed);
        }
        u32::try_from(*new).map_err(|_| Malformed)
    }
}
