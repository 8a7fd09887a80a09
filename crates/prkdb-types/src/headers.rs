//! The record headers that PrkDB itself reads and writes. Their names begin with `prkdb.`, their values
//! are text, so that any reader of batches shows them.

use std::time::Duration;

use crate::{RecordView, limits::MAX_TTL_MS};

/// How long a key's value lasts: decimal digits are milliseconds of the log's time from its append on,
/// `never` means that it does not end, whatever its collection says.
pub const TTL_MS: &str = "prkdb.ttl-ms";
/// Why a tombstone was appended that nobody asked for: the name of an [`Operation`].
pub const OPERATION: &str = "prkdb.op";

/// Why PrkDB itself appended a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The key's time to live was over.
    Expired,
    /// Its record went with the beginning of its partition.
    Trimmed,
}

impl Operation {
    /// Returns the header's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Trimmed => "trimmed",
        }
    }
}

/// How long a value lasts, where its record states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// It does not end, whatever its collection says.
    Never,
    /// So many milliseconds, at most [`MAX_TTL_MS`]; 0 = it is over when it is applied.
    Ms(u64),
}

impl Ttl {
    /// Returns the time to live of a duration; what is longer than [`MAX_TTL_MS`] is cut to that.
    pub fn of(duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // What is not nothing is not over at once.
        let rounded = ms.max(u64::from(!duration.is_zero()));
        Self::Ms(rounded.min(MAX_TTL_MS))
    }
}

const NEVER: &[u8] = b"never";

/// A header with a time to live that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "header {TTL_MS}: {found:?} is neither 'never' nor a number of milliseconds up to {MAX_TTL_MS}"
)]
pub struct TtlError {
    /// What stands there.
    pub found: String,
}

/// A time to live as its header has it.
#[derive(Clone, Copy, Debug)]
pub enum TtlText {
    /// `never`.
    Never,
    /// Digits at the end of a buffer.
    Digits([u8; 20], usize),
}

impl TtlText {
    /// Returns the text of a time to live.
    pub fn new(ttl: Ttl) -> Self {
        let Ttl::Ms(mut left) = ttl else { return Self::Never };
        let (mut digits, mut start) = ([b'0'; 20], 20);
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            // Below ten.
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
            start = at;
            if left == 0 {
                break;
            }
        }
        Self::Digits(digits, start)
    }

    /// Returns the header's value.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Never => NEVER,
            Self::Digits(digits, start) => digits.get(*start..).unwrap_or_default(),
        }
    }
}

/// Returns the time to live that a record states; `None` if it states none.
///
/// # Errors
/// [`TtlError`] for a header that is neither of the two, or a number above [`MAX_TTL_MS`].
pub fn ttl(record: &RecordView<'_>) -> Result<Option<Ttl>, TtlError> {
    if record.header_count() == 0 {
        return Ok(None);
    }
    // As with any header that stands twice: the last one counts.
    let Some((_, value)) = record.headers().filter(|(name, _)| *name == TTL_MS).last() else {
        return Ok(None);
    };
    let text = value.unwrap_or_default();
    if text == NEVER {
        return Ok(Some(Ttl::Never));
    }
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(text).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    match number {
        Some(ttl_ms) if ttl_ms <= MAX_TTL_MS => Ok(Some(Ttl::Ms(ttl_ms))),
        _ => Err(TtlError { found: String::from_utf8_lossy(text).chars().take(40).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, DecompressLimit, ProducerStamp};

    fn read(headers: &[(&str, &[u8])]) -> Result<Option<Ttl>, TtlError> {
        let batch = Batch::single(ProducerStamp::NONE, 0, Some(b"k"), None, headers).unwrap();
        let records = batch.records(DecompressLimit::new(1000)).unwrap();
        ttl(&records.get(0).unwrap().unwrap())
    }

    #[test]
    fn a_time_to_live_reads_back_as_written() {
        for ttl in [0, 1, 9, 10, 3_600_000, MAX_TTL_MS] {
            let text = TtlText::new(Ttl::Ms(ttl));
            assert_eq!(text.as_bytes(), ttl.to_string().as_bytes());
            assert_eq!(read(&[("other", b"7"), (TTL_MS, text.as_bytes())]), Ok(Some(Ttl::Ms(ttl))));
        }
        let never = TtlText::new(Ttl::Never);
        assert_eq!(read(&[(TTL_MS, never.as_bytes())]), Ok(Some(Ttl::Never)));
        assert_eq!(TtlText::new(Ttl::Ms(u64::MAX)).as_bytes(), u64::MAX.to_string().as_bytes());
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("other", b"7")]), Ok(None));
        assert_eq!(read(&[(TTL_MS, b"7"), (TTL_MS, b"8")]), Ok(Some(Ttl::Ms(8))));
    }

    #[test]
    fn a_duration_is_cut_to_the_longest_and_never_to_nothing() {
        assert_eq!(Ttl::of(Duration::ZERO), Ttl::Ms(0));
        assert_eq!(Ttl::of(Duration::from_nanos(1)), Ttl::Ms(1));
        assert_eq!(Ttl::of(Duration::from_secs(60)), Ttl::Ms(60_000));
        assert_eq!(Ttl::of(Duration::MAX), Ttl::Ms(MAX_TTL_MS));
    }

    #[test]
    fn what_is_no_time_to_live_is_refused_with_what_it_is() {
        let above = (MAX_TTL_MS + 1).to_string();
        for wrong in
            ["", "Never", "-1", "+1", "1.5", "1h", " 1", &above, "99999999999999999999", "\u{660}"]
        {
            let found = read(&[(TTL_MS, wrong.as_bytes())]).unwrap_err();
            assert_eq!(found.found, wrong);
        }
    }
}
