//! One value of a result, and how each format shows it.
//!
//! A [`Cell`] keeps what a value *is* (bytes, a size, a time); the text of a table, the integer of
//! `plain` and the member of a JSON object are made from it here and nowhere else.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, Local, SecondsFormat, Timelike as _, Utc};
use serde_json::Value;

use super::{
    escape::{escape_bytes, one_line},
    object::Object,
};

/// What a column holds; decides alignment and the name of the JSON member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Stored bytes: `name`, or `name_b64` where they are not UTF-8.
    Bytes,
    /// A number.
    Number,
    /// Bytes of memory or disk: `name_bytes`.
    Size,
    /// Milliseconds: `name_ms`.
    Duration,
    /// A moment, in milliseconds since 1970.
    Time,
}

/// A column of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The name in headers, in capitals with hyphens.
    pub name: &'static str,
    /// The name of the JSON member without its unit.
    pub json: &'static str,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// Describes a column.
    pub const fn new(name: &'static str, json: &'static str, kind: Kind) -> Self {
        Self { name, json, kind }
    }

    /// Returns whether its cells stand on the right.
    pub fn is_right_aligned(&self) -> bool {
        matches!(self.kind, Kind::Number | Kind::Size | Kind::Duration)
    }

    fn json_name(&self) -> String {
        match self.kind {
            Kind::Size => format!("{}_bytes", self.json),
            Kind::Duration => format!("{}_ms", self.json),
            Kind::Text | Kind::Bytes | Kind::Number | Kind::Time => self.json.to_owned(),
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text of ours.
    Text(String),
    /// Stored bytes.
    Bytes(Vec<u8>),
    /// A count, a number, an offset.
    Number(u64),
    /// A measured value.
    Float(f64),
    /// Yes or no.
    Flag(bool),
    /// Bytes of memory or disk.
    Size(u64),
    /// Milliseconds.
    Duration(u64),
    /// Milliseconds since 1970.
    Time(i64),
    /// Several texts of ours.
    List(Vec<String>),
    /// Nothing is known.
    Absent,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Units in tables or plain integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitStyle {
    /// `12.3 MiB`, `3m 2s`.
    Readable,
    /// Integers: bytes, milliseconds.
    Raw,
}

/// How moments are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeStyle {
    /// RFC 3339 in UTC.
    Utc,
    /// RFC 3339 in the zone of `TZ`.
    Local,
    /// Milliseconds since 1970.
    EpochMs,
}

impl TimeStyle {
    /// Returns a moment as text; `buffer` holds it where nothing has to be allocated for it.
    pub(crate) fn text_in(self, ms: i64, buffer: &mut [u8; 24]) -> Cow<'_, str> {
        match self {
            Self::Utc => utc_text(ms, buffer).map_or_else(|| self.text(ms).into(), Cow::Borrowed),
            Self::Local | Self::EpochMs => self.text(ms).into(),
        }
    }

    fn text(self, ms: i64) -> String {
        let Some(time) = DateTime::<Utc>::from_timestamp_millis(ms) else {
            return ms.to_string();
        };
        match self {
            Self::Utc => time.to_rfc3339_opts(SecondsFormat::Millis, true),
            Self::Local => time.with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Millis, true),
            Self::EpochMs => ms.to_string(),
        }
    }
}

/// Writes RFC 3339 in UTC with milliseconds; `None` outside of the years 0 to 9999.
fn utc_text(ms: i64, buffer: &mut [u8; 24]) -> Option<&str> {
    let time = DateTime::<Utc>::from_timestamp_millis(ms)?;
    let year = u32::try_from(time.year()).ok().filter(|year| *year <= 9999)?;
    *buffer = *b"0000-00-00T00:00:00.000Z";
    let parts = [
        (0, 4, year),
        (5, 2, time.month()),
        (8, 2, time.day()),
        (11, 2, time.hour()),
        (14, 2, time.minute()),
        (17, 2, time.second()),
        (20, 3, time.timestamp_subsec_millis()),
    ];
    for (at, length, mut number) in parts {
        for digit in buffer.get_mut(at..at + length)?.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).ok()?;
            number /= 10;
        }
    }
    std::str::from_utf8(buffer).ok()
}

