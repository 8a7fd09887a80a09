//! Makes durable what was perhaps never on disk, and sets aside what cannot be read.

use std::{collections::BTreeMap, io::IoSlice, sync::Arc};

use super::{
    Recovery,
    scan::Above,
    survey::{Page, Survey},
};
use crate::storage::{
    StorageError,
    log::{
        entry::{Control, Item, Stamp},
        header::Seed,
        index::Place,
        segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
        segments::{Segment, segment_path},
        writer::{Active, Log},
    },
};

/// What the scan left to be settled.
pub(super) struct Found {
    /// Valid entries above the watermark.
    pub(super) above: Vec<Above>,
    /// Segments up to the one that holds the watermark.
    pub(super) live: Vec<u64>,
    /// The newest segment, if the log can go on in it.
    pub(super) page_only: Option<u64>,
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
        let mut kept = found.live;
        kept.extend(found.page_only);
        let reusable = self.reusable(survey)?;
        let is_aside = |number: &u64| !kept.contains(number) && !reusable.contains_key(number);
        let aside: Vec<u64> = survey.files.keys().copied().filter(is_aside).collect();
        if let Some(last) = self.segments.get(self.joint.predecessor) {
            self.stale_tail = Some((last, self.joint.cut_position));
        }
        if copies.is_empty() && aside.is_empty() {
            if let Some(number) = found.page_only {
                self.go_on_in(survey, number)?;
            }
            for (number, capacity) in &reusable {
                self.take_over(survey, *number, *capacity)?;
            }
            return Ok(());
        }
        // What is set aside may hold the only evidence of the watermark: the new page has it first.
        recovery.copied_entries = copies.len() as u64;
        self.copy(&copies)?;
        self.set_aside(survey, &aside, recovery)?;
        self.remove_unused(survey, &reusable)
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
        self.segments.insert(Arc::clone(&segment));
        let position = SEGMENT_HEADER_BYTES as u64;
        self.active = Some(Active { segment, position, capacity: found.len });
        Ok(())
    }

    /// Returns the files that hold nothing but zeros and have the size of a segment.
    fn reusable(&self, survey: &Survey) -> Result<BTreeMap<u64, u64>, StorageError> {
        let mut reusable = BTreeMap::new();
        let newest =
            survey.files.iter().rev().find(|(_, f)| f.header().is_some()).map_or(0, |(n, _)| *n);
        for (number, found) in &survey.files {
            let is_candidate = found.page == Page::Zero
                && *number > newest
                && found.len > SEGMENT_HEADER_BYTES as u64;
            if is_candidate && self.is_zero(found)? {
                reusable.insert(*number, found.len);
            }
        }
        Ok(reusable)
    }

    fn is_zero(&self, found: &super::survey::Found) -> Result<bool, StorageError> {
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
        // Its blocks were synced before it was ever used, its name too; a crash may have come before
        // either, so both are made sure of again.
        found.file.sync_all().map_err(StorageError::io("sync segment", &found.path))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        let seed = Seed::new(self.log_id, number);
        let file = Arc::clone(&found.file);
        let segment = Arc::new(Segment::new(number, found.path.clone(), file, seed));
        self.preparation.add(Active { segment, position: 0, capacity });
        self.preparation.log_bytes += capacity;
        Ok(())
    }

    /// Copies entries into a new segment: contents, sync, name, and last the page that vouches for
    /// them.
    fn copy(&mut self, copies: &[Above]) -> Result<(), StorageError> {
        let number = self.preparation.next_number;
        let path = segment_path(&self.dir, self.log_id, number);
        let used: u64 = copies.iter().map(|above| above.item.encoded_bytes()).sum();
        let header_bytes = SEGMENT_HEADER_BYTES as u64;
        let capacity = (header_bytes + used).max(self.options.segment_bytes_first);
        let file = self.disk.create(&path).map_err(StorageError::io("create segment", &path))?;
        file.allocate(0, capacity).map_err(StorageError::io("allocate segment", &path))?;
        let seed = Seed::new(self.log_id, number);
        let mut position = header_bytes;
        let mut prev_crc = self.joint.prev_crc;
        let mut last_lsn = self.synced_lsn;
        for above in copies {
            let stamp = Stamp {
                lsn: above.header.lsn,
                synced_lsn: above.header.synced_lsn,
                committed: above.header.committed,
                prev_crc,
            };
            let encoded = above.item.encode(stamp, &seed);
            let slices: Vec<IoSlice<'_>> = encoded.slices().collect();
            file.write_at(position, &slices).map_err(StorageError::io("write segment", &path))?;
            if let Item::Entry(entry) = &above.item {
                let place = Place {
                    segment: u32::try_from(number).unwrap_or(u32::MAX),
                    position: u32::try_from(position).unwrap_or(u32::MAX),
                };
                self.fold.index.set_place(entry.id, place);
            }
            prev_crc = encoded.header_crc;
            position += encoded.len;
            last_lsn = above.header.lsn;
        }
        file.sync_all().map_err(StorageError::io("sync segment", &path))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))?;
        // The copies are synced: the page may say so.
        self.synced_lsn = last_lsn;
        let page = self.page_of_copy(number, copies);
        file.write_at(0, &[IoSlice::new(page.encode().as_slice())])
            .map_err(StorageError::io("write segment header", &path))?;
        file.sync_data().map_err(StorageError::io("sync segment", &path))?;
        let segment = Arc::new(Segment::new(number, path, file, seed));
        self.segments.insert(Arc::clone(&segment));
        self.active = Some(Active { segment, position, capacity });
        self.joint.prev_crc = prev_crc;
        self.preparation.next_number = number + 1;
        self.preparation.log_bytes += capacity;
        Ok(())
    }

    fn page_of_copy(&self, number: u64, copies: &[Above]) -> SegmentHeader {
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
            hard_state: self.fold.hard_state,
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

    /// Removes segments that were prepared and never written: their numbers lie below the copy's.
    fn remove_unused(
        &mut self,
        survey: &Survey,
        reusable: &BTreeMap<u64, u64>,
    ) -> Result<(), StorageError> {
        for number in reusable.keys() {
            let Some(found) = survey.files.get(number) else { continue };
            self.disk
                .remove(&found.path)
                .map_err(StorageError::io("remove unused segment", &found.path))?;
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync log", &self.dir))
    }
}
