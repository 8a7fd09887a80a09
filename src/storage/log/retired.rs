//! What cleaning asks of a log and tells it.

use super::{entry::LogId, writer::Log};

impl Log {
    /// Returns whether Raft asks for no entry of a segment any more.
    pub(in crate::storage) fn is_retired(&self, segment: u64) -> bool {
        self.fold.index.is_retired(segment)
    }

    /// Returns the last entry of a segment that has a name.
    pub(in crate::storage) fn last_of(&self, segment: u64) -> Option<LogId> {
        let last = self.fold.index.last_in(segment)?;
        self.fold.index.id_at(last)
    }

    /// Returns the segment that an entry lies in.
    pub(in crate::storage) fn segment_of(&self, index: u64) -> Option<u64> {
        self.fold.index.segment_of(index)
    }

    /// Forgets where entries lay in segments that were replaced.
    pub(in crate::storage) fn drop_segments(&mut self, gone: &[u64]) {
        self.fold.index.drop_segments(gone);
    }

    /// Hears that a history segment with so many bytes is part of it.
    pub(in crate::storage) fn took(&mut self, bytes: u64) {
        self.preparation.log_bytes += bytes;
    }

    /// Hears that segments with so many bytes were removed.
    pub(in crate::storage) fn gave_back(&mut self, bytes: u64) {
        self.preparation.log_bytes = self.preparation.log_bytes.saturating_sub(bytes);
    }
}
