//! What is said of a log that was walked: whole, torn, or damaged.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        behind,
        survey::{Page, survey},
    },
    chained::Chained,
    following::Search,
    report::{
        Damage, Depth, Following, LogOwner, LogReport, Problem, SegmentReport, SegmentState, Torn,
    },
    tally::{blank_report, quarantined},
    walk::{Break, PAGE_END, Visit, Walk},
};
use crate::storage::{
    Shard, ShardOptions, StorageError,
    bug::bug,
    checkpoint::{current, find},
    clock::SeededRng,
    disk::Disk,
    kv::window::PRODUCER_BYTES_MAX,
    log::{HISTORY_FIRST, Resume, header::Seed, options::LogOptions},
};

/// Reads the log in `dir` and tells what is there. `disk` should be one that refuses to be changed.
///
/// # Errors
/// What keeps a log from being read at all: [`StorageError::NewerFormat`], [`StorageError::Foreign`],
/// [`StorageError::Io`], and [`StorageError::Corrupt`] for a whole segment under another's name. All
/// other damage is in the report.
pub fn inspect(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: LogOwner,
    depth: Depth,
    visit: &mut Visit<'_>,
) -> Result<LogReport, StorageError> {
    let survey = survey(disk.as_ref(), dir, &options(owner))?;
    let (was_cleaned, resume) = cleaned(disk, dir, owner)?;
    let chain = Chained::of(&survey, resume.as_ref(), dir)?;
    let mut walk = Walk::new(&survey, depth, dir);
    walk.was_cleaned = was_cleaned;
    if let Some(resume) = &resume {
        walk.read_cleaned(resume, visit)?;
        walk.resume = Some((resume.segment, resume.position));
    }
    if walk.broken.is_none() && walk.missing.is_none() && !walk.is_stopped {
        walk.read_chain(&chain.numbers, visit)?;
    }
    // Who stopped does not ask what stands behind.
    let behind = if walk.is_stopped { Vec::new() } else { walk.look_behind(&chain.numbers)? };
    let error = walk.missing.take().or(chain.error);
    let damage = walk.judge(error)?;
    let spared = resume.map_or_else(Vec::new, |resume| resume.sealed);
    let live: Vec<u64> =
        spared.iter().map(|(number, _)| *number).chain(chain.numbers.iter().copied()).collect();
    let mut report = walk.finish(&live, damage, behind);
    report.segments.extend(quarantined(disk.as_ref(), dir)?);
    report.segments.sort_by_key(|segment| segment.number);
    Ok(report)
}

/// Returns whether a log was cleaned, and where it goes on then; nothing where its checkpoint is of no use.
fn cleaned(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: LogOwner,
) -> Result<(bool, Option<Resume>), StorageError> {
    let manifest = match current(disk.as_ref(), dir, owner.shard, owner.cluster_id) {
        Ok(manifest) => manifest,
        Err(StorageError::Corrupt { .. }) => None,
        Err(other) => return Err(other),
    };
    if !manifest.is_some_and(|(manifest, _)| manifest.is_cleaned) {
        return Ok((false, None));
    }
    match find(disk, dir, owner.shard, owner.cluster_id, PRODUCER_BYTES_MAX) {
        Ok(opened) => Ok((true, opened.loaded.map(|loaded| loaded.resume))),
        Err(StorageError::Corrupt { .. }) => Ok((true, None)),
        Err(other) => Err(other),
    }
}

/// As [`inspect`], and asks what a start would say, manifest and checkpoint included.
///
/// # Errors
/// As [`inspect`].
pub fn verify(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: LogOwner,
    depth: Depth,
) -> Result<LogReport, StorageError> {
    let mut report = inspect(disk, dir, owner, depth, &mut |_| ControlFlow::Continue(()))?;
    if report.damage.is_some() {
        return Ok(report);
    }
    // No number is drawn but for a log that is begun, which is then forgotten.
    let mut rng = SeededRng::new(0);
    let options = ShardOptions {
        shard: owner.shard,
        cluster_id: owner.cluster_id,
        segment_bytes_first: 0,
        segment_bytes_max: 0,
        tail_cache_bytes: 0,
        producer_bytes_max: PRODUCER_BYTES_MAX,
        checkpoint_bytes: u64::MAX,
        tombstone_grace_ms: u64::MAX,
    };
    match Shard::judge(Arc::clone(disk), dir, &options, &mut rng, 0) {
        Ok(_) => {}
        Err(StorageError::Corrupt { path, position, expected, found }) => {
            report.damage = Some(Damage {
                problem: Problem::NoEntry,
                path: path.clone(),
                position,
                index: None,
                error: StorageError::Corrupt { path, position, expected, found },
                following: Following::default(),
            });
        }
        Err(other) => return Err(other),
    }
    Ok(report)
}

/// What judging a log asks for; sizes are those of writers and play no part.
fn options(owner: LogOwner) -> LogOptions {
    LogOptions {
        shard: owner.shard,
        cluster_id: owner.cluster_id,
        segment_bytes_first: 0,
        segment_bytes_max: 0,
        tail_cache_bytes: 0,
        group_bytes_max: 0,
    }
}

