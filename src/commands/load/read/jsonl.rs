//! One JSON object on each line: `{"key": .., "value": ..}`, as `scan -o ndjson` prints them.

use std::io;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{Item, Reader, Record, Scanner, delimited::too_long, scanner::Terminator};

/// Reads JSON lines.
pub struct JsonLines {
    scanner: Scanner,
    comment: Vec<u8>,
    skipped: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_b64: Option<String>,
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default)]
    value_b64: Option<String>,
    #[serde(default)]
    op: Operation,
    // What `scan` prints too.
    #[serde(default, rename = "schema")]
    _schema: IgnoredAny,
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    #[serde(default, rename = "partition")]
    _partition: IgnoredAny,
    #[serde(default, rename = "timestamp")]
    _timestamp: IgnoredAny,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    #[default]
    Put,
    Delete,
}

/// A value of `null` is there, as the text `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl JsonLines {
    /// Reads lines; those that begin with `comment` are passed over, unless it is empty.
    pub fn new(scanner: Scanner, comment: Vec<u8>) -> Self {
        Self { scanner, comment, skipped: 0 }
    }
}

impl Reader for JsonLines {
    fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            let start = self.scanner.place;
            if !self.scanner.next(&mut Terminator(b'\n'))? {
                return Ok(None);
            }
            let line = self.scanner.content(b'\n');
            let is_comment = !self.comment.is_empty() && line.starts_with(&self.comment);
            if !self.scanner.is_too_long && (line.trim_ascii().is_empty() || is_comment) {
                self.skipped += 1;
                continue;
            }
            let content = if self.scanner.is_too_long { Err(too_long()) } else { parse(line) };
            self.scanner.place.record += 1;
            let raw = std::mem::take(&mut self.scanner.raw);
            return Ok(Some(Item { start, end: self.scanner.place, content, raw }));
        }
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // The line is named before it; only the column says more.
        let end = text.find(" at line 1 column").unwrap_or(text.len());
        format!("{} at column {}", text.get(..end).unwrap_or(&text), error.column())
    })?;
    let key = match (line.key, line.key_b64) {
        (Some(key), None) => key.into_bytes(),
        (None, Some(key)) => base64("key_b64", &key)?,
        (None, None) => return Err("no field 'key' or 'key_b64'".to_owned()),
        (Some(_), Some(_)) => return Err("both 'key' and 'key_b64'".to_owned()),
    };
    if key.is_empty() {
        return Err("empty key".to_owned());
    }
    let value = match (line.value, line.value_b64) {
        (Some(value), None) => Some(value_bytes(value)?),
        (None, Some(value)) => Some(base64("value_b64", &value)?),
        (None, None) => None,
        (Some(_), Some(_)) => return Err("both 'value' and 'value_b64'".to_owned()),
    };
    match (line.op, value) {
        (Operation::Put, Some(value)) => Ok(Record { key, value: Some(value) }),
        (Operation::Put, None) => Err("no field 'value' or 'value_b64'".to_owned()),
        (Operation::Delete, None) => Ok(Record { key, value: None }),
        (Operation::Delete, Some(_)) => Err("'delete' takes no value".to_owned()),
    }
}

/// A string is its text, everything else its JSON without spaces between its parts.
fn value_bytes(value: &RawValue) -> Result<Vec<u8>, String> {
    if value.get().starts_with('"') {
        let text: String = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        return Ok(text.into_bytes());
    }
    let mut compact = Vec::with_capacity(value.get().len());
    let mut is_inside = false;
    let mut is_escaped = false;
    for byte in value.get().bytes() {
        if !is_inside && byte.is_ascii_whitespace() {
            continue;
        }
        compact.push(byte);
        is_inside ^= byte == b'"' && !is_escaped;
        is_escaped = is_inside && byte == b'\\' && !is_escaped;
    }
    Ok(compact)
}

fn base64(name: &str, text: &str) -> Result<Vec<u8>, String> {
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).map_err(|error| format!("{name}: {}", error.to_string().to_lowercase()))
}
