//! What is left of an entry: the records that somebody can still need.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prkdb_types::{DecompressLimit, RecordView, batch::Retained};

use crate::storage::{
    StorageError,
    bug::bug,
    kv::{
        catalog::CONTROL_PARTITION,
        state::{DECOMPRESSED_BYTES_MAX, State},
        tree::Root,
    },
    log::{
        Place,
        entry::{Entry, Frame, Payload, Write, batch_positions},
    },
};

/// The shard as it was when a cleaning began. What is needless then stays so.
#[derive(Debug)]
pub(super) struct View {
    /// Collections with a key index.
    indexed: BTreeSet<u32>,
    partitions: BTreeMap<u32, Hosted>,
    /// A tombstone that was appended at this time or before may go; none may for `None`.
    tombstones_before_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Hosted {
    collection: u32,
    log_start: u64,
    is_compacted: bool,
}

/// Where in some segments the latest records of keys stand, in order.
#[derive(Debug)]
pub(super) struct Latest(Vec<RecordPlace>);

/// Looks them up. Asked in the order of the log, as it nearly always is, it answers without searching.
#[derive(Debug)]
pub(super) struct LatestReader<'a> {
    places: &'a [RecordPlace],
    /// Those before this one are passed.
    next: usize,
    asked: RecordPlace,
}

/// Segment, where the batch begins in it, and where the record begins among the batch's.
type RecordPlace = (u32, u32, u32);

impl Latest {
    pub(super) fn reader(&self) -> LatestReader<'_> {
        LatestReader { places: &self.0, next: 0, asked: RecordPlace::default() }
    }
}

impl LatestReader<'_> {
    fn contains(&mut self, place: RecordPlace) -> bool {
        if place < self.asked {
            self.next = self.places.partition_point(|known| *known < place);
        }
        self.asked = place;
        let passed = self.places.get(self.next..).unwrap_or_default();
        self.next += passed.iter().take_while(|known| **known < place).count();
        self.places.get(self.next) == Some(&place)
    }
}

/// What is left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// `None`: nothing.
    pub(super) entry: Option<Entry>,
    /// Tombstones among it that will go one day.
    pub(super) tombstones: u64,
}

impl View {
    /// Returns where a partition began.
    pub(super) fn log_start(&self, partition: u32) -> u64 {
        self.partitions.get(&partition).map_or(0, |hosted| hosted.log_start)
    }

    /// Returns what is asked of a state, and its key indexes.
    pub(super) fn of(
        state: &State,
        grace_ms: u64,
        tombstones_go: bool,
    ) -> (Self, BTreeMap<u32, Root>) {
        let roots = state.roots();
        let catalog = state.catalog();
        let hosted = catalog.partitions.values().map(|put| {
            let stats = state.partition(put.partition);
            let hosted = Hosted {
                collection: put.collection,
                log_start: stats.map_or(0, |stats| stats.log_start),
                is_compacted: put.compact && put.key_index,
            };
            (put.partition, hosted)
        });
        let cut_ms = state.log_time_ms().saturating_sub_unsigned(grace_ms);
        let view = Self {
            indexed: roots.keys().copied().collect(),
            partitions: hosted.collect(),
            tombstones_before_ms: tombstones_go.then_some(cut_ms),
        };
        (view, roots)
    }

    /// Returns the collection of a partition that has a key index, and whether its records may go.
    pub(super) fn keyed(&self, partition: u32) -> Option<(u32, bool)> {
        let hosted = self.partitions.get(&partition)?;
        let is_indexed = self.indexed.contains(&hosted.collection);
        is_indexed.then_some((hosted.collection, hosted.is_compacted))
    }

    /// Returns where the latest records stand that lie in some segments and that only their place
    /// saves. One pass over the indexes is cheaper than to look up each record that was replaced, and the
    /// roots are held no longer than that: as long as they are, apply copies what it changes.
    pub(super) fn latest_in(&self, roots: BTreeMap<u32, Root>, segments: &[u64]) -> Latest {
        let compacted = self.partitions.values().filter(|hosted| hosted.is_compacted);
        let collections: BTreeSet<u32> = compacted.map(|hosted| hosted.collection).collect();
        let mut segments: Vec<u32> =
            segments.iter().filter_map(|number| u32::try_from(*number).ok()).collect();
        segments.sort_unstable();
        let mut places = Vec::new();
        for root in collections.iter().filter_map(|collection| roots.get(collection)) {
            root.for_each_leaf(|leaf| {
                if segments.binary_search(&leaf.segment).is_ok() {
                    places.push((leaf.segment, leaf.position, leaf.start));
                }
            });
        }
        drop(roots);
        places.sort_unstable();
        Latest(places)
    }

    /// Returns what is left of an entry that lies at a place.
    pub(super) fn left_of(
        &self,
        entry: &Entry,
        place: Place,
        latest: &mut LatestReader<'_>,
    ) -> Result<Left, StorageError> {
        let Payload::Normal(write) = &entry.payload else { return Ok(Left::default()) };
        if entry.is_void {
            return Ok(Left::default());
        }
        let (mut frames, mut tombstones) = (Vec::new(), 0);
        for (frame, position) in write.frames.iter().zip(batch_positions(write)) {
            let place = Place { position: place.position + position, ..place };
            let left = self.left_of_frame(write, frame, place, (latest, &mut tombstones));
            let left = left.map_err(|error| StorageError::Apply {
                index: entry.id.index,
                reason: error.to_string(),
            })?;
            frames.extend(left);
        }
        if frames.is_empty() {
            return Ok(Left::default());
        }
        let write = Write { frames, ..Write::clone(write) };
        // The clone shares the batches.
        let entry = Entry { payload: Payload::Normal(Arc::new(write)), ..entry.clone() };
        Ok(Left { entry: Some(entry), tombstones })
    }

    fn left_of_frame(
        &self,
        write: &Write,
        frame: &Frame,
        place: Place,
        (latest, tombstones): (&mut LatestReader<'_>, &mut u64),
    ) -> Result<Option<Frame>, prkdb_types::BatchError> {
        if frame.partition == CONTROL_PARTITION {
            return Ok(Some(frame.clone()));
        }
        let Some(hosted) = self.partitions.get(&frame.partition) else { return Ok(None) };
        if frame.base_offset + u64::from(frame.record_count) <= hosted.log_start {
            return Ok(None);
        }
        if !hosted.is_compacted || !self.indexed.contains(&hosted.collection) {
            return Ok(Some(frame.clone()));
        }
        let are_old = self.tombstones_before_ms.is_some_and(|cut| write.append_time_ms <= cut);
        let keeps = |start: u32, record: &RecordView<'_>| {
            if record.key.is_none() {
                return true;
            }
            if record.value.is_none() {
                *tombstones += u64::from(!are_old);
                return !are_old && !bug!(CleanForgetsTombstones);
            }
            bug!(CleanKeepsReplaced) || latest.contains((place.segment, place.position, start))
        };
        let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
        Ok(match frame.batch.retain(limit, keeps)? {
            Retained::All => Some(frame.clone()),
            Retained::Some(batch) => {
                let Frame { partition, record_count, base_offset, .. } = *frame;
                Some(Frame { partition, record_count, base_offset, batch })
            }
            Retained::None => None,
        })
    }
}
