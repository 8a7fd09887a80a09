//! What nobody can need any more is taken out of the log: physical cleaning, beside the writer.
//!
//! 1. A run of neighbouring segments is chosen of which a large part is needless, all below the last
//!    checkpoint. If Raft may still ask for them, the purge mark has to be moved first.
//! 2. What is left of them is written into one history segment, which is synced.
//! 3. The key index is pointed at it, in small steps; then the index of streams.
//! 4. The next checkpoint has both, and its manifest names the history segment and not what it replaces:
//!    that commits the cleaning. Then the old files are removed.
//!
//! A crash before the fourth step leaves the log as it was, and a file that the next start removes.

mod choose;
mod left;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use self::{
    choose::{Candidate, choose},
    left::{Latest, LatestReader, Left, View},
};
use super::Shard;
use crate::storage::{
    StorageError,
    bug::bug,
    kv::state::{DECOMPRESSED_BYTES_MAX, State},
    log::{
        Entries, HistoryWriter, Home, Place, Segment, Stretch,
        entry::{Entry, Item, LogId, Payload, batch_positions},
        is_history,
    },
    stream::{Replacement, StreamIndex, Track, Usage},
};
use prkdb_types::DecompressLimit;

/// Keys that are pointed elsewhere while apply waits.
const KEYS_AT_ONCE: usize = 256;

/// What cleaning does next.
#[derive(Debug)]
pub enum CleanStep {
    /// The purge mark must be moved to here first.
    Purge(LogId),
    /// This can be done.
    Clean(CleanJob),
}

/// Work on one cleaning.
#[derive(Debug)]
pub struct CleanJob {
    home: Home,
    number: u64,
    /// How many snapshots had been prepared.
    installs: u64,
    sources: Vec<Source>,
    view: View,
    latest: Latest,
    /// Bytes, about, that wait for this cleaning and others.
    pub needless_bytes: u64,
}

/// A segment that is replaced.
#[derive(Debug)]
struct Source {
    segment: Arc<Segment>,
    /// What of it is alive; of a history segment everything.
    stretches: Vec<Stretch>,
}

/// What was written.
#[derive(Debug)]
pub struct CleanDone {
    /// `None`: nothing is left.
    segment: Option<Arc<Segment>>,
    tracks: BTreeMap<u32, Track>,
    usage: Usage,
    /// How many records of each partition.
    records: BTreeMap<u32, u64>,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
}

/// Why nothing was cleaned.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotCleaned {
    /// What failed.
    #[source]
    pub error: StorageError,
    /// The segment that cannot be read, if it was that.
    pub unreadable: Option<u64>,
}

impl From<StorageError> for NotCleaned {
    fn from(error: StorageError) -> Self {
        Self { error, unreadable: None }
    }
}

impl CleanJob {
    /// Writes what is left of the segments. `pace` hears how many bytes were read since it was called
    /// last, and may wait.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`]: nothing was changed then. To be told to
    /// [`Shard::not_cleaned`].
    pub fn run(&self, pace: &mut dyn FnMut(u64)) -> Result<CleanDone, NotCleaned> {
        let mut writer = HistoryWriter::create(&self.home, self.number)?;
        let mut done = CleanDone {
            segment: None,
            tracks: BTreeMap::new(),
            usage: Usage::default(),
            records: BTreeMap::new(),
            read_bytes: 0,
            written_bytes: 0,
        };
        let mut latest = self.latest.reader();
        let written = self.sources.iter().try_for_each(|source| {
            self.write_source(source, &mut latest, (&mut writer, &mut done), pace)
        });
        if let Err(error) = written {
            writer.abandon(self.home.disk.as_ref());
            return Err(error);
        }
        if done.written_bytes == 0 {
            writer.abandon(self.home.disk.as_ref());
        } else {
            done.segment = Some(writer.finish(&self.home)?);
        }
        Ok(done)
    }

