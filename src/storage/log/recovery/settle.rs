//! Makes durable what was perhaps never on disk, and sets aside what cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IoSlice,
    path::PathBuf,
    sync::Arc,
};

use super::{
    Recovery,
    scan::Above,
    survey::{Page, Survey},
};
use crate::storage::{
    StorageError,
    bug::bug,
    disk::is_disk_full,
    log::{
        entry::{Control, Item, Stamp},
        header::Seed,
        index::Place,
        segment::{HardState, SEGMENT_HEADER_BYTES, SegmentHeader},
        segments::{Segment, segment_path},
        writer::{Active, Log},
    },
};

/// What the scan left to be settled.
#[derive(Debug)]
pub(super) struct Found {
    /// Valid entries above the watermark.
    pub(super) above: Vec<Above>,
    /// Segments up to the one that holds the watermark.
    pub(super) live: Vec<u64>,
    /// The newest segment, if the log can go on in it.
    pub(super) page_only: Option<u64>,
    /// Vote and purge mark at the watermark.
    pub(super) settled_state: HardState,
    /// Files that a cleaning has replaced, or was about to make.
    pub(super) replaced: Vec<PathBuf>,
}

/// Files that were prepared and never written.
struct Unused {
    /// Those that the log can go on in, with their sizes.
    ready: BTreeMap<u64, u64>,
    /// Those that it cannot.
    spare: BTreeSet<u64>,
}

impl Log {
    /// Copies the entries above the watermark, sets damaged files aside, and takes over segments
    /// that were prepared and never written.
    ///
    /// A log that ended cleanly is left as it is: its next segment is begun by its first entry.
    pub(super) fn settle(
        &mut self,
        survey: &Survey,
        found: Found,
        recovery: &mut Recovery,
    ) -> Result<(), StorageError> {
        // A SYNC says what the watermark says already; a copy would add nothing.
        let copies: Vec<Above> = found
            .above
            .into_iter()
            .filter(|above| above.item != Item::Control(Control::Sync))
            .collect();
        let unused = Self::unused(survey)?;
        let aside: Vec<u64> = survey
            .files
            .keys()
            .copied()
            .filter(|number| !found.live.contains(number) && !unused.contains(*number))
            .filter(|number| {
                let path = survey.files.get(number).map(|file| &file.path);
                !path.is_some_and(|path| found.replaced.contains(path))
            })
            .collect();
        // The manifest that does not name them must be there after a power cut too.
        if !found.replaced.is_empty() {
            self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        }
        for path in &found.replaced {
            self.disk.remove(path).map_err(StorageError::io("remove replaced segment", path))?;
            // It may have none, and one that stays does no harm.
            let _removed = self.disk.remove(&path.with_extension("index"));
        }
        let page_only: Vec<u64> = found.page_only.into_iter().collect();
        if let Some(last) = self.segments.get(self.joint.predecessor) {
            let len = survey.files.get(&last.number).map_or(0, |found| found.len);
            self.stale_tail = Some((last, self.joint.cut_position..len));
        }
        if copies.is_empty() && aside == page_only {
            if let Some(number) = found.page_only {
                self.go_on_in(survey, number)?;
            }
            for (number, capacity) in &unused.ready {
                self.take_over(survey, *number, *capacity)?;
            }
            return self.remove_unused(survey, &unused.spare);
        }
        // Nothing but zeros is no evidence of anything, and a disk may have no other room for a copy.
        self.remove_unused(survey, &unused.all())?;
        // What is set aside may hold the only evidence of the watermark: the new page has it first.
        recovery.copied_entries = copies.len() as u64;
        if bug!(SetAsideFirst) {
            self.set_aside(survey, &aside, recovery)?;
            self.copy(&copies, found.settled_state)?;
        } else {
            self.copy(&copies, found.settled_state)?;
            self.set_aside(survey, &aside, recovery)?;
        }
        Ok(())
    }

    /// Goes on in a segment that has a page and nothing else. The page was perhaps never on disk:
    /// the same bytes are written and synced again.
    fn go_on_in(&mut self, survey: &Survey, number: u64) -> Result<(), StorageError> {
        let Some((found, header)) =
            survey.files.get(&number).and_then(|found| Some((found, found.header()?)))
        else {
            return Ok(());
        };
        found
            .file
            .write_at(0, &[IoSlice::new(header.encode().as_slice())])
            .and_then(|()| found.file.sync_all())
            .map_err(StorageError::io("sync segment", &found.path))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        let seed = Seed::new(self.log_id, number);
        let file = Arc::clone(&found.file);
        let segment = Arc::new(Segment::new(number, found.path.clone(), file, seed));
        self.segments.insert(&segment);
        let position = SEGMENT_HEADER_BYTES as u64;
        self.active = Some(Active { segment, position, capacity: found.len });
        Ok(())
    }

