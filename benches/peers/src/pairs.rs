//! The keys and values that every engine is given: the same for each, made from a number.

use std::array;

/// A key of 16 bytes.
pub(crate) type Key = [u8; 16];
/// A value of 100 bytes.
pub(crate) type Value = [u8; 100];

/// A key and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// Hexadecimal digits of the number, scattered over all there are.
    pub(crate) key: Key,
    /// Bytes that do not compress.
    pub(crate) value: Value,
}

impl Pair {
    /// Returns the pair of a number.
    pub(crate) fn of(number: u64) -> Self {
        Self { key: key(number), value: value(number) }
    }
}

/// Returns the key of a number. The factor is odd, so that no two numbers have the same.
pub(crate) fn key(number: u64) -> Key {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    array::from_fn(|at| {
        let byte = scattered[at / 2];
        let digit = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
        b"0123456789abcdef"[usize::from(digit)]
    })
}

/// Returns the value of a number.
pub(crate) fn value(number: u64) -> Value {
    let mut random = Random::of(number);
    let mut value = [0; 100];
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
    value
}

/// Returns the first bytes of the value of a number, for a check that costs little.
pub(crate) fn beginning(number: u64) -> [u8; 8] {
    Random::of(number).next().to_le_bytes()
}

/// `SplitMix64`, Steele, Lea and Flood 2014.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns a generator of its own for each seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut mixed = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        Self(mixed.next())
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_differ_and_values_begin_as_is_said() {
        let keys: BTreeSet<Key> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), 10_000);
        assert!((0..100).all(|number| value(number)[..8] == beginning(number)));
        assert_ne!(value(1), value(2));
    }
}
