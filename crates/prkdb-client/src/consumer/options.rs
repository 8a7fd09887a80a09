//! What a consumer is told when it is opened.

use std::collections::BTreeMap;

use prkdb_proto::v1::{Position, position::Place};

/// Where to begin in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    #[default]
    Earliest,
    /// Behind the last record there is when the consumer is opened.
    Latest,
    /// At this offset.
    Offset(u64),
    /// At the first record with this timestamp or a later one, in milliseconds since 1970, and from there
    /// on at every record, whatever its timestamp; behind the last record if none has reached it.
    TimestampMs(i64),
}

impl StartAt {
    /// Returns the place as the wire names it.
    pub(super) fn position(self) -> Position {
        let place = match self {
            Self::Earliest => Place::Earliest(true),
            Self::Latest => Place::Latest(true),
            Self::Offset(offset) => Place::Offset(offset),
            Self::TimestampMs(timestamp_ms) => Place::TimestampMs(timestamp_ms),
        };
        Position { place: Some(place) }
    }
}

/// What a [`crate::Consumer`] reads.
#[derive(Clone, Debug, Default)]
pub struct ConsumerOptions {
    /// Where to begin in partitions that `partitions` does not name. Default: at the first record.
    pub start: StartAt,
    /// The partitions to read, by number, and where to begin in each. Default: empty, which means all that
    /// the collection has when the consumer is opened, each from `start`.
    pub partitions: BTreeMap<u32, StartAt>,
    /// Before which offset to end in a partition. Partitions it does not name are followed for ever, names
    /// of partitions that are not read mean nothing. Default: empty.
    pub until: BTreeMap<u32, u64>,
}
