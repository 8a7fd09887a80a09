//! Mutation without coverage: the same seed makes the same bytes.

use prkdb::storage::clock::{Rng as _, SeededRng};

/// Nothing grows beyond it.
const LEN_MAX: usize = 4096;

/// Numbers at which something happens.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Draws mutations of a corpus.
pub(crate) struct Mutator {
    rng: SeededRng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SeededRng::new(seed) }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.next_u64() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// Returns one of the corpus, changed in one to four places.
    pub(crate) fn draw(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let at = self.below(corpus.len());
        let mut bytes = corpus[at].clone();
        for _ in 0..=self.below(4) {
            let other = self.below(corpus.len());
            self.change(&mut bytes, &corpus[other]);
        }
        bytes.truncate(LEN_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (self.rng.next_u64().trailing_zeros() % 8);
                }
            }
            1 => bytes.insert(at, self.rng.next_u64().to_le_bytes()[0]),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 | 5 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let (from, count) = (at, [1, 2, 4, 8][self.below(4)]);
                for (place, byte) in bytes.iter_mut().skip(from).zip(&number[..count]) {
                    *place = *byte;
                }
            }
            6 => {
                let copied = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            _ => {
                let from = self.below(other.len() + 1);
                let end = (from + 1 + self.below(64)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
}
