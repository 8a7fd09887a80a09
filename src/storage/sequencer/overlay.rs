//! What the sequencer has accepted and not yet seen applied.
//!
//! Read through: what the overlay does not know, the applied state says. Only this sequencer's
//! entries change that state, so a copy taken here stays right until the entries it rests on are
//! applied, and goes then.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::{Bound, RangeBounds},
};

use bytes::Bytes;

use crate::storage::kv::{
    state::State,
    window::{ProducerKey, Remembered, Window},
};

/// A key of a collection.
type Key = (u32, Bytes);

/// A value that holds once an entry is applied.
#[derive(Clone, Debug)]
struct Pending<T> {
    value: T,
    /// The last entry that changed it.
    entry: u64,
}

/// The overlay.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    next_offsets: BTreeMap<u32, Pending<u64>>,
    windows: BTreeMap<ProducerKey, Pending<Window>>,
    // Looked up by key and never walked: its order reaches nothing.
    versions: HashMap<Key, Pending<Option<Version>>>,
    /// Partitions with a batch under way whose keys are not looked at here.
    opaque: BTreeMap<u32, u64>,
    /// Partitions that go.
    dropped: BTreeMap<u32, u64>,
    /// What each entry changed, oldest first.
    changes: VecDeque<Changes>,
}

/// What a key gets from an entry under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The offset of its record.
    pub(super) offset: u64,
    /// Whether its value lasts for some time only.
    pub(super) expires: bool,
}

#[derive(Debug)]
struct Changes {
    entry: u64,
    partitions: Vec<u32>,
    producers: Vec<ProducerKey>,
    keys: Vec<Key>,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its version, or that it has no value, and the entry this rests on.
    Version(Option<u64>, Option<u64>),
    /// Nothing before this entry is applied.
    After(u64),
}

/// Whether something under way writes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyUnderWay {
    No,
    /// By this entry, or one before it.
    Yes(u64),
    /// Nobody knows before this entry is applied.
    Maybe(u64),
}

impl Overlay {
    /// Returns the offset that the next record of a partition gets; `None` if it is not hosted.
    pub(super) fn next_offset(&self, state: &State, partition: u32) -> Option<u64> {
        if self.dropped.contains_key(&partition) {
            return None;
        }
        match self.next_offsets.get(&partition) {
            Some(pending) => Some(pending.value),
            None => state.partition(partition).map(|stats| stats.next_offset),
        }
    }

