//! What applying did beside the state itself.

use std::collections::BTreeMap;

/// What became of records: for the index of streams, and for cleaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Partitions that are no longer hosted.
    pub removed: Vec<u32>,
    /// Partitions that begin later, and where.
    pub trimmed: Vec<(u32, u64)>,
    /// Partitions that are hosted from now on or anew, and whether their age matters.
    pub marked: Vec<(u32, bool)>,
    /// By segment, records that are not the latest of their key any more, where such may go.
    pub replaced: BTreeMap<u32, u64>,
    /// By segment, tombstones that may go one day.
    pub tombstones: BTreeMap<u32, u64>,
}

impl Effects {
    /// Returns whether nothing became of any.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