    /// Returns the files that hold nothing but zeros, if anything.
    fn unused(survey: &Survey) -> Result<Unused, StorageError> {
        let mut unused = Unused { ready: BTreeMap::new(), spare: BTreeSet::new() };
        let newest =
            survey.files.iter().rev().find(|(_, f)| f.header().is_some()).map_or(0, |(n, _)| *n);
        for (number, found) in &survey.files {
            if found.page != Page::Zero || !Self::is_zero(found)? {
                continue;
            }
            // Numbers rise along the log, and a page alone is no segment.
            if *number > newest && found.len > SEGMENT_HEADER_BYTES as u64 {
                unused.ready.insert(*number, found.len);
            } else {
                unused.spare.insert(*number);
            }
        }
        Ok(unused)
    }

    fn is_zero(found: &super::survey::Found) -> Result<bool, StorageError> {
        let mut buffer = vec![0; 1 << 20];
        let mut position = 0;
        while position < found.len {
            let read = found
                .file
                .read_at(position, &mut buffer)
                .map_err(StorageError::io("read segment", &found.path))?;
            if read == 0 || buffer.get(..read).is_none_or(|b| b.iter().any(|byte| *byte != 0)) {
                return Ok(false);
            }
            position += read as u64;
        }
        Ok(true)
    }

