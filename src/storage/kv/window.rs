//! What is remembered of producers, so that a repeated write is answered and not applied again.
//!
//! Per producer and partition the last 16 batches are kept (the idea is Kafka's KIP-98). The windows
//! are part of the applied state: every replica keeps and forgets the same ones, in the order of the
//! log.

mod saved;

use std::collections::{BTreeMap, VecDeque};

use prkdb_types::{BatchHeader, limits::PRODUCER_WINDOW_BATCHES, sequence_after};

/// A producer that was silent for so long, by the log's time, is forgotten.
pub const PRODUCER_IDLE_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Default for the memory of all windows of a shard.
pub const PRODUCER_BYTES_MAX: u64 = 64 << 20;

/// A producer in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// The partition's number in frames.
    pub partition: u32,
    /// The producer's id.
    pub producer: i64,
}

/// One remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Sequence of its first record.
    pub sequence: i32,
    /// Records.
    pub count: u32,
    /// The batch's checksum: a repeat has the same bytes.
    pub crc: u32,
    /// Where it was placed.
    pub base_offset: u64,
    /// The entry that holds it: a revision once it is applied, the sequencer's number before.
    pub entry: u64,
    /// When it was appended.
    pub append_time_ms: i64,
}

/// What a producer's batch is to its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowVerdict {
    /// The next one.
    Next,
    /// A repeat.
    Repeat(Remembered),
    /// The sequence of another batch.
    Reused,
    /// A sequence was left out, or is older than what is remembered; this one was expected.
    Gap(i32),
    /// The producer is not known and does not start at 0.
    Unknown,
    /// A later epoch of the producer has written.
    Fenced(i16),
}

/// The last batches of one producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    epoch: i16,
    batches: VecDeque<Remembered>,
}

impl Window {
    /// Returns an empty window.
    pub fn new(epoch: i16) -> Self {
        Self { epoch, batches: VecDeque::new() }
    }

    /// Returns what a batch with `header` is to `window`.
    pub fn judge(window: Option<&Self>, header: &BatchHeader) -> WindowVerdict {
        let starts = header.base_sequence == 0;
        let Some(window) = window else {
            return if starts { WindowVerdict::Next } else { WindowVerdict::Unknown };
        };
        if header.producer_epoch < window.epoch {
            return WindowVerdict::Fenced(window.epoch);
        }
        if header.producer_epoch > window.epoch {
            return if starts { WindowVerdict::Next } else { WindowVerdict::Gap(0) };
        }
        let same = window.batches.iter().find(|known| known.sequence == header.base_sequence);
        if let Some(known) = same {
            let is_repeat = known.count == header.record_count() && known.crc == header.crc;
            return if is_repeat { WindowVerdict::Repeat(*known) } else { WindowVerdict::Reused };
        }
        let expected = window.batches.back().map_or(0, |b| sequence_after(b.sequence, b.count));
        if expected == header.base_sequence {
            WindowVerdict::Next
        } else {
            WindowVerdict::Gap(expected)
        }
    }

    /// Remembers a batch that was accepted.
    pub fn push(&mut self, epoch: i16, batch: Remembered) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
        if self.batches.len() == PRODUCER_WINDOW_BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    /// Returns the remembered batches, oldest first.
    pub fn batches(&self) -> impl Iterator<Item = &Remembered> {
        self.batches.iter()
    }

    fn bytes(&self) -> u64 {
        (size_of::<(ProducerKey, Self)>() + self.batches.len() * size_of::<Remembered>()) as u64
    }
}

/// All windows of a shard.
#[derive(Debug)]
pub struct Windows {
    by_producer: BTreeMap<ProducerKey, Touched>,
    /// Who wrote when, oldest first: the order of forgetting.
    by_touch: BTreeMap<u64, ProducerKey>,
    next_touch: u64,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Touched {
    window: Window,
    touch: u64,
    at_ms: i64,
}

impl Windows {
    /// Returns no windows.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            by_producer: BTreeMap::new(),
            by_touch: BTreeMap::new(),
            next_touch: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Returns the window of a producer.
    pub fn get(&self, key: ProducerKey) -> Option<&Window> {
        self.by_producer.get(&key).map(|touched| &touched.window)
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.by_producer.len()
    }

