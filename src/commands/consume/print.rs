//! How records are printed.

use std::fmt::Write as _;

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use prkdb_types::RecordView;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _, SerializeTuple as _},
};

use super::template::Template;
use crate::commands::{
    failure::{Failure, Result},
    output::{Cell, Column, Format, Kind, Listing, Output, Rows, TimeStyle, escape_into},
    talk::Talk,
};

const RECORDS: Listing = Listing {
    schema: "prkdb.consume/1",
    columns: &[
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("OFFSET", "offset", Kind::Number),
        Column::new("TIMESTAMP", "timestamp", Kind::Time),
        Column::new("KEY", "key", Kind::Bytes),
        Column::new("VALUE", "value", Kind::Bytes),
        Column::new("COLLECTION", "collection", Kind::Text),
        Column::new("HEADERS", "headers", Kind::Text),
    ],
    empty: "(no records)",
};

/// The columns that are shown where none are asked for; JSON has all.
const SHOWN: usize = 5;

/// What a column shows, in the order of the columns.
const FIELDS: [Field; RECORDS.columns.len()] = [
    Field::Partition,
    Field::Offset,
    Field::Timestamp,
    Field::Key,
    Field::Value,
    Field::Collection,
    Field::Headers,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Collection,
    Headers,
}

/// Prints records.
pub(crate) struct Printer {
    collection: String,
    form: Form,
    /// Holds one record.
    line: String,
}

enum Form {
    Rows { rows: Rows, fields: Vec<Field> },
    Template { template: Template, bytes: Vec<u8> },
}

impl Printer {
    /// Begins to print.
    ///
    /// # Errors
    /// An unknown column, or a form that does not go with a template, is exit 2.
    pub(crate) fn begin(
        output: &mut Output,
        collection: &str,
        template: Option<Template>,
    ) -> Result<Self> {
        let format = output.options.format;
        let form = if let Some(template) = template {
            if !matches!(format, Format::Table | Format::Plain) {
                return Err(Failure::usage("--format: not with another output format").into());
            }
            Form::Template { template, bytes: Vec::new() }
        } else {
            let count = if format.is_json() { RECORDS.columns.len() } else { SHOWN };
            let rows = output.begin_first(RECORDS, count)?;
            let fields = rows.shown().iter().filter_map(|index| FIELDS.get(*index).copied());
            let fields = fields.collect();
            Form::Rows { rows, fields }
        };
        Ok(Self { collection: collection.to_owned(), form, line: String::new() })
    }

    /// Prints a record.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn record(
        &mut self,
        output: &mut Output,
        partition: u32,
        record: &RecordView<'_>,
    ) -> Result {
        let collection = self.collection.as_str();
        let (rows, fields) = match &mut self.form {
            Form::Template { template, bytes } => {
                bytes.clear();
                if output.is_terminal {
                    template.add_escaped(bytes, collection, partition, record);
                } else {
                    template.add(bytes, collection, partition, record);
                }
                return output.bytes(bytes);
            }
            Form::Rows { rows, fields } => (rows, fields),
        };
        let time = output.options.time;
        let shown = Shown { collection, partition, record, time };
        match output.options.format {
            format @ (Format::Json | Format::Ndjson) => {
                let schema = (format == Format::Ndjson).then_some(RECORDS.schema);
                rows.item(output, &AsObject { schema, fields, shown })
            }
            Format::Plain => {
                self.line.clear();
                shown.add_line(&mut self.line, fields);
                rows.line(output, &self.line)
            }
            _ => {
                let cells: Vec<Cell> = FIELDS.iter().map(|field| shown.cell(*field)).collect();
                rows.row(output, &cells)
            }
        }
    }

    /// Hands over what was printed: the next record may take its time.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn flush(&mut self, output: &mut Output) -> Result {
        match &mut self.form {
            Form::Rows { rows, .. } => rows.flush(output),
            Form::Template { .. } => output.flush(),
        }
    }

    /// Ends what is printed.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn end(self, output: &mut Output, talk: Talk) -> Result {
        match self.form {
            Form::Rows { rows, .. } => rows.end(output, &talk),
            Form::Template { .. } => output.flush(),
        }
    }
}

/// A record with what is known beside it.
#[derive(Clone, Copy)]
struct Shown<'a> {
    collection: &'a str,
    partition: u32,
    record: &'a RecordView<'a>,
    time: TimeStyle,
}

