//! A line of a person's own: `%k\t%v\n`.

use prkdb_types::RecordView;

use crate::commands::{input::unescape, output::escape_into};

/// A format of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Collection,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

impl Template {
    /// Reads a format: C escapes, and codes that begin with `%`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            push_text(&mut parts, before)?;
            let code = after.chars().next().ok_or("'%' at the end; write %% for one")?;
            match code {
                'c' => parts.push(Part::Collection),
                'p' => parts.push(Part::Partition),
                'o' => parts.push(Part::Offset),
                'T' => parts.push(Part::Timestamp),
                'k' => parts.push(Part::Key),
                'v' => parts.push(Part::Value),
                'h' => parts.push(Part::Headers),
                '%' => parts.push(Part::Text(b"%".to_vec())),
                other => {
                    return Err(format!(
                        "unknown code %{other}; there are %c %p %o %T %k %v %h %%"
                    ));
                }
            }
            rest = after.get(code.len_utf8()..).unwrap_or_default();
        }
        push_text(&mut parts, rest)?;
        Ok(Self(parts))
    }

    /// Adds a record to `to`, its bytes as they are.
    pub(crate) fn add(
        &self,
        to: &mut Vec<u8>,
        collection: &str,
        partition: u32,
        record: &RecordView<'_>,
    ) {
        for part in &self.0 {
            match part {
                Part::Text(text) => to.extend_from_slice(text),
                Part::Collection => to.extend_from_slice(collection.as_bytes()),
                Part::Partition => add_number(to, partition),
                Part::Offset => add_number(to, record.offset),
                Part::Timestamp => add_number(to, record.timestamp_ms),
                Part::Key => to.extend_from_slice(record.key.unwrap_or_default()),
                Part::Value => to.extend_from_slice(record.value.unwrap_or_default()),
                Part::Headers => add_headers(to, record),
            }
        }
    }

    /// As [`Self::add`] for a terminal, which gets no control characters of stored data.
    pub(crate) fn add_escaped(
        &self,
        to: &mut Vec<u8>,
        collection: &str,
        partition: u32,
        record: &RecordView<'_>,
    ) {
        let mut raw = Vec::new();
        for part in &self.0 {
            if let Part::Text(text) = part {
                to.extend_from_slice(text);
                continue;
            }
            raw.clear();
            // A part is few bytes; a terminal is slow.
            Self(vec![part.clone()]).add(&mut raw, collection, partition, record);
            let mut text = String::new();
            escape_into(&mut text, &raw);
            to.extend_from_slice(text.as_bytes());
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        parts.push(Part::Text(unescape(text.as_bytes())?));
    }
    Ok(())
}

fn add_number(to: &mut Vec<u8>, number: impl std::fmt::Display) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _written = write!(to, "{number}");
}

/// `name=value`, with commas between.
fn add_headers(to: &mut Vec<u8>, record: &RecordView<'_>) {
    for (index, (name, value)) in record.headers().enumerate() {
        if index > 0 {
            to.push(b',');
        }
        to.extend_from_slice(name.as_bytes());
        to.push(b'=');
        to.extend_from_slice(value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use prkdb_types::{BatchBuilder, Compression, DecompressLimit, ProducerStamp};

    use super::*;

    fn shown(template: &str, key: Option<&[u8]>, value: &[u8]) -> (String, String) {
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        builder.push(1_356_998_400_000, key, Some(value), &[("a", b"1"), ("b", b"")]).unwrap();
        let batch = builder.finish().unwrap();
        let records = batch.records(DecompressLimit::new(1 << 20)).unwrap();
        let record = records.get(0).unwrap().unwrap();
        let template = Template::parse(template).unwrap();
        let (mut raw, mut escaped) = (Vec::new(), Vec::new());
        template.add(&mut raw, "c", 2, &record);
        template.add_escaped(&mut escaped, "c", 2, &record);
        (String::from_utf8(raw).unwrap(), String::from_utf8(escaped).unwrap())
    }

    #[test]
    fn codes_stand_for_the_parts_of_a_record() {
        let (raw, escaped) = shown(r"%c/%p/%o %T %k\t%v %h 100%%\n", Some(b"k"), b"v");
        assert_eq!(raw, "c/2/0 1356998400000 k\tv a=1,b= 100%\n");
        assert_eq!(escaped, raw);
        assert_eq!(shown("%k|%v", None, b"v").0, "|v");
    }

    #[test]
    fn a_terminal_gets_no_control_characters_of_stored_data() {
        let (raw, escaped) = shown("%v\n", None, b"\x1b[2J");
        assert_eq!((raw.as_str(), escaped.as_str()), ("\x1b[2J\n", "\\x1b[2J\n"));
    }

    #[test]
    fn an_unknown_code_is_refused() {
        for (text, part) in [("%", "at the end"), ("%x", "%x"), (r"\q", "escape"), ("%é", "%é")] {
            assert!(Template::parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
