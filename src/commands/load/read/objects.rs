//! One JSON object on each line, which is the value; key and time are read from its fields.

use std::{fmt, io};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Item, Reader, Record, Scanner, TimestampFormat,
    envelope::timestamp,
    json::{value_bytes, wrong},
    jsonl::Lines,
};

/// The fields that are read.
#[derive(Clone, Debug, Default)]
pub struct ObjectFields {
    /// The field of the key.
    pub key: Option<String>,
    /// The field of the time.
    pub timestamp: Option<String>,
    /// How the time is read.
    pub format: TimestampFormat,
}

/// Reads objects.
pub struct Objects {
    lines: Lines,
    fields: ObjectFields,
}

impl Objects {
    /// Reads lines; those that begin with `comment` are passed over, unless it is empty.
    pub fn new(scanner: Scanner, comment: Vec<u8>, fields: ObjectFields) -> Self {
        Self { lines: Lines::new(scanner, comment), fields }
    }
}

impl Reader for Objects {
    fn next(&mut self) -> io::Result<Option<Item>> {
        let fields = &self.fields;
        self.lines.next(|line| parse(line, fields))
    }

    fn skipped(&self) -> u64 {
        self.lines.skipped
    }

    fn may_wait(&self) -> bool {
        self.lines.may_wait()
    }
}

fn parse(line: &[u8], fields: &ObjectFields) -> Result<Record, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = Wanted(fields).deserialize(&mut json).map_err(|error| wrong(&error))?;
    json.end().map_err(|error| wrong(&error))?;
    let missing = |name: &str| format!("no field '{name}'");
    let key = match &fields.key {
        Some(name) => match found.key.ok_or_else(|| missing(name))? {
            value if value.get() == "null" => None,
            value => Some(value_bytes(value)?),
        },
        None => None,
    };
    let timestamp_ms = match &fields.timestamp {
        Some(name) => {
            let value = found.timestamp.ok_or_else(|| missing(name))?;
            Some(timestamp(value, &fields.format)?)
        }
        None => None,
    };
    let value = Some(line.trim_ascii().to_vec());
    Ok(Record { key, value, timestamp_ms, ..Record::default() })
}

/// What was found of the fields.
#[derive(Default)]
struct Found<'de> {
    key: Option<&'de RawValue>,
    timestamp: Option<&'de RawValue>,
}

/// Looks for the fields in an object; the rest is only checked.
struct Wanted<'a>(&'a ObjectFields);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Found<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Found<'de>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Found<'de>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::default();
        while let Some(uses) = map.next_key_seed(Name(self.0))? {
            if uses == (Uses { key: false, timestamp: false }) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&RawValue>()?;
            found.key = if uses.key { Some(value) } else { found.key };
            found.timestamp = if uses.timestamp { Some(value) } else { found.timestamp };
        }
        Ok(found)
    }
}

/// What a field is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Uses {
    key: bool,
    timestamp: bool,
}

/// Compares the name of a field without keeping it.
struct Name<'a>(&'a ObjectFields);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Uses;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Uses, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Uses;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Uses, E> {
        let is = |field: &Option<String>| field.as_deref() == Some(name);
        Ok(Uses { key: is(&self.0.key), timestamp: is(&self.0.timestamp) })
    }
}
