//! Variable-length numbers: zigzag, seven bits a byte, the lowest first.

use super::error::RecordProblem;

/// Appends a 32-bit number, in 1 to 5 bytes.
pub(super) fn put_varint(to: &mut Vec<u8>, value: i32) {
    put_varlong(to, i64::from(value));
}

/// Appends a 64-bit number, in 1 to 10 bytes.
pub(super) fn put_varlong(to: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        to.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    to.push(low);
}

/// Returns how many bytes a number takes; the same for both widths.
pub(super) fn varint_len(value: i64) -> usize {
    match zigzag(value) {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        rest => {
            let bits = 64 - rest.leading_zeros();
            // At most 10, so the conversion holds on every machine.
            usize::try_from(bits.div_ceil(7)).unwrap_or(10)
        }
    }
}

// A 32-bit number has the same zigzag form in 64 bits.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The bytes of a record not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// Takes the next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], RecordProblem> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordProblem::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordProblem> {
        let (byte, rest) = self.0.split_first().ok_or(RecordProblem::Truncated)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// Takes a number of 32 bits. More bits than that are refused, longer forms of a small number
    /// are not: other writers may pad.
    pub(super) fn varint(&mut self) -> Result<i32, RecordProblem> {
        let raw = u32::try_from(self.unsigned(5)?).map_err(|_| RecordProblem::Varint)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// Takes a number of 64 bits.
    pub(super) fn varlong(&mut self) -> Result<i64, RecordProblem> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    fn unsigned(&mut self, bytes_max: u32) -> Result<u64, RecordProblem> {
        let mut value = 0_u64;
        for index in 0..bytes_max {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * index);
            // The tenth byte has room for one bit only.
            if shifted >> (7 * index) != bits {
                return Err(RecordProblem::Varint);
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordProblem::Varint)
    }

    /// Takes a count or length that may not be negative.
    pub(super) fn length(&mut self) -> Result<usize, RecordProblem> {
        let length = self.varint()?;
        usize::try_from(length).map_err(|_| RecordProblem::Length(length))
    }

    /// Takes a length and that many bytes; the length -1 means none.
    pub(super) fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordProblem> {
        match self.varint()? {
            -1 => Ok(None),
            length => {
                let count = usize::try_from(length).map_err(|_| RecordProblem::Length(length))?;
                self.take(count).map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_the_bytes_of_the_format() {
        let cases: [(i32, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[128, 1]),
            (i32::MAX, &[254, 255, 255, 255, 15]),
            (i32::MIN, &[255, 255, 255, 255, 15]),
        ];
        for (value, bytes) in cases {
            let mut encoded = Vec::new();
            put_varint(&mut encoded, value);
            assert_eq!(encoded, bytes, "{value}");
        }
    }

    #[test]
    fn numbers_with_too_many_bits_are_refused() {
        assert_eq!(Cursor(&[255, 255, 255, 255, 31]).varint(), Err(RecordProblem::Varint));
        assert_eq!(Cursor(&[128; 6]).varint(), Err(RecordProblem::Varint));
        assert_eq!(Cursor(&[128; 11]).varlong(), Err(RecordProblem::Varint));
        let mut long = [255; 10];
        long[9] = 2;
        assert_eq!(Cursor(&long).varlong(), Err(RecordProblem::Varint));
        assert_eq!(Cursor(&[128]).varint(), Err(RecordProblem::Truncated));
    }

    proptest! {
        #[test]
        fn numbers_round_trip(long in any::<i64>(), shift in 0_u32..64, short in any::<i32>()) {
            let long = long >> shift;
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, long);
            prop_assert_eq!(bytes.len(), varint_len(long));
            prop_assert_eq!(Cursor(&bytes).varlong(), Ok(long));
            bytes.clear();
            put_varint(&mut bytes, short);
            prop_assert_eq!(bytes.len(), varint_len(i64::from(short)));
            prop_assert_eq!(Cursor(&bytes).varint(), Ok(short));
        }
    }
}
