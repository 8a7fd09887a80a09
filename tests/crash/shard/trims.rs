//! Trims that a test asks for.

use prkdb::storage::sequencer::WriteRequest;

use super::{EVENTS_PARTITION, Load};

impl Load {
    /// Returns the offset behind the last event.
    pub(crate) fn events_end(&self) -> u64 {
        self.shard.partition_state(EVENTS_PARTITION).unwrap().next_offset
    }

    /// Lets the events begin at an offset; where they do already, nothing is written.
    pub(crate) fn trim_events(&mut self, log_start: u64) {
        self.take();
        let Some(point) = self.shard.trim_point(EVENTS_PARTITION, log_start) else { return };
        self.accept(&WriteRequest::trim(EVENTS_PARTITION, point, 0)).unwrap();
        self.gathered.log_starts.insert(EVENTS_PARTITION, point.log_start);
        self.take();
    }
}
