//! One event on each line, as `consume -o ndjson` prints them:
//! `{"key", "value", "headers": [["k", "v"]], "timestamp", "partition"}`, with `_b64` for bytes.

use std::io;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    Header, Item, Reader, Record, Scanner, TimestampFormat,
    json::{base64, value_bytes, wrong},
    jsonl::Lines,
};

/// Reads envelopes.
pub struct Envelopes {
    lines: Lines,
    format: TimestampFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_b64: Option<String>,
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default)]
    value_b64: Option<String>,
    #[serde(default)]
    headers: Option<Vec<(String, String)>>,
    #[serde(default)]
    headers_b64: Option<Vec<(String, String)>>,
    #[serde(default, borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(default)]
    partition: Option<u32>,
    // What `consume` prints too.
    #[serde(default, rename = "schema")]
    _schema: IgnoredAny,
    #[serde(default, rename = "collection")]
    _collection: IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
}

/// A value of `null` is there: it is a tombstone.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Envelopes {
    /// Reads lines; those that begin with `comment` are passed over, unless it is empty.
    pub fn new(scanner: Scanner, comment: Vec<u8>, format: TimestampFormat) -> Self {
        Self { lines: Lines::new(scanner, comment), format }
    }
}

impl Reader for Envelopes {
    fn next(&mut self) -> io::Result<Option<Item>> {
        let format = &self.format;
        self.lines.next(|line| parse(line, format))
    }

    fn skipped(&self) -> u64 {
        self.lines.skipped
    }

    fn may_wait(&self) -> bool {
        self.lines.may_wait()
    }
}

fn parse(line: &[u8], format: &TimestampFormat) -> Result<Record, String> {
    let line: Envelope<'_> = serde_json::from_slice(line).map_err(|error| wrong(&error))?;
    let key = match (line.key, line.key_b64) {
        (Some(_), Some(_)) => return Err("both 'key' and 'key_b64'".to_owned()),
        (Some(key), None) => Some(key.into_bytes()),
        (None, Some(key)) => Some(base64("key_b64", &key)?),
        (None, None) => None,
    };
    let value = match (line.value, line.value_b64) {
        (Some(_), Some(_)) => return Err("both 'value' and 'value_b64'".to_owned()),
        (Some(value), None) if value.get() == "null" => None,
        (Some(value), None) => Some(value_bytes(value)?),
        (None, Some(value)) => Some(base64("value_b64", &value)?),
        (None, None) => return Err("no field 'value' or 'value_b64'".to_owned()),
    };
    let headers = match (line.headers, line.headers_b64) {
        (Some(_), Some(_)) => return Err("both 'headers' and 'headers_b64'".to_owned()),
        (Some(headers), None) => {
            headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
        }
        (None, Some(headers)) => decoded(headers)?,
        (None, None) => Vec::new(),
    };
    let timestamp_ms = line.timestamp.map(|value| timestamp(value, format)).transpose()?;
    Ok(Record { key, value, headers, timestamp_ms, partition: line.partition })
}

fn decoded(headers: Vec<(String, String)>) -> Result<Vec<Header>, String> {
    let one = |(name, value): (String, String)| {
        let value = base64(&format!("headers_b64 '{name}'"), &value)?;
        Ok((name, value))
    };
    headers.into_iter().map(one).collect()
}

/// A time is a string or a number.
pub(super) fn timestamp(value: &RawValue, format: &TimestampFormat) -> Result<i64, String> {
    format.read(&value_bytes(value)?)
}
