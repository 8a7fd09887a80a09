//! Times as people and programs write them, in milliseconds since 1970.

use chrono::{
    DateTime, NaiveDate, NaiveDateTime,
    format::{Item, StrftimeItems},
};

/// How the time of a record is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimestampFormat {
    /// RFC 3339, or digits: 10 are seconds, 13 milliseconds, 16 microseconds.
    #[default]
    Auto,
    /// As strftime writes it.
    Strftime(String),
}

impl TimestampFormat {
    /// Reads the format of strftime.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || StrftimeItems::new(text).any(|item| item == Item::Error) {
            return Err("not a format of strftime, such as '%Y-%m-%d %H:%M'".to_owned());
        }
        Ok(Self::Strftime(text.to_owned()))
    }

    /// Returns the milliseconds since 1970 that a text stands for. A time without a zone is in UTC.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn read(&self, text: &[u8]) -> Result<i64, String> {
        let wrong = || format!("timestamp '{}'", crate::commands::output::escape_bytes(text));
        let text = std::str::from_utf8(text).map_err(|_| format!("{} is not UTF-8", wrong()))?;
        let read = match self {
            Self::Auto if is_number(text) => {
                return digits(text).ok_or_else(|| {
                    format!("{}: 10, 13 or 16 digits are a time since 1970", wrong())
                });
            }
            Self::Auto => moment(text),
            Self::Strftime(format) => formatted(text, format),
        };
        read.ok_or_else(|| match self {
            Self::Auto => format!("{} is not RFC 3339", wrong()),
            Self::Strftime(format) => format!("{} is not as '{format}'", wrong()),
        })
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Seconds, milliseconds or microseconds since 1970, by how many digits there are.
pub(crate) fn digits(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    match text.len() {
        10 => Some(number * 1000),
        13 => Some(number),
        16 => Some(number / 1000),
        _ => None,
    }
}

/// RFC 3339, also with a space for the T, without a zone, or a date alone.
pub(crate) fn moment(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let naive = naive.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let naive =
        naive.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    naive.map(|time| time.and_utc().timestamp_millis())
}

fn formatted(text: &str, format: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_str(text, format) {
        return Some(time.timestamp_millis());
    }
    let naive = NaiveDateTime::parse_from_str(text, format).ok();
    let naive =
        naive.or_else(|| NaiveDate::parse_from_str(text, format).ok()?.and_hms_opt(0, 0, 0));
    naive.map(|time| time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: i64 = 1_356_998_400_000;

    #[test]
    fn forms_of_one_moment_are_one_time() {
        for text in [
            "2013-01-01T00:00:00Z",
            "2013-01-01 00:00:00Z",
            "2013-01-01T05:30:00+05:30",
            "2013-01-01T00:00:00",
            "2013-01-01 00:00:00.000",
            "2013-01-01",
            "1356998400",
            "1356998400000",
            "1356998400000999",
        ] {
            assert_eq!(TimestampFormat::Auto.read(text.as_bytes()), Ok(TEN), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_says_why() {
        let refused = |text: &str| TimestampFormat::Auto.read(text.as_bytes()).unwrap_err();
        assert_eq!(refused("NA"), "timestamp 'NA' is not RFC 3339");
        assert!(refused("123").contains("10, 13 or 16 digits"));
        for text in
            ["", "2013-13-01", "2013-01-01T24:00:00Z", "-1356998400", "99999999999999999999"]
        {
            refused(text);
        }
    }

    #[test]
    fn a_format_reads_times_with_and_without_a_zone_and_dates() {
        for (format, text) in [
            ("%d.%m.%Y %H:%M", "01.01.2013 00:00"),
            ("%Y%m%d", "20130101"),
            ("%Y-%m-%d %H:%M:%S %z", "2013-01-01 01:00:00 +0100"),
            ("%s", "1356998400"),
        ] {
            let format = TimestampFormat::parse(format).unwrap();
            assert_eq!(format.read(text.as_bytes()), Ok(TEN), "{text}");
        }
        assert!(TimestampFormat::parse("%Q").is_err());
        assert!(TimestampFormat::parse("").is_err());
        let format = TimestampFormat::parse("%Y").unwrap();
        assert_eq!(format.read(b"x").unwrap_err(), "timestamp 'x' is not as '%Y'");
    }
}