impl Walk<'_> {
    /// Looks behind the end for watermarks; returns what stands there as a crash would leave it.
    fn look_behind(&mut self, chain: &[u64]) -> Result<Vec<Torn>, StorageError> {
        let mut torn = Vec::new();
        for (number, found) in &self.survey.files {
            if self.resume.is_some_and(|(first, _)| *number < first) {
                // It lies before the checkpoint, which is above all that it can tell.
                continue;
            }
            let (from, is_tail) = match (&self.broken, self.end_in(*number)) {
                (Some(broken), _) if broken.segment.number == *number => {
                    (broken.position.max(PAGE_END), true)
                }
                (broken, Some(end)) => (end, broken.is_none() && chain.last() == Some(number)),
                (_, None) => (0, true),
            };
            let behind = behind::look(found, &Seed::new(self.log_id, *number), from)?;
            if !bug!(BehindNotRead) {
                self.watermark = self.watermark.max(behind.watermark);
            }
            if is_tail && behind.bytes > 0 {
                torn.push(Torn {
                    path: found.path.clone(),
                    position: from,
                    bytes: behind.bytes,
                    entries: behind.entries,
                });
            }
        }
        Ok(torn)
    }

    /// Says what is damaged, if anything is: something known to be synced is not there.
    fn judge(&mut self, chain_error: Option<StorageError>) -> Result<Option<Damage>, StorageError> {
        if self.is_stopped || (chain_error.is_none() && self.watermark <= self.end.lsn) {
            return Ok(None);
        }
        let mut search = Search::default();
        for (number, found) in &self.survey.files {
            let from = self.end_in(*number).unwrap_or(PAGE_END);
            search.look(&self.segment(*number, found), from, self.end.lsn)?;
        }
        self.committed = self.committed.max(search.committed);
        let following = search.sum(self.committed);
        let next_index = self.fold.last().map_or(0, |last| last.index + 1);
        // A break in the last segment that is left of a broken chain is what its successor cut off.
        let last = self.last_read();
        let is_cut_off = |broken: &Break| chain_error.is_some() && broken.segment.number == last;
        let broken = self.broken.take().filter(|broken| !is_cut_off(broken));
        let (problem, index, error) = match (broken, chain_error) {
            (Some(broken), _) => {
                let index = match broken.header {
                    Some(header) if header.kind.is_control() => None,
                    Some(header) => Some(header.index),
                    None => Some(next_index),
                };
                (broken.problem, index, broken.error)
            }
            (None, Some(error)) => (problem_of(&error), Some(next_index), error),
            (None, None) => {
                let error = self.lost();
                (problem_of(&error), Some(next_index), error)
            }
        };
        let StorageError::Corrupt { path, position, .. } = &error else { return Err(error) };
        let (path, position) = (path.clone(), *position);
        Ok(Some(Damage { problem, path, position, index, error, following }))
    }

    fn last_read(&self) -> u64 {
        self.tallies.range(..HISTORY_FIRST).next_back().map_or(0, |(number, _)| *number)
    }

    /// The log ends too early, and nothing of it is damaged.
    fn lost(&self) -> StorageError {
        let damaged = self.survey.files.range(self.end.segment + 1..);
        for (_, found) in damaged {
            if let Page::Damaged { expected, found: sum } = found.page {
                return StorageError::Corrupt {
                    path: found.path.clone(),
                    position: 0,
                    expected: format!("segment header checksum {expected:08x}"),
                    found: format!("{sum:08x}"),
                };
            }
        }
        let path = match self.segments.get(self.end.segment) {
            Some(segment) => segment.path.clone(),
            None => self.survey.files.values().next().map_or_else(PathBuf::new, |f| f.path.clone()),
        };
        StorageError::Corrupt {
            path,
            position: self.end.position,
            expected: format!("entries up to {}, which were synced", self.watermark),
            found: format!("the last entry is {}", self.end.lsn),
        }
    }

    fn finish(self, chain: &[u64], damage: Option<Damage>, torn: Vec<Torn>) -> LogReport {
        let in_chain: BTreeSet<u64> = chain.iter().copied().collect();
        let damaged = damage.as_ref().map(|damage| damage.path.clone());
        let files = self.survey.files.iter().chain(&self.survey.history);
        let segments = files.map(|(number, found)| {
            let state = match &found.page {
                Page::Valid(_) if chain.last() == Some(number) => SegmentState::Active,
                Page::Valid(_) if in_chain.contains(number) => SegmentState::Sealed,
                Page::Valid(_) => SegmentState::Apart,
                Page::Zero if torn.iter().all(|torn| torn.path != found.path) => {
                    SegmentState::Prepared
                }
                Page::Zero | Page::Damaged { .. } => SegmentState::Unreadable,
            };
            let mut report = blank_report(*number, found.path.clone(), state, found.len);
            if let Some(tally) = self.tallies.get(number) {
                tally.fill(&mut report);
                report.is_read = damaged.as_ref() != Some(&found.path);
            }
            report
        });
        let segments: Vec<SegmentReport> = segments.collect();
        LogReport {
            log_id: self.survey.log_id,
            entries: self.tallies.values().map(|tally| tally.entries).sum(),
            records: self.tallies.values().map(|tally| tally.records).sum(),
            segments,
            last: self.fold.last(),
            purged: self.fold.hard_state.purged.map(|mark| mark.index),
            was_cleaned: self.was_cleaned || !self.survey.history.is_empty(),
            resume: self.resume,
            committed: self.committed,
            end: (self.end.segment > 0).then_some((self.end.segment, self.end.position)),
            torn: if damage.is_some() { Vec::new() } else { torn },
            damage,
        }
    }
}

fn problem_of(error: &StorageError) -> Problem {
    let StorageError::Corrupt { expected, found, .. } = error else { return Problem::NoEntry };
    if found == "no such file" {
        Problem::Missing
    } else if expected.contains("checksum") {
        Problem::Crc
    } else if found.starts_with("the last entry is") {
        Problem::Short
    } else {
        Problem::NoEntry
    }
}