    /// Remembers a batch, and forgets who was silent longest where room or time ran out.
    pub fn push(&mut self, key: ProducerKey, epoch: i16, batch: Remembered) {
        let touch = self.next_touch;
        self.next_touch += 1;
        let at_ms = batch.append_time_ms;
        let touched = self.by_producer.entry(key).or_insert_with(|| {
            let window = Window::new(epoch);
            self.bytes += window.bytes();
            Touched { window, touch, at_ms }
        });
        let before = touched.window.bytes();
        touched.window.push(epoch, batch);
        self.bytes = self.bytes + touched.window.bytes() - before;
        self.by_touch.remove(&touched.touch);
        touched.touch = touch;
        touched.at_ms = at_ms;
        self.by_touch.insert(touch, key);
        self.forget(at_ms);
    }

    fn forget(&mut self, now_ms: i64) {
        while let Some((_, key)) = self.by_touch.first_key_value()
            && let key = *key
            && self.by_producer.get(&key).is_some_and(|oldest| {
                self.bytes > self.bytes_max
                    || now_ms.saturating_sub(oldest.at_ms) > PRODUCER_IDLE_MS
            })
        {
            self.by_touch.pop_first();
            if let Some(gone) = self.by_producer.remove(&key) {
                self.bytes -= gone.window.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prkdb_types::{Batch, ProducerStamp};

    use super::*;

    fn header(epoch: i16, base_sequence: i32, value: &[u8]) -> BatchHeader {
        let stamp = ProducerStamp { id: 9, epoch, base_sequence };
        Batch::single(stamp, 0, Some(b"k"), Some(value), &[]).unwrap().header()
    }

    fn remembered(header: &BatchHeader) -> Remembered {
        Remembered {
            sequence: header.base_sequence,
            count: 1,
            crc: header.crc,
            base_offset: 0,
            entry: 0,
            append_time_ms: 0,
        }
    }

    #[test]
    fn a_repeat_is_told_from_a_reuse_and_a_gap() {
        assert_eq!(Window::judge(None, &header(0, 1, b"a")), WindowVerdict::Unknown);
        let first = header(0, 0, b"a");
        assert_eq!(Window::judge(None, &first), WindowVerdict::Next);
        let mut window = Window::new(0);
        window.push(0, remembered(&first));
        let judge = |header: BatchHeader| Window::judge(Some(&window), &header);
        assert_eq!(judge(first), WindowVerdict::Repeat(remembered(&first)));
        assert_eq!(judge(header(0, 0, b"b")), WindowVerdict::Reused);
        assert_eq!(judge(header(0, 1, b"b")), WindowVerdict::Next);
        assert_eq!(judge(header(0, 2, b"b")), WindowVerdict::Gap(1));
        assert_eq!(judge(header(1, 0, b"b")), WindowVerdict::Next);
        assert_eq!(judge(header(1, 1, b"b")), WindowVerdict::Gap(0));
    }

    #[test]
    fn sixteen_batches_are_remembered_across_the_wrap() {
        let mut window = Window::new(0);
        let mut sequence = i32::MAX - 7;
        for _ in 0..20 {
            window.push(0, remembered(&header(0, sequence, b"v")));
            sequence = sequence_after(sequence, 1);
        }
        assert_eq!(window.batches().count(), PRODUCER_WINDOW_BATCHES);
        assert_eq!(sequence, 12);
        assert_eq!(Window::judge(Some(&window), &header(0, 12, b"v")), WindowVerdict::Next);
        let forgotten = header(0, i32::MAX - 7, b"v");
        assert_eq!(Window::judge(Some(&window), &forgotten), WindowVerdict::Gap(12));
    }

    #[test]
    fn the_longest_silent_is_forgotten_first() {
        let one = Window::new(0).bytes() + size_of::<Remembered>() as u64;
        let mut windows = Windows::new(2 * one + size_of::<Remembered>() as u64);
        let first = remembered(&header(0, 0, b"v"));
        for producer in [1, 2, 1, 3] {
            windows.push(ProducerKey { partition: 1, producer }, 0, first);
        }
        let known = |windows: &Windows, producer| {
            windows.get(ProducerKey { partition: 1, producer }).is_some()
        };
        assert_eq!([1, 2, 3].map(|producer| known(&windows, producer)), [true, false, true]);
        let later = Remembered { append_time_ms: PRODUCER_IDLE_MS + 1, ..first };
        windows.push(ProducerKey { partition: 1, producer: 3 }, 0, later);
        assert_eq!([1, 2, 3].map(|producer| known(&windows, producer)), [false, false, true]);
    }
}