    fn write_source(
        &self,
        source: &Source,
        latest: &mut LatestReader<'_>,
        (writer, done): (&mut HistoryWriter, &mut CleanDone),
        pace: &mut dyn FnMut(u64),
    ) -> Result<(), NotCleaned> {
        let unreadable = Some(source.segment.number);
        let bad = |error| NotCleaned { error, unreadable };
        let number = u32::try_from(source.segment.number).unwrap_or(u32::MAX);
        let mut entries = source.entries().map_err(bad)?;
        while let Some((position, header, item)) = entries.next().map_err(bad)? {
            done.read_bytes += header.total_bytes();
            pace(header.total_bytes());
            let Item::Entry(entry) = item else { continue };
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let place = Place { segment: number, position };
            let left = self.view.left_of(&entry, place, latest).map_err(bad)?;
            let Left { entry: Some(entry), tombstones } = left else { continue };
            done.usage.tombstones += tombstones;
            if let Payload::Normal(write) = &entry.payload {
                for frame in &write.frames {
                    let records = u64::from(frame.batch.header().record_count());
                    done.usage.records += records;
                    *done.records.entry(frame.partition).or_default() += records;
                }
                done.usage.last_ms = done.usage.last_ms.max(write.append_time_ms);
            }
            done.written_bytes += entry.encoded_bytes();
            // The clone shares the batches.
            let position = writer.push(&header, entry.clone())?;
            let place = Place {
                segment: u32::try_from(self.number).unwrap_or(u32::MAX),
                position: u32::try_from(position).unwrap_or(u32::MAX),
            };
            StreamIndex::track(&mut done.tracks, &entry, place);
        }
        Ok(())
    }

    fn run_numbers(&self) -> Vec<u64> {
        self.sources.iter().map(|source| source.segment.number).collect()
    }
}

impl Source {
    fn entries(&self) -> Result<Entries, StorageError> {
        if is_history(self.segment.number) {
            return Ok(Entries::of_history(&self.segment));
        }
        Entries::of_log(&self.segment, &self.stretches)
    }
}

impl Shard {
    /// Says from which index on entries are read by it: segments that hold one are not cleaned; with 0 none is.
    pub fn keep_from(&self, index: u64) {
        self.keep_from.store(index, Ordering::Release);
    }

    /// Returns what cleaning does next; `None` where nothing is worth it.
    pub fn next_cleaning(&self) -> Option<CleanStep> {
        // Room that is not given back yet comes first: the next checkpoint has it.
        let installs = {
            let known = self.checkpoints();
            if !known.retired.is_empty() || known.is_installing() {
                return None;
            }
            known.installs
        };
        let candidates = self.candidates()?;
        let run = choose(&candidates, self.segment_bytes_max)?;
        let log = self.log();
        if let Some(number) = run.iter().rev().find(|number| !log.is_retired(**number)) {
            let purged = log.state().purged.map(|mark| mark.index);
            // One that was moved there already waits for the next checkpoint.
            let up_to = log.last_of(*number).filter(|last| purged < Some(last.index));
            return up_to.map(CleanStep::Purge);
        }
        let (disk, dir, log_id) = log.home();
        let home = Home {
            disk,
            dir: dir.to_path_buf(),
            shard: self.number,
            cluster_id: self.cluster_id,
            log_id,
        };
        let source = |number: &u64| {
            let segment = self.segments.get(*number)?;
            Some(Source { segment, stretches: log.stretches_in(*number) })
        };
        let sources: Option<Vec<Source>> = run.iter().map(source).collect();
        drop(log);
        let number = self.next_history.fetch_add(1, Ordering::Relaxed);
        // Nothing before them may hold what a tombstone is there to hide; what is in the run goes too.
        let tombstones_go = candidates
            .iter()
            .take_while(|candidate| run.first() != Some(&candidate.number))
            .all(|candidate| !candidate.has_dead);
        let (view, roots) = View::of(&self.state(), self.tombstone_grace_ms, tombstones_go);
        let latest = view.latest_in(roots, &run);
        let needless_bytes = candidates.iter().map(|candidate| candidate.needless_bytes).sum();
        let sources = sources?;
        let job = CleanJob { home, number, installs, sources, view, latest, needless_bytes };
        Some(CleanStep::Clean(job))
    }

