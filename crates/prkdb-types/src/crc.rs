//! CRC32C (Castagnoli, as in iSCSI), in one go or carried on over several slices.
//!
//! The algorithm picks the fastest instructions of the processor by itself.

use crc_fast::{CrcAlgorithm, Digest};

/// Returns the CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A CRC32C under way, carried on from slice to slice.
///
/// It is a plain number, so a value seeded with some bytes can be kept and copied for every
/// checksum that begins with them.
///
/// ```
/// use prkdb_types::{Crc32c, crc32c};
///
/// let mut crc = Crc32c::new();
/// crc.update(b"1234");
/// crc.update(b"56789");
/// assert_eq!(crc.finish(), crc32c(b"123456789"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32c {
    // The running register, before the final inversion.
    state: u64,
}

impl Crc32c {
    /// Starts over no bytes.
    pub fn new() -> Self {
        Self { state: u64::from(u32::MAX) }
    }

    /// Starts with `seed` already covered.
    pub fn seeded(seed: &[u8]) -> Self {
        let mut crc = Self::new();
        crc.update(seed);
        crc
    }

    /// Carries on from a finished checksum, as if its bytes had been fed to this one.
    pub fn carried_on(from: u32) -> Self {
        Self { state: u64::from(!from) }
    }

    /// Covers `bytes` as well.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.state);
        digest.update(bytes);
        self.state = digest.get_state();
    }

    /// Returns the checksum of all bytes so far. More may follow.
    pub fn finish(self) -> u32 {
        // The register has 32 bits: the upper half is zero.
        let [a, b, c, d, ..] = self.state.to_le_bytes();
        !u32::from_le_bytes([a, b, c, d])
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(Crc32c::new().finish(), 0);
    }

    #[test]
    fn slices_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..1500_u32).map(|n| n.to_le_bytes()[0]).collect();
        for cut in [0, 1, 7, 8, 63, 64, 255, 256, 1024, 1499, 1500] {
            let (head, tail) = bytes.split_at(cut);
            let mut crc = Crc32c::seeded(head);
            crc.update(tail);
            assert_eq!(crc.finish(), crc32c(&bytes), "cut at {cut}");
            let mut crc = Crc32c::carried_on(crc32c(head));
            crc.update(tail);
            assert_eq!(crc.finish(), crc32c(&bytes), "carried on at {cut}");
        }
    }
}
