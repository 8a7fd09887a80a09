//! A log that was cleaned: its manifest says what stands before the checkpoint.
//!
//! The segments there are those of the log and of history, in the order of the log, with holes where
//! segments were replaced. Each is read by itself, whole; what they add up to is in the checkpoint.

use super::{
    super::{
        scan::End,
        step::{Window, read_entry},
        survey::Found,
    },
    report::{Problem, Visited},
    walk::{PAGE_END, Visit, Walk},
};
use crate::storage::{
    StorageError,
    log::{fold::Fold, resume::Resume, segment::any_file_name},
};

impl Walk<'_> {
    /// Reads everything up to the checkpoint; the log then goes on from there.
    pub(super) fn read_cleaned(
        &mut self,
        resume: &Resume,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let named = resume.sealed.iter().copied().chain([(resume.segment, resume.position)]);
        for (number, len) in named {
            let Some(found) = self.survey.any(number) else {
                let path = self.dir.join(any_file_name(resume.log_id, number));
                self.missing = Some(StorageError::Corrupt {
                    path,
                    position: 0,
                    expected: "a segment that the manifest names".to_owned(),
                    found: "no such file".to_owned(),
                });
                return Ok(());
            };
            self.read_alone(number, found, len, visit)?;
            if self.broken.is_some() || self.is_stopped {
                return Ok(());
            }
        }
        self.fold = Fold::resumed(resume);
        self.end = End::of(resume);
        self.watermark = self.watermark.max(resume.lsn);
        Ok(())
    }

    /// Reads the entries of a segment up to `len`, each behind the one before.
    fn read_alone(
        &mut self,
        number: u64,
        found: &Found,
        len: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let segment = self.segment(number, found);
        self.segments.insert(&segment);
        self.tallies.entry(number).or_default().end = PAGE_END;
        let Some(header) = found.header() else {
            let error = segment.corrupt(0, "a segment header", "other bytes");
            self.break_at(&segment, 0, Problem::Crc, None, error);
            return Ok(());
        };
        let before = header.first_lsn.saturating_sub(1);
        self.end =
            End { segment: number, lsn: before, position: PAGE_END, header_crc: header.prev_crc };
        let (mut window, mut position) = (Window::new(&segment), PAGE_END);
        while position < len && !self.is_stopped {
            match read_entry(&mut window, position, len.min(found.len), self.end)? {
                Ok((entry, item, header_crc)) => {
                    let end = position + entry.total_bytes();
                    let visited =
                        Visited { segment: number, position, end, header: &entry, item: &item };
                    if let Some((problem, error)) = self.wrong_records_of(&segment, &visited) {
                        self.break_at(&segment, position, problem, Some(entry), error);
                        return Ok(());
                    }
                    self.end = End { segment: number, lsn: entry.lsn, position: end, header_crc };
                    self.committed = self.committed.max(entry.committed);
                    self.tallies.entry(number).or_default().add(&visited);
                    self.is_stopped = visit(&visited).is_break();
                    position = end;
                }
                Err(stop) => {
                    self.stop_at(&segment, position, stop);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