    /// Returns the segments that may be cleaned, in the order of the log. Tombstones count where they may go:
    /// where nothing before them holds what one is there to hide.
    fn candidates(&self) -> Option<Vec<Candidate>> {
        let (applied, _) = self.last_checkpoint()?;
        let keep_from = self.keep_from.load(Ordering::Acquire);
        if keep_from == 0 {
            return None;
        }
        let (resume, kept) = {
            let log = self.log();
            (log.segment_of(applied.index)?, log.segment_of(keep_from))
        };
        let unreadable = self.checkpoints().unreadable.clone();
        let log_time_ms = self.log_time_ms();
        let grace_ms = i64::try_from(self.tombstone_grace_ms).unwrap_or(i64::MAX);
        let stream = self.stream();
        let mut candidates = Vec::new();
        let mut hides_nothing = true;
        for (number, bytes) in self.segments.sealed_before(resume) {
            let Some(usage) = stream.usage_of(number) else { break };
            if Some(number) == kept {
                break;
            }
            let is_old = usage.last_ms.saturating_add(grace_ms) <= log_time_ms;
            let tombstones_go = hides_nothing && is_old;
            let has_dead = usage.dead > 0;
            hides_nothing &= !has_dead;
            candidates.push(Candidate {
                number,
                bytes,
                needless: usage.needless(tombstones_go),
                records: usage.records,
                needless_bytes: usage.needless_bytes(bytes, tombstones_go),
                has_dead,
                is_unreadable: unreadable.contains(&number),
            });
        }
        Some(candidates)
    }

    /// Hears why nothing was cleaned: a segment that cannot be read is passed over until the next start.
    pub fn not_cleaned(&self, failed: &NotCleaned) {
        self.checkpoints().unreadable.extend(failed.unreadable);
    }

    /// Puts what was written into the place of what it was made of. Writers and readers go on; `between` is
    /// called when nobody is kept waiting. No checkpoint is captured meanwhile.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Corrupt`], from reading what was just written. The shard must
    /// not go on then: a start finds it as it was before.
    pub fn cleaned(
        &self,
        job: CleanJob,
        done: CleanDone,
        between: &mut dyn FnMut(),
    ) -> Result<(), StorageError> {
        let run = job.run_numbers();
        let CleanDone { segment, tracks, mut usage, records: done_records, .. } = done;
        // A checkpoint meanwhile would have an index that points at what its manifest does not name.
        let _no_checkpoint = self.relocation();
        if self.checkpoints().installs != job.installs {
            // What it was made of is about to go, or has gone, for a snapshot of another replica.
            if let Some(segment) = &segment {
                let _removed = job.home.disk.remove(&segment.path);
            }
            return Ok(());
        }
        if let Some(segment) = &segment {
            self.segments.show(segment);
            self.stream().expect(segment.number, usage);
            let relocated = self.relocate(&job.view, &run, segment, between);
            // No checkpoint may have an index that points at what no manifest names.
            self.checkpoints().is_broken |= relocated.is_err();
            usage.dead = relocated?;
        }
        let number = segment.as_ref().map(|segment| segment.number);
        {
            let mut known = self.checkpoints();
            // Nothing is applied, and no checkpoint taken, between the two.
            let state = self.state();
            usage.dead += gone_since(&job.view, &state, &tracks, &done_records);
            self.stream().replace(Replacement { run: run.clone(), number, tracks, usage });
            self.segments.replace(&run, number);
            known.is_cleaned = true;
            known.retired.extend(job.sources.into_iter().map(|source| source.segment));
        }
        let mut log = self.log();
        log.drop_segments(&run);
        log.took(segment.as_ref().and_then(|segment| segment.sealed_len()).unwrap_or_default());
        drop(log);
        if bug!(RemovedBeforeCheckpoint) {
            let retired = self.checkpoints().retired.clone();
            self.remove_files(&retired);
        }
        Ok(())
    }

