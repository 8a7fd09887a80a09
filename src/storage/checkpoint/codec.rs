//! Numbers and byte strings of a checkpoint, one after the other.
//!
//! Counts and places are LEB128; what must be found at a fixed size is little-endian. What is read
//! allocates no more than the bytes that are there.

use crate::storage::{bug::bug, log::entry::LogId};

/// Bytes that are not what they should be: a section of a file whose checksum holds, so a defect or a
/// file of another make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section does not read as what its kind says")]
pub(in crate::storage) struct Malformed;

/// Appends to a buffer.
pub(in crate::storage) trait Put {
    /// A number as LEB128.
    fn put_number(&mut self, number: u64);
    /// A signed number, small ones short.
    fn put_signed(&mut self, number: i64);
    /// Bytes behind their length.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// The name of an entry.
    fn put_id(&mut self, id: LogId);
}

impl Put for Vec<u8> {
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            // The low seven bits, and that more follow.
            self.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.push(number.to_le_bytes()[0]);
    }

    fn put_signed(&mut self, number: i64) {
        // Zigzag, as protobuf has it.
        self.put_number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }

    fn put_id(&mut self, id: LogId) {
        self.put_number(id.term);
        self.put_number(id.index);
    }
}

/// Reads front to back.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Take<'a>(pub(in crate::storage) &'a [u8]);

impl<'a> Take<'a> {
    /// Returns whether everything was read.
    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Demands that everything was read.
    pub(in crate::storage) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(in crate::storage) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(in crate::storage) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return Err(Malformed);
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// Reads a number that fits into another type.
    pub(in crate::storage) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.number()?).map_err(|_| Malformed)
    }

    pub(in crate::storage) fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    pub(in crate::storage) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(in crate::storage) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len: usize = self.narrow()?;
        let is_there = len <= self.0.len() || bug!(LengthBelieved);
        let (bytes, rest) = if is_there { self.0.split_at(len) } else { return Err(Malformed) };
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads bytes of a fixed number.
    pub(in crate::storage) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(in crate::storage) fn id(&mut self) -> Result<LogId, Malformed> {
        Ok(LogId { term: self.number()?, index: self.number()? })
    }

    /// Reads a count of things that take a byte at least, so that it allocates no more than is there.
    pub(in crate::storage) fn count(&mut self) -> Result<usize, Malformed> {
        let count: usize = self.narrow()?;
        if count > self.0.len() { Err(Malformed) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            signed in any::<i64>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut out = Vec::new();
            for number in &numbers {
                out.put_number(*number);
            }
            out.put_signed(signed);
            out.put_bytes(&bytes);
            let mut take = Take(&out);
            for number in &numbers {
                prop_assert_eq!(take.number(), Ok(*number));
            }
            prop_assert_eq!(take.signed(), Ok(signed));
            prop_assert_eq!(take.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(take.end(), Ok(()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _number = Take(&bytes).number();
            let _signed = Take(&bytes).signed();
            let _bytes = Take(&bytes).bytes();
            let _count = Take(&bytes).count();
        }
    }

    #[test]
    fn lengths_and_numbers_that_are_not_there_are_refused() {
        assert_eq!(Take(&[0x80]).number(), Err(Malformed));
        assert_eq!(Take(&[0xff; 11]).number(), Err(Malformed));
        assert_eq!(Take(&[200, 1, 7]).bytes(), Err(Malformed));
        assert_eq!(Take(&[200, 1, 7]).count(), Err(Malformed));
        assert_eq!(Take(&[2]).flag(), Err(Malformed));
        assert_eq!(Take(&[200, 2]).narrow::<u8>(), Err(Malformed));
    }
}
