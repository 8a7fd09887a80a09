//! JSON with integers as numbers or as strings.
//!
//! A program that reads JSON numbers as 64-bit floats, as jq and JavaScript do, loses digits of
//! integers above 2^53: for it they are written as strings.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Writes integers in quotes, and the rest as `F` does.
struct IntStrings<F>(F);

/// Writes a value, over several lines if `is_pretty`.
///
/// # Errors
/// Those of the writer.
pub(super) fn write<W: io::Write>(
    writer: W,
    value: &impl Serialize,
    is_pretty: bool,
    has_int_strings: bool,
) -> serde_json::Result<()> {
    match (is_pretty, has_int_strings) {
        (true, false) => serde_json::to_writer_pretty(writer, value),
        (false, false) => serde_json::to_writer(writer, value),
        (true, true) => {
            let formatter = IntStrings(PrettyFormatter::new());
            value.serialize(&mut Serializer::with_formatter(writer, formatter))
        }
        (false, true) => {
            let formatter = IntStrings(CompactFormatter);
            value.serialize(&mut Serializer::with_formatter(writer, formatter))
        }
    }
}

impl<F: Formatter> Formatter for IntStrings<F> {
    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        write!(writer, "\"{value}\"")
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        write!(writer, "\"{value}\"")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, is_first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, is_first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_strings_and_the_layout_stays() {
        let value = json!({"a": [1, -2, 0.5, true, "3"], "b": u64::MAX});
        let text = |is_pretty, has_int_strings| {
            let mut bytes = Vec::new();
            write(&mut bytes, &value, is_pretty, has_int_strings).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(false, false), serde_json::to_string(&value).unwrap());
        assert_eq!(text(true, false), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(
            text(false, true),
            r#"{"a":["1","-2",0.5,true,"3"],"b":"18446744073709551615"}"#
        );
        let quoted = json!({"a": ["1", "-2", 0.5, true, "3"], "b": "18446744073709551615"});
        assert_eq!(text(true, true), serde_json::to_string_pretty(&quoted).unwrap());
    }
}
