//! Which segments are cleaned next.

/// A segment is worth cleaning if such a part of its records is needless.
const NEEDLESS_PERCENT: u64 = 40;
/// So many full segments are cleaned at once, at most.
const RUN_SEGMENTS_MAX: u64 = 8;
/// And so many bytes: all of them may be left, and places in a segment have 32 bits.
const RUN_BYTES_MAX: u64 = 2 << 30;

/// A segment, as far as cleaning goes by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) needless: u64,
    pub(super) records: u64,
    pub(super) needless_bytes: u64,
    /// It holds records that were replaced or cut.
    pub(super) has_dead: bool,
    /// What is to be kept of it could not be written elsewhere.
    pub(super) is_unreadable: bool,
}

impl Candidate {
    fn is_worth_it(&self) -> bool {
        let is_needless = self.needless * 100 >= self.records * NEEDLESS_PERCENT;
        !self.is_unreadable && (self.records == 0 || is_needless)
    }

    fn left_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.needless_bytes)
    }
}

/// Chooses neighbours that are worth cleaning, so that what is left of them fits into one segment, and no more
/// are read at once than a stop may wait for: the one with the most needless records, and those beside it that
/// are worth it too or small.
pub(super) fn choose(candidates: &[Candidate], bytes_max: u64) -> Option<Vec<u64>> {
    let (best, _) = candidates
        .iter()
        .enumerate()
        .filter(|(_, it)| it.is_worth_it())
        .max_by_key(|(_, it)| (it.needless, it.bytes))?;
    let is_small = |it: &Candidate| !it.is_unreadable && it.left_bytes() < bytes_max / 8;
    let is_good = |it: &Candidate| it.is_worth_it() || is_small(it);
    let chosen = candidates.get(best)?;
    let (mut left, mut read) = (chosen.left_bytes(), chosen.bytes);
    let (mut first, mut end) = (best, best + 1);
    let read_max = bytes_max.saturating_mul(RUN_SEGMENTS_MAX).min(RUN_BYTES_MAX);
    loop {
        let before = first.checked_sub(1).and_then(|at| candidates.get(at));
        let fits = |it: &&Candidate| {
            is_good(it) && read + it.bytes <= read_max && left + it.left_bytes() <= bytes_max
        };
        let next = if let Some(next) = candidates.get(end).filter(fits) {
            end += 1;
            next
        } else if let Some(next) = before.filter(fits) {
            first -= 1;
            next
        } else {
            break;
        };
        left += next.left_bytes();
        read += next.bytes;
    }
    Some(candidates.get(first..end)?.iter().map(|it| it.number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u64, records: u64, needless: u64) -> Candidate {
        let (bytes, needless_bytes) = (records * 10, needless * 10);
        let (has_dead, is_unreadable) = (needless > 0, false);
        Candidate { number, bytes, needless, records, needless_bytes, has_dead, is_unreadable }
    }

    #[test]
    fn neighbours_are_cleaned_together_as_far_as_what_is_left_fits() {
        let all = [
            candidate(1, 100, 10),
            candidate(2, 100, 90),
            candidate(3, 100, 100),
            candidate(4, 100, 50),
            candidate(5, 100, 0),
        ];
        assert_eq!(choose(&all, 10_000), Some(vec![1, 2, 3, 4, 5]), "all are small");
        assert_eq!(choose(&all, 1000), Some(vec![2, 3, 4]));
        assert_eq!(choose(&all, 500), Some(vec![3, 4]));
        assert_eq!(choose(&all, 499), Some(vec![2, 3]));
        assert_eq!(choose(&all, 99), Some(vec![3]));
        assert_eq!(choose(&all[..1], 10_000), None);
        let needless: Vec<Candidate> = (1..=20).map(|number| candidate(number, 100, 100)).collect();
        assert_eq!(choose(&needless, 1000), Some((13..=20).collect()), "not all at once");
        let mut damaged = all;
        damaged[2].is_unreadable = true;
        assert_eq!(choose(&damaged, 1000), Some(vec![2]), "it is passed over");
        damaged[1].is_unreadable = true;
        assert_eq!(choose(&damaged, 1000), Some(vec![4]));
        assert_eq!(choose(&[], 1), None);
        assert_eq!(choose(&[candidate(9, 0, 0)], 1), Some(vec![9]), "it holds nothing");
        // As if all were of one size little would be left; but all may be.
        let (bytes, needless_bytes) = (1 << 30, (1 << 30) / 100 * 99);
        let large = |number| Candidate { bytes, needless_bytes, ..candidate(number, 100, 99) };
        let large: Vec<Candidate> = (1..=8).map(large).collect();
        let run = choose(&large, 1 << 30).unwrap();
        assert_eq!(run.len(), 2, "what is left has its place below 4 GiB");
    }
}
