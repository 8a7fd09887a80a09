//! One JSON object on each line: `{"key": .., "value": ..}`, as `scan -o ndjson` prints them.

use std::io;

use prkdb_types::{
    headers::{TTL_MS, Ttl, TtlText},
    limits::MAX_TTL_MS,
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    Header, Item, Reader, Record, Scanner,
    delimited::too_long,
    json::{base64, value_bytes, wrong},
    scanner::Terminator,
};

/// Reads JSON lines.
pub struct JsonLines {
    lines: Lines,
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
    #[serde(default)]
    ttl_ms: Option<u64>,
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
        Self { lines: Lines::new(scanner, comment) }
    }
}

impl Reader for JsonLines {
    fn next(&mut self) -> io::Result<Option<Item>> {
        self.lines.next(parse)
    }

    fn skipped(&self) -> u64 {
        self.lines.skipped
    }

    fn may_wait(&self) -> bool {
        self.lines.may_wait()
    }
}

/// Lines that are not empty, of every format that has one record on each.
pub(super) struct Lines {
    scanner: Scanner,
    comment: Vec<u8>,
    /// Empty lines and comments so far.
    pub(super) skipped: u64,
}

impl Lines {
    /// Passes over lines that begin with `comment`, unless it is empty.
    pub(super) fn new(scanner: Scanner, comment: Vec<u8>) -> Self {
        Self { scanner, comment, skipped: 0 }
    }

    /// Returns the next line as `parse` reads it.
    pub(super) fn next(
        &mut self,
        parse: impl FnOnce(&[u8]) -> Result<Record, String>,
    ) -> io::Result<Option<Item>> {
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

    /// Returns whether the buffer holds no whole line.
    pub(super) fn may_wait(&self) -> bool {
        self.scanner.may_wait(b'\n')
    }
}

fn ttl_header(ttl_ms: u64) -> Result<Header, String> {
    if ttl_ms > MAX_TTL_MS {
        return Err(format!("'ttl_ms' is {ttl_ms}, limit {MAX_TTL_MS}"));
    }
    Ok((TTL_MS.to_owned(), TtlText::new(Ttl::Ms(ttl_ms)).as_bytes().to_vec()))
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| wrong(&error))?;
    let key = match (line.key, line.key_b64) {
        (Some(key), None) => key.into_bytes(),
        (None, Some(key)) => base64("key_b64", &key)?,
        (None, None) => return Err("no field 'key' or 'key_b64'".to_owned()),
        (Some(_), Some(_)) => return Err("both 'key' and 'key_b64'".to_owned()),
    };
    let value = match (line.value, line.value_b64) {
        (Some(value), None) => Some(value_bytes(value)?),
        (None, Some(value)) => Some(base64("value_b64", &value)?),
        (None, None) => None,
        (Some(_), Some(_)) => return Err("both 'value' and 'value_b64'".to_owned()),
    };
    match (line.op, value) {
        (Operation::Put, Some(value)) => {
            let headers = line.ttl_ms.map(ttl_header).transpose()?.into_iter().collect();
            Ok(Record { headers, ..Record::new(key, value) })
        }
        (Operation::Put, None) => Err("no field 'value' or 'value_b64'".to_owned()),
        (Operation::Delete, _) if line.ttl_ms.is_some() => {
            Err("'delete' takes no 'ttl_ms'".to_owned())
        }
        (Operation::Delete, None) => Ok(Record { key: Some(key), ..Record::default() }),
        (Operation::Delete, Some(_)) => Err("'delete' takes no value".to_owned()),
    }
}
