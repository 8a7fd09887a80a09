//! Reading the batches of partitions, each from a place on, in turn.
//!
//! A reader knows which of its partitions may have more: those that grew, and those it has not read to
//! the end. It goes round them, a piece each, so that none waits for another to end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use prkdb_types::{ErrorCode, command::PartitionPlace};

use super::{
    core::{Node, ShardHandle},
    growth::{Ears, Listener},
    outcome::Failure,
    router::Route,
};
use crate::storage::{Bounds, Fetched};

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// An offset.
    Offset(u64),
    /// The first record with this timestamp or a later one, in milliseconds since 1970; else the end.
    Time(i64),
    /// The first offset there is.
    Earliest,
    /// The offset that the next record gets.
    Latest,
}

/// What a position stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The offset.
    pub offset: u64,
    /// The record's timestamp, for a time that some record has reached.
    pub timestamp_ms: Option<i64>,
    /// What can be read of the partition.
    pub bounds: Bounds,
}

/// Finds the offset that a position stands for.
///
/// # Errors
/// Those of reading a segment, for a time.
pub fn resolve(
    node: &Node,
    place: PartitionPlace,
    position: Position,
) -> Result<Resolved, Failure> {
    let shard = &node.shard(place.shard)?.shard;
    let bounds = shard.stream_bounds(place.partition);
    let (offset, timestamp_ms) = match position {
        Position::Offset(offset) => (offset, None),
        Position::Earliest => (bounds.log_start, None),
        Position::Latest => (bounds.high_watermark, None),
        Position::Time(time_ms) => {
            let found = shard.offset_at_time(place.partition, time_ms);
            match found.map_err(|error| Failure::from(&error))? {
                Some((offset, timestamp_ms)) => (offset, Some(timestamp_ms)),
                None => (bounds.high_watermark, None),
            }
        }
    };
    Ok(Resolved { offset, timestamp_ms, bounds })
}

/// A partition that is read.
#[derive(Debug)]
struct Cursor {
    number: u32,
    handle: Arc<ShardHandle>,
    next_offset: u64,
    /// Something was sent of it, if only how far it goes.
    is_told: bool,
}

/// A piece of a partition.
#[derive(Debug)]
pub struct Piece {
    /// The number of the partition in its collection.
    pub number: u32,
    /// Its batches; none where only the bounds are told.
    pub fetched: Fetched,
}

/// Reads several partitions.
#[derive(Debug)]
pub struct Reader {
    collection: String,
    cursors: BTreeMap<u32, Cursor>,
    /// Partitions that may have more.
    ready: VecDeque<u32>,
    ears: Arc<Ears>,
    _listeners: Vec<Listener>,
}

impl Reader {
    /// Returns a reader of partitions, named by their numbers in the collection.
    ///
    /// # Errors
    /// [`ErrorCode::PartitionNotFound`]; [`ErrorCode::OffsetOutOfRange`] with the range there is;
    /// [`ErrorCode::InvalidArgument`] for a partition that is named twice.
    pub async fn open(
        node: &Node,
        route: &Route,
        starts: &[(u32, Position)],
    ) -> Result<Self, Failure> {
        let collection = route.collection.name.as_str().to_owned();
        let mut cursors = BTreeMap::new();
        let mut by_shard: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (number, _) in starts {
            let place = route.place(*number)?;
            by_shard.entry(place.shard).or_default().push(place.partition);
        }
        for shard in by_shard.keys() {
            node.shard(*shard)?.read_barrier().await?;
        }
        for (number, position) in starts {
            let place = route.place(*number)?;
            let Resolved { offset, bounds, .. } = resolve(node, place, *position)?;
            if offset < bounds.log_start || offset > bounds.high_watermark {
                return Err(out_of_range(&collection, *number, offset, bounds));
            }
            let handle = Arc::clone(node.shard(place.shard)?);
            let cursor = Cursor { number: *number, handle, next_offset: offset, is_told: false };
            if cursors.insert(place.partition, cursor).is_some() {
                let message = format!("partition {number} is named twice");
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
        }
        let ears = Arc::new(Ears::default());
        let mut listeners = Vec::with_capacity(by_shard.len());
        for (shard, partitions) in by_shard {
            listeners.push(node.shard(shard)?.growth().listen(partitions, &ears));
        }
        let ready = cursors.keys().copied().collect();
        Ok(Self { collection, cursors, ready, ears, _listeners: listeners })
    }

    /// Reads the next piece of about `bytes_max` bytes. `None`: there is nothing at present.
    ///
    /// # Errors
    /// [`ErrorCode::PartitionNotFound`] for a partition that was dropped, and those of reading.
    pub fn next(&mut self, bytes_max: usize) -> Result<Option<Piece>, Failure> {
        self.hear();
        while let Some(partition) = self.ready.pop_front() {
            let Some(cursor) = self.cursors.get_mut(&partition) else { continue };
            let shard = &cursor.handle.shard;
            if !shard.hosts(partition) {
                let (number, name) = (cursor.number, &self.collection);
                let message = format!(
                    "partition {number} of collection '{name}' is not here: it was dropped, or is \
                     being created"
                );
                return Err(Failure::new(ErrorCode::PartitionNotFound, message));
            }
            let from = cursor.next_offset;
            let fetched =
                shard.fetch(partition, from, bytes_max).map_err(|error| Failure::from(&error))?;
            if cursor.next_offset < fetched.bounds.log_start {
                // What it was at was trimmed meanwhile.
                let (number, offset) = (cursor.number, cursor.next_offset);
                return Err(out_of_range(&self.collection, number, offset, fetched.bounds));
            }
            cursor.next_offset = fetched.next_offset;
            if fetched.next_offset < fetched.bounds.high_watermark {
                self.ready.push_back(partition);
            }
            let is_passed = fetched.bytes == 0 && fetched.next_offset > from;
            if fetched.bytes > 0 || is_passed || !std::mem::replace(&mut cursor.is_told, true) {
                cursor.is_told = true;
                return Ok(Some(Piece { number: cursor.number, fetched }));
            }
        }
        Ok(None)
    }

    /// Waits until there may be more.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn grown(&self) {
        self.ears.wait().await;
    }

    /// Notes which partitions have grown.
    fn hear(&mut self) {
        let waiting: BTreeSet<u32> = self.ready.iter().copied().collect();
        let grown = self.ears.take();
        self.ready.extend(grown.into_iter().filter(|partition| !waiting.contains(partition)));
    }
}

fn out_of_range(collection: &str, number: u32, offset: u64, bounds: Bounds) -> Failure {
    let Bounds { log_start, high_watermark } = bounds;
    let message = format!(
        "partition {number} of collection '{collection}' has offsets from {log_start} up to \
         {high_watermark}, not {offset}"
    );
    Failure::new(ErrorCode::OffsetOutOfRange, message)
        .with_hint("read from earliest, latest or an offset in between")
}
