//! When what of a partition was appended, coarsely: so that retention finds where to cut.
//!
//! A mark says that everything before its offset was appended at its time or earlier, and how many bytes
//! that was. There are at most 128; when they are more, every second one goes.

use std::collections::VecDeque;

use crate::storage::checkpoint::codec::{Malformed, Put as _, Take};

/// Most marks of a partition.
const MARKS_MAX: u8 = 128;

/// The marks of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    marks: VecDeque<Mark>,
    /// Bytes of everything that was appended since the marks began.
    bytes: u64,
    /// The least time between two marks.
    step_ms: i64,
}

/// Everything before `offset` was appended at `time_ms` or earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    time_ms: i64,
    offset: u64,
    /// Bytes before it.
    bytes: u64,
}

/// Where to cut a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimPoint {
    /// The first offset that stays.
    pub log_start: u64,
    /// Bytes that go, about.
    pub bytes: u64,
}

impl Marks {
    /// Notes a batch that was appended.
    pub(super) fn push(&mut self, append_time_ms: i64, base_offset: u64, bytes: u64) {
        let is_due = self.marks.back().is_none_or(|last| {
            append_time_ms.saturating_sub(last.time_ms) >= self.step_ms && last.offset < base_offset
        });
        if is_due {
            let mark = Mark { time_ms: append_time_ms, offset: base_offset, bytes: self.bytes };
            self.marks.push_back(mark);
        }
        if self.marks.len() > usize::from(MARKS_MAX) {
            let mut keeps = false;
            self.marks.retain(|_| {
                keeps = !keeps;
                keeps
            });
            // Those that follow are as far apart as those that are left.
            let first_ms = self.marks.front().map_or(append_time_ms, |first| first.time_ms);
            let apart_ms = append_time_ms.saturating_sub(first_ms) / i64::from(MARKS_MAX / 2);
            self.step_ms = self.step_ms.max(apart_ms).max(1);
        }
        self.bytes += bytes;
    }

    /// Returns where to cut so that nothing is left that was appended before `cutoff_ms`, as far as the
    /// marks tell, nor more than `bytes_max`; `None` where there is nothing to cut.
    pub(super) fn overdue(
        &self,
        cutoff_ms: Option<i64>,
        bytes_max: Option<u64>,
    ) -> Option<TrimPoint> {
        let first = self.marks.front()?;
        let by_time = cutoff_ms.and_then(|cutoff_ms| {
            self.marks.iter().take_while(|mark| mark.time_ms < cutoff_ms).last()
        });
        let by_bytes = bytes_max.and_then(|bytes_max| {
            let is_over = |mark: &&Mark| self.bytes.saturating_sub(mark.bytes) > bytes_max;
            let over = self.marks.iter().take_while(is_over).count();
            // The one behind the last that is over; what is newest stays, whatever its size.
            self.marks.get(over.min(self.marks.len() - 1))
        });
        let mark = [by_time, by_bytes].into_iter().flatten().max_by_key(|mark| mark.offset)?;
        (mark.offset > first.offset).then(|| TrimPoint {
            log_start: mark.offset,
            bytes: mark.bytes.saturating_sub(first.bytes),
        })
    }

    /// Hears that a partition begins at `log_start`.
    pub(super) fn trimmed(&mut self, log_start: u64) {
        while self.marks.get(1).is_some_and(|next| next.offset <= log_start) {
            self.marks.pop_front();
        }
    }

    pub(super) fn save(&self, to: &mut Vec<u8>) {
        to.put_number(self.bytes);
        to.put_signed(self.step_ms);
        to.put_number(self.marks.len() as u64);
        for mark in &self.marks {
            to.put_signed(mark.time_ms);
            to.put_number(mark.offset);
            to.put_number(mark.bytes);
        }
    }

    pub(super) fn load(from: &mut Take<'_>) -> Result<Self, Malformed> {
        let mut marks = Self { bytes: from.number()?, step_ms: from.signed()?, ..Self::default() };
        for _ in 0..from.count()? {
            let mark =
                Mark { time_ms: from.signed()?, offset: from.number()?, bytes: from.number()? };
            marks.marks.push_back(mark);
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batches: u64) -> Marks {
        let mut marks = Marks::default();
        for batch in 0..batches {
            marks.push(i64::try_from(batch).unwrap() * 10, batch * 5, 100);
        }
        marks
    }

    #[test]
    fn what_is_cut_was_appended_before_and_nothing_later() {
        for batches in [1, 2, 100, 1000, 5000] {
            let marks = filled(batches);
            assert!(marks.marks.len() <= usize::from(MARKS_MAX));
            for cutoff in (0..batches * 10).step_by(77) {
                let cutoff_ms = i64::try_from(cutoff).unwrap();
                let Some(point) = marks.overdue(Some(cutoff_ms), None) else { continue };
                // Batch n is at offset 5 n and time 10 n.
                assert!(point.log_start / 5 * 10 <= cutoff, "{point:?} at {cutoff}");
                assert_eq!(point.bytes, point.log_start / 5 * 100);
                assert!(cutoff - point.log_start / 5 * 10 <= batches / 4 + 20, "{point:?}");
            }
        }
    }

    #[test]
    fn what_is_left_has_at_most_the_bytes_allowed() {
        let marks = filled(1000);
        let point = marks.overdue(None, Some(20_000)).unwrap();
        let left = 100_000 - point.bytes;
        assert!(left <= 20_000 && left > 18_000, "{point:?}");
        assert_eq!(marks.overdue(None, Some(100_000)), None);
        assert_eq!(filled(1).overdue(None, Some(0)), None, "the newest stays");
        assert_eq!(marks.overdue(None, None), None);
    }

    #[test]
    fn what_was_cut_is_not_cut_again() {
        let mut marks = filled(100);
        let point = marks.overdue(Some(500), None).unwrap();
        marks.trimmed(point.log_start);
        assert_eq!(marks.overdue(Some(500), None), None);
        let next = marks.overdue(Some(600), None).unwrap();
        assert_eq!(next.bytes, (next.log_start - point.log_start) / 5 * 100);
        let mut saved = Vec::new();
        marks.save(&mut saved);
        assert_eq!(Marks::load(&mut Take(&saved)), Ok(marks));
    }
}