impl Cell {
    /// Returns the text for `table` and `plain`: one line, no control characters.
    pub fn text(&self, units: UnitStyle, time: TimeStyle) -> String {
        match (self, units) {
            (Self::Text(text), _) if text.is_empty() => "-".to_owned(),
            (Self::Text(text), _) => one_line(text),
            (Self::Bytes(bytes), _) if bytes == b"-" => "\\x2d".to_owned(),
            (Self::Bytes(bytes), _) if bytes.is_empty() => "-".to_owned(),
            (Self::Bytes(bytes), _) => escape_bytes(bytes),
            (Self::Size(bytes), UnitStyle::Readable) => readable_size(*bytes),
            (Self::Duration(ms), UnitStyle::Readable) => readable_duration(*ms),
            (Self::Number(n) | Self::Size(n) | Self::Duration(n), _) => n.to_string(),
            (Self::Float(value), _) => value.to_string(),
            (Self::Flag(is_set), _) => is_set.to_string(),
            (Self::Time(ms), _) => time.text(*ms),
            (Self::List(texts), _) if texts.is_empty() => "-".to_owned(),
            (Self::List(texts), _) => one_line(&texts.join(",")),
            (Self::Absent, _) => "-".to_owned(),
        }
    }

    /// Returns the field for CSV: bytes as they are, empty where absent.
    pub fn csv(&self, time: TimeStyle) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Text(text) => text.clone().into_bytes(),
            Self::List(texts) => texts.join(",").into_bytes(),
            Self::Absent => Vec::new(),
            other => other.text(UnitStyle::Raw, time).into_bytes(),
        }
    }

    /// Adds the member of a JSON object.
    pub fn add_to(&self, object: &mut Object, column: &Column, time: TimeStyle) {
        let value = match self {
            Self::Bytes(bytes) => {
                object.add_bytes(column.json, bytes);
                return;
            }
            Self::Text(text) => Value::from(text.as_str()),
            Self::Number(n) | Self::Size(n) | Self::Duration(n) => Value::from(*n),
            Self::Float(value) => Value::from(*value),
            Self::Flag(is_set) => Value::from(*is_set),
            Self::Time(ms) if time == TimeStyle::EpochMs => Value::from(*ms),
            Self::Time(ms) => Value::from(time.text(*ms)),
            Self::List(texts) => Value::from(texts.as_slice()),
            Self::Absent => Value::Null,
        };
        object.add(column.json_name(), value);
    }
}

/// Returns a size with a binary unit and one digit.
pub fn readable_size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] =
        [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20)];
    for (name, shift) in UNITS {
        if bytes >> shift > 0 {
            return tenths(bytes, shift, name);
        }
    }
    if bytes >= 1024 { tenths(bytes, 10, "KiB") } else { format!("{bytes} B") }
}

/// One digit after the point by integers, so that no float rounds a size.
fn tenths(bytes: u64, shift: u32, name: &str) -> String {
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// Returns a duration with its two largest units.
pub fn readable_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_for_people_and_integers_for_programs() {
        let size = Cell::Size(12_897_485);
        assert_eq!(size.text(UnitStyle::Readable, TimeStyle::Utc), "12.3 MiB");
        assert_eq!(size.text(UnitStyle::Raw, TimeStyle::Utc), "12897485");
        let uptime = Cell::Duration(182_000);
        assert_eq!(uptime.text(UnitStyle::Readable, TimeStyle::Utc), "3m 2s");
        assert_eq!(uptime.text(UnitStyle::Raw, TimeStyle::Utc), "182000");
    }

    #[test]
    fn json_names_carry_units_and_encodings() {
        let mut object = Object::default();
        let column = Column::new("SIZE", "size", Kind::Size);
        Cell::Size(7).add_to(&mut object, &column, TimeStyle::Utc);
        let key = Column::new("KEY", "key", Kind::Bytes);
        Cell::Bytes(vec![0, 0xff, 10]).add_to(&mut object, &key, TimeStyle::Utc);
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"size_bytes":7,"key_b64":"AP8K"}"#);
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        let time = Cell::Time(1_369_303_200_123);
        assert_eq!(time.text(UnitStyle::Raw, TimeStyle::Utc), "2013-05-23T10:00:00.123Z");
        assert_eq!(time.text(UnitStyle::Raw, TimeStyle::EpochMs), "1369303200123");
    }

    #[test]
    fn times_are_the_same_with_and_without_an_allocation() {
        let mut buffer = [0; 24];
        for ms in [0, 1, -1, 951_782_400_000, 1_369_303_200_123, 253_402_300_799_999, i64::MAX] {
            for style in [TimeStyle::Utc, TimeStyle::EpochMs] {
                assert_eq!(style.text_in(ms, &mut buffer), style.text(ms), "{ms}");
            }
        }
    }

    #[test]
    fn an_empty_cell_and_a_hyphen_differ() {
        let text = |bytes: &[u8]| Cell::Bytes(bytes.to_vec()).text(UnitStyle::Raw, TimeStyle::Utc);
        assert_eq!((text(b"").as_str(), text(b"-").as_str()), ("-", "\\x2d"));
    }
}