    /// Returns a producer's window, and the last entry under way that changed it.
    pub(super) fn window<'a>(
        &'a self,
        state: &'a State,
        key: ProducerKey,
    ) -> (Option<&'a Window>, Option<u64>) {
        match self.windows.get(&key) {
            Some(pending) => (Some(&pending.value), Some(pending.entry)),
            None => (state.windows().get(key), None),
        }
    }

    /// Returns what is known of a key at a time of the log, which entries up to `taken` may have brought.
    pub(super) fn version(
        &self,
        state: &State,
        (partition, collection): (u32, u32),
        key: &Bytes,
        (log_time_ms, taken): (i64, u64),
    ) -> Known {
        // A batch under way may have written the key; what came after it is known again.
        let opaque = self.opaque.get(&partition).copied();
        match (self.versions.get(&(collection, key.clone())), opaque) {
            (Some(pending), opaque) if opaque.is_none_or(|entry| pending.entry > entry) => {
                match pending.value {
                    // It may be over when what was taken since is applied.
                    Some(Version { expires: true, .. }) => Known::After(pending.entry),
                    value => Known::Version(value.map(|it| it.offset), Some(pending.entry)),
                }
            }
            (_, Some(entry)) => Known::After(entry),
            (_, None) => match state.leaf(collection, key) {
                Some(leaf) if leaf.is_expired(log_time_ms) => {
                    // Readers see it until the entry that brings this time is applied.
                    let is_seen = !leaf.is_expired(state.log_time_ms());
                    Known::Version(None, is_seen.then_some(taken))
                }
                leaf => Known::Version(leaf.map(|leaf| leaf.version), None),
            },
        }
    }

    /// Returns the first key of a range that is written under way and that `is_change` is true of, and
    /// the entry that writes it.
    pub(super) fn first_written(
        &self,
        collection: u32,
        from: &Bound<Bytes>,
        to: &Bound<Bytes>,
        is_change: impl Fn(&Bytes, Option<u64>) -> bool,
    ) -> Option<(Bytes, u64)> {
        let range = (from.as_ref(), to.as_ref());
        let written = self.versions.iter().filter(|((in_collection, key), pending)| {
            *in_collection == collection
                && RangeBounds::<Bytes>::contains(&range, key)
                && is_change(key, pending.value.map(|it| it.offset))
        });
        let first = written.min_by(|((_, one), _), ((_, other), _)| one.cmp(other));
        // The clone counts a reference.
        first.map(|((_, key), pending)| (key.clone(), pending.entry))
    }

    /// Returns the last entry under way of which it is not known here what it does to the keys of a collection:
    /// with a batch, or with the end of a partition.
    pub(super) fn unsettled_in(&self, state: &State, collection: u32) -> Option<u64> {
        let hosts = |partition| state.partition(partition).map(|stats| stats.collection);
        let marks = self.opaque.iter().chain(&self.dropped);
        let of_it = marks.filter(|(partition, _)| hosts(**partition) == Some(collection));
        of_it.map(|(_, entry)| *entry).max()
    }

    /// Returns whether a key has, or may get, a value: for the limit on new keys.
    pub(super) fn may_have(&self, state: &State, collection: u32, key: &Bytes) -> bool {
        self.versions.contains_key(&(collection, key.clone()))
            || state.leaf(collection, key).is_some()
    }

    /// Returns whether something under way writes a key.
    pub(super) fn writes_key(&self, partition: u32, collection: u32, key: &Bytes) -> KeyUnderWay {
        if let Some(pending) = self.versions.get(&(collection, key.clone())) {
            return KeyUnderWay::Yes(pending.entry);
        }
        self.opaque.get(&partition).map_or(KeyUnderWay::No, |entry| KeyUnderWay::Maybe(*entry))
    }

    fn changes(&mut self, entry: u64) -> Option<&mut Changes> {
        if self.changes.back().is_none_or(|last| last.entry != entry) {
            let (partitions, producers, keys) = (Vec::new(), Vec::new(), Vec::new());
            self.changes.push_back(Changes { entry, partitions, producers, keys });
        }
        self.changes.back_mut()
    }

    /// Notes that `entry` takes `count` offsets from `base_offset` on.
    pub(super) fn place(&mut self, entry: u64, partition: u32, base_offset: u64, count: u32) {
        let value = base_offset + u64::from(count);
        self.next_offsets.insert(partition, Pending { value, entry });
        if let Some(changes) = self.changes(entry) {
            changes.partitions.push(partition);
        }
    }

    /// Notes a producer's batch.
    pub(super) fn remember(
        &mut self,
        state: &State,
        key: ProducerKey,
        epoch: i16,
        batch: Remembered,
    ) {
        let entry = batch.entry & !super::PENDING;
        let pending = self.windows.entry(key).or_insert_with(|| {
            let applied = state.windows().get(key).cloned();
            Pending { value: applied.unwrap_or_else(|| Window::new(epoch)), entry }
        });
        pending.value.push(epoch, batch);
        pending.entry = entry;
        if let Some(changes) = self.changes(entry) {
            changes.producers.push(key);
        }
    }

    /// Notes the version that a key gets, or that it loses its value.
    pub(super) fn write_key(
        &mut self,
        entry: u64,
        collection: u32,
        key: Bytes,
        version: Option<Version>,
    ) {
        let key = (collection, key);
        if let Some(changes) = self.changes(entry) {
            changes.keys.push(key.clone());
        }
        self.versions.insert(key, Pending { value: version, entry });
    }

    /// Notes a batch whose keys are not looked at.
    pub(super) fn write_opaque(&mut self, entry: u64, partition: u32) {
        self.opaque.insert(partition, entry);
    }

    /// Notes that a partition goes.
    pub(super) fn drop_partition(&mut self, entry: u64, partition: u32) {
        self.dropped.insert(partition, entry);
        if let Some(changes) = self.changes(entry) {
            changes.partitions.push(partition);
        }
    }

    /// Forgets what rests on `entry` and those before: it is applied.
    pub(super) fn resolved(&mut self, entry: u64) {
        while let Some(changes) = self.changes.front()
            && changes.entry <= entry
            && let Some(done) = self.changes.pop_front()
        {
            for partition in done.partitions {
                remove_if_done(&mut self.next_offsets, &partition, entry);
                for marks in [&mut self.opaque, &mut self.dropped] {
                    if marks.get(&partition).is_some_and(|last| *last <= entry) {
                        marks.remove(&partition);
                    }
                }
            }
            for producer in done.producers {
                remove_if_done(&mut self.windows, &producer, entry);
            }
            for key in done.keys {
                if self.versions.get(&key).is_some_and(|pending| pending.entry <= entry) {
                    self.versions.remove(&key);
                }
            }
        }
    }
}

fn remove_if_done<K: Ord, V>(map: &mut BTreeMap<K, Pending<V>>, key: &K, entry: u64) {
    if map.get(key).is_some_and(|pending| pending.entry <= entry) {
        map.remove(key);
    }
}