    fn take_over(
        &mut self,
        survey: &Survey,
        number: u64,
        capacity: u64,
    ) -> Result<(), StorageError> {
        let Some(found) = survey.files.get(&number) else { return Ok(()) };
        // A crash may have come before its blocks or its name were made sure of: both are, again.
        match found.file.allocate(0, capacity).and_then(|()| found.file.sync_all()) {
            Ok(()) => {}
            Err(error) if is_disk_full(&error) => {
                return self.remove_unused(survey, &BTreeSet::from([number]));
            }
            Err(error) => return Err(StorageError::io("sync segment", &found.path)(error)),
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        let seed = Seed::new(self.log_id, number);
        let file = Arc::clone(&found.file);
        let segment = Arc::new(Segment::new(number, found.path.clone(), file, seed));
        self.preparation.add(Active { segment, position: 0, capacity });
        self.preparation.log_bytes += capacity;
        Ok(())
    }

    /// Copies entries into a new segment: contents, sync, name, then the page that ties them to the
    /// log, and last a SYNC entry that vouches for both.
    fn copy(&mut self, copies: &[Above], state: HardState) -> Result<(), StorageError> {
        let number = self.preparation.next_number;
        let path = segment_path(&self.dir, self.log_id, number);
        let used: u64 = copies.iter().map(|above| above.item.encoded_bytes()).sum();
        let header_bytes = SEGMENT_HEADER_BYTES as u64;
        let sync_bytes = Item::Control(Control::Sync).encoded_bytes();
        let capacity = (header_bytes + used + sync_bytes).max(self.options.segment_bytes_first);
        let file = self.disk.create(&path).map_err(StorageError::io("create segment", &path))?;
        let seed = Seed::new(self.log_id, number);
        let segment = Arc::new(Segment::new(number, path, file, seed));
        let mut active = Active { segment, position: header_bytes, capacity };
        let mut prev_crc = self.joint.prev_crc;
        if let Err(error) = self.copy_entries(copies, &mut active, &mut prev_crc) {
            // Without a page it is nothing; its room would be missing at the next start, and the one after.
            let _removed = self.disk.remove(&active.segment.path);
            return Err(error);
        }
        let page = self.page_of_copy(number, copies, state);
        active
            .segment
            .file
            .write_at(0, &[IoSlice::new(page.encode().as_slice())])
            .map_err(StorageError::io("write segment header", &active.segment.path))?;
        sync(&active.segment)?;
        if let Some(last) = copies.last() {
            // Only now: a page that vouched for itself would be believed when it was read before it
            // was synced, and be gone after the next power cut.
            let lsn = self.next_lsn;
            let committed = self.fold.hard_state.committed;
            let stamp = Stamp { lsn, synced_lsn: last.header.lsn, committed, prev_crc };
            prev_crc = write(&mut active, &Item::Control(Control::Sync), stamp)?;
            sync(&active.segment)?;
            (self.synced_lsn, self.marked_lsn, self.next_lsn) = (lsn, lsn, lsn + 1);
        }
        self.joint.prev_crc = prev_crc;
        self.segments.insert(&active.segment);
        self.active = Some(active);
        self.preparation.next_number = number + 1;
        self.preparation.log_bytes += capacity;
        Ok(())
    }

    /// Writes the entries, syncs them, and makes sure of the name.
    fn copy_entries(
        &mut self,
        copies: &[Above],
        active: &mut Active,
        prev_crc: &mut u32,
    ) -> Result<(), StorageError> {
        let (file, path) = (&active.segment.file, &active.segment.path);
        file.allocate(0, active.capacity).map_err(StorageError::io("allocate segment", path))?;
        for above in copies {
            let stamp = Stamp {
                lsn: above.header.lsn,
                synced_lsn: above.header.synced_lsn,
                committed: above.header.committed,
                prev_crc: *prev_crc,
            };
            let position = active.position;
            *prev_crc = write(active, &above.item, stamp)?;
            if let Item::Entry(entry) = &above.item {
                let place = Place {
                    segment: u32::try_from(active.segment.number).unwrap_or(u32::MAX),
                    position: u32::try_from(position).unwrap_or(u32::MAX),
                };
                self.fold.index.set_place(entry.id, place);
            }
        }
        if bug!(PageFirst) {
            self.synced_lsn = copies.last().map_or(self.synced_lsn, |last| last.header.lsn);
        } else {
            sync(&active.segment)?;
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        Ok(())
    }

    fn page_of_copy(&self, number: u64, copies: &[Above], state: HardState) -> SegmentHeader {
        let first_index = copies.iter().find_map(|above| match &above.item {
            Item::Entry(entry) => Some(entry.id.index),
            Item::Control(_) => None,
        });
        let end = self.fold.last().map_or(0, |last| last.index + 1);
        SegmentHeader {
            shard: self.options.shard,
            cluster_id: self.options.cluster_id,
            log_id: self.log_id,
            number,
            predecessor: self.joint.predecessor,
            cut_lsn: self.joint.cut_lsn,
            cut_position: self.joint.cut_position,
            prev_crc: self.joint.prev_crc,
            first_lsn: copies.first().map_or(self.next_lsn, |above| above.header.lsn),
            first_index: first_index.unwrap_or(end),
            synced_lsn: self.synced_lsn,
            hard_state: HardState { committed: self.fold.hard_state.committed, ..state },
            created_ms: self.now_ms,
        }
    }

    /// Renames the files that are neither part of the log nor ready to be used: what cannot be read
    /// is never deleted.
    fn set_aside(
        &mut self,
        survey: &Survey,
        aside: &[u64],
        recovery: &mut Recovery,
    ) -> Result<(), StorageError> {
        for number in aside {
            let Some(found) = survey.files.get(number) else { continue };
            self.segments.remove(*number);
            let mut name = found.path.clone().into_os_string();
            name.push(format!(".quarantine-{}", self.now_ms));
            self.disk
                .rename(&found.path, name.as_ref())
                .map_err(StorageError::io("set segment aside", &found.path))?;
            recovery.quarantined += 1;
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))
    }

    /// Removes segments that were prepared and never written, and cannot be used any more.
    fn remove_unused(
        &mut self,
        survey: &Survey,
        numbers: &BTreeSet<u64>,
    ) -> Result<(), StorageError> {
        if numbers.is_empty() {
            return Ok(());
        }
        for found in numbers.iter().filter_map(|number| survey.files.get(number)) {
            self.disk
                .remove(&found.path)
                .map_err(StorageError::io("remove unused segment", &found.path))?;
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))
    }
}

/// Writes an entry at the end of a segment and returns the CRC of its header.
fn write(active: &mut Active, item: &Item, stamp: Stamp) -> Result<u32, StorageError> {
    let encoded = item.encode(stamp, &active.segment.seed);
    let slices: Vec<IoSlice<'_>> = encoded.slices().collect();
    active
        .segment
        .file
        .write_at(active.position, &slices)
        .map_err(StorageError::io("write segment", &active.segment.path))?;
    active.position += encoded.len;
    Ok(encoded.header_crc)
}

fn sync(segment: &Segment) -> Result<(), StorageError> {
    segment.file.sync_all().map_err(StorageError::io("sync segment", &segment.path))
}

impl Unused {
    fn contains(&self, number: u64) -> bool {
        self.ready.contains_key(&number) || self.spare.contains(&number)
    }

    fn all(&self) -> BTreeSet<u64> {
        self.ready.keys().chain(&self.spare).copied().collect()
    }
}