    /// Points the key index at a history segment, key by key as far as they still stand where it was made
    /// of. Returns how many of its records are not the latest of their keys any more.
    fn relocate(
        &self,
        view: &View,
        run: &[u64],
        segment: &Segment,
        between: &mut dyn FnMut(),
    ) -> Result<u64, StorageError> {
        let number = u32::try_from(segment.number).unwrap_or(u32::MAX);
        let mut entries = Entries::of_history(segment);
        let mut dead = 0;
        while let Some((position, header, item)) = entries.next()? {
            let Item::Entry(Entry { payload: Payload::Normal(write), .. }) = item else { continue };
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            for (frame, at) in write.frames.iter().zip(batch_positions(&write)) {
                let Some((collection, is_compacted)) = view.keyed(frame.partition) else {
                    continue;
                };
                let failed = |error: prkdb_types::BatchError| StorageError::Apply {
                    index: header.index,
                    reason: error.to_string(),
                };
                let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
                let records = frame.batch.records(limit).map_err(failed)?;
                let mut records = records.iter();
                let mut is_done = false;
                while !is_done {
                    // Apply waits for no more than this.
                    let mut state = self.state();
                    for _ in 0..KEYS_AT_ONCE {
                        let start = records.position();
                        let Some(record) = records.next() else {
                            is_done = true;
                            break;
                        };
                        let record = record.map_err(failed)?;
                        let (Some(key), Some(_)) = (record.key, record.value) else { continue };
                        let version = (frame.partition, record.offset);
                        let to = (number, position + at, start);
                        let is_latest = !bug!(CleanForgetsKeys)
                            && state.relocate(collection, key, version, run, to);
                        dead += u64::from(is_compacted && !is_latest);
                    }
                    self.publish(&mut state);
                    drop(state);
                    between();
                }
            }
        }
        Ok(dead)
    }

    /// Removes the files of segments that no manifest names any more, and their sidecars. What cannot be
    /// removed is, by the next start.
    pub(super) fn remove_files(&self, gone: &[Arc<Segment>]) {
        let disk = self.log().home().0;
        for segment in gone {
            let _removed = disk.remove(&segment.path);
            let _removed = disk.remove(&segment.path.with_extension("index"));
        }
        let bytes = gone.iter().filter_map(|segment| segment.sealed_len()).sum();
        self.log().gave_back(bytes);
    }

    /// Lets go of segments that were removed before the last call: readers that still looked there are
    /// done. To be called now and then, not more often than a read takes.
    pub fn forget_removed(&self) {
        let going = {
            let mut known = self.checkpoints();
            let gone = std::mem::take(&mut known.gone);
            std::mem::replace(&mut known.going, gone)
        };
        for segment in going {
            self.segments.remove(segment.number);
        }
    }
}

/// Returns how many of the records that were written nobody needs any more, because their partitions were dropped
/// or begin later meanwhile: about, as where that is counted for segments of the log.
fn gone_since(
    view: &View,
    state: &State,
    tracks: &BTreeMap<u32, Track>,
    records: &BTreeMap<u32, u64>,
) -> u64 {
    let gone = tracks.iter().map(|(partition, track)| {
        let count = records.get(partition).copied().unwrap_or_default();
        let Some(stats) = state.partition(*partition) else { return count };
        let first = track.first_offset().max(view.log_start(*partition));
        stats.log_start.min(track.next_offset()).saturating_sub(first).min(count)
    });
    gone.sum()
}