impl Shown<'_> {
    fn add_line(&self, line: &mut String, fields: &[Field]) {
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                line.push('\t');
            }
            // Writing to a String cannot fail.
            let _ = match field {
                Field::Partition => write!(line, "{}", self.partition),
                Field::Offset => write!(line, "{}", self.record.offset),
                Field::Timestamp => {
                    line.push_str(&self.time.text_in(self.record.timestamp_ms, &mut [0; 24]));
                    Ok(())
                }
                Field::Key => {
                    add_bytes(line, self.record.key);
                    Ok(())
                }
                Field::Value => {
                    add_bytes(line, self.record.value);
                    Ok(())
                }
                Field::Collection => write!(line, "{}", self.collection),
                Field::Headers => {
                    self.add_headers(line);
                    Ok(())
                }
            };
        }
        line.push('\n');
    }

    /// `name=value` with commas between; a hyphen where there is none.
    fn add_headers(&self, line: &mut String) {
        let before = line.len();
        for (name, value) in self.record.headers() {
            if line.len() > before {
                line.push(',');
            }
            escape_into(line, name.as_bytes());
            line.push('=');
            escape_into(line, value.unwrap_or_default());
        }
        if line.len() == before {
            line.push('-');
        }
    }

    fn cell(&self, field: Field) -> Cell {
        let bytes =
            |bytes: Option<&[u8]>| bytes.map_or(Cell::Absent, |bytes| Cell::Bytes(bytes.to_vec()));
        match field {
            Field::Partition => Cell::Number(u64::from(self.partition)),
            Field::Offset => Cell::Number(self.record.offset),
            Field::Timestamp => Cell::Time(self.record.timestamp_ms),
            Field::Key => bytes(self.record.key),
            Field::Value => bytes(self.record.value),
            Field::Collection => Cell::Text(self.collection.to_owned()),
            Field::Headers => {
                let mut text = String::new();
                self.add_headers(&mut text);
                if text == "-" { Cell::Absent } else { Cell::Text(text) }
            }
        }
    }
}

/// As a cell of `plain` shows bytes: a hyphen stands for none.
fn add_bytes(line: &mut String, bytes: Option<&[u8]>) {
    match bytes {
        None | Some(b"") => line.push('-'),
        Some(b"-") => line.push_str("\\x2d"),
        Some(bytes) => escape_into(line, bytes),
    }
}

/// A record as a JSON object.
struct AsObject<'a> {
    schema: Option<&'static str>,
    fields: &'a [Field],
    shown: Shown<'a>,
}

impl Serialize for AsObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Shown { collection, partition, record, time } = self.shown;
        let mut map = serializer.serialize_map(None)?;
        if let Some(schema) = self.schema {
            map.serialize_entry("schema", schema)?;
        }
        for field in self.fields {
            match field {
                Field::Partition => map.serialize_entry("partition", &partition)?,
                Field::Offset => map.serialize_entry("offset", &record.offset)?,
                Field::Timestamp if time == TimeStyle::EpochMs => {
                    map.serialize_entry("timestamp", &record.timestamp_ms)?;
                }
                Field::Timestamp => {
                    let mut buffer = [0; 24];
                    let text = time.text_in(record.timestamp_ms, &mut buffer);
                    map.serialize_entry("timestamp", &*text)?;
                }
                Field::Key => bytes_entry(&mut map, ("key", "key_b64"), record.key)?,
                Field::Value => bytes_entry(&mut map, ("value", "value_b64"), record.value)?,
                Field::Collection => map.serialize_entry("collection", collection)?,
                Field::Headers => {
                    let is_text = |(_, value): (&str, Option<&[u8]>)| {
                        std::str::from_utf8(value.unwrap_or_default()).is_ok()
                    };
                    let is_text = record.headers().all(is_text);
                    let name = if is_text { "headers" } else { "headers_b64" };
                    map.serialize_entry(name, &Headers { record, is_text })?;
                }
            }
        }
        map.end()
    }
}

/// Text where the bytes are UTF-8, else base64 under the other name; null where there are none.
fn bytes_entry<M: serde::ser::SerializeMap>(
    map: &mut M,
    (name, name_b64): (&'static str, &'static str),
    bytes: Option<&[u8]>,
) -> std::result::Result<(), M::Error> {
    match bytes.map(std::str::from_utf8) {
        None => map.serialize_entry(name, &()),
        Some(Ok(text)) => map.serialize_entry(name, text),
        Some(Err(_)) => map.serialize_entry(name_b64, &AsBase64(bytes.unwrap_or_default())),
    }
}

struct AsBase64<'a>(&'a [u8]);

impl Serialize for AsBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// `[["name", "value"]]`.
struct Headers<'a> {
    record: &'a RecordView<'a>,
    is_text: bool,
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (name, value) in self.record.headers() {
            list.serialize_element(&Header { name, value, is_text: self.is_text })?;
        }
        list.end()
    }
}

struct Header<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
    is_text: bool,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(self.name)?;
        let value = self.value.unwrap_or_default();
        match std::str::from_utf8(value) {
            Ok(text) if self.is_text => pair.serialize_element(text)?,
            _ => pair.serialize_element(&AsBase64(value))?,
        }
        pair.end()
    }
}
