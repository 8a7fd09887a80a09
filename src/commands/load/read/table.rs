//! CSV and TSV: RFC 4180 with quotes, line breaks inside quotes and doubled quotes.

use std::io;

use super::{
    Item, Place, Reader, Record, Scanner, TimestampFormat, delimited::too_long, scanner::Ends,
};

/// Most columns of a row: each takes memory of its own, however short it is.
const COLUMNS_MAX: usize = 16_384;

/// A column, by its number from 1 or by its name in the first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnName {
    /// From 1.
    Number(usize),
    /// As in the first row.
    Name(String),
}

impl ColumnName {
    /// Returns whether it is a name.
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

/// What is read of each row.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Between two fields.
    pub separator: u8,
    /// Whether the first row names the columns.
    pub has_header: bool,
    /// The columns of the key; none = rows have no key.
    pub key_columns: Vec<ColumnName>,
    /// Between two columns of a key.
    pub key_separator: Vec<u8>,
    /// The column of the value; `None` = the row as a JSON object.
    pub value_column: Option<ColumnName>,
    /// The column of the time, and how it is read.
    pub timestamp_column: Option<(ColumnName, TimestampFormat)>,
    /// What a line begins with to be passed over; empty = nothing.
    pub comment: Vec<u8>,
}

/// Reads rows.
pub struct Table {
    scanner: Scanner,
    options: TableOptions,
    header: Option<Header>,
    keys: Vec<usize>,
    value: Option<usize>,
    timestamp: Option<usize>,
    columns: usize,
    fields: Fields,
    skipped: u64,
}

/// The first row.
#[derive(Clone, Debug)]
struct Header {
    names: Vec<String>,
    /// What stands before each value in a JSON object: `{"name":` or `,"name":`.
    members: Vec<Vec<u8>>,
}

/// The fields of one row without their quotes, in memory that is used again.
#[derive(Debug, Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Ends a row at a line break outside of quotes.
struct RowEnds {
    separator: u8,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// A quote inside quotes: the end of the field, or half of a doubled one.
    AfterQuote,
}

impl Ends for RowEnds {
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            self.state = match (self.state, *byte) {
                (State::Quoted, b'"') => State::AfterQuote,
                (State::Quoted, _) | (State::AfterQuote | State::FieldStart, b'"') => State::Quoted,
                (_, b'\n') => return (at + 1, true),
                (_, byte) if byte == self.separator => State::FieldStart,
                _ => State::Plain,
            };
        }
        (bytes.len(), false)
    }
}

impl Table {
    /// Reads rows. The first one is read at once where it names the columns.
    ///
    /// # Errors
    /// `InvalidInput` with what is wrong about the columns, or those of the input.
    pub fn new(scanner: Scanner, options: TableOptions) -> io::Result<Self> {
        let mut table = Self {
            scanner,
            header: None,
            keys: Vec::new(),
            value: None,
            timestamp: None,
            columns: 0,
            fields: Fields::default(),
            skipped: 0,
            options,
        };
        if table.options.has_header && table.next_row()? {
            table.read_fields().map_err(wrong)?;
            table.header = Some(Header::new(&table.fields).map_err(wrong)?);
        }
        table.resolve().map_err(wrong)?;
        Ok(table)
    }

    /// Goes on at a later place of the same input.
    #[must_use]
    pub fn at(mut self, scanner: Scanner) -> Self {
        self.scanner = scanner;
        self
    }

    /// Returns the bytes of the first row, where it names the columns; call it before the next row.
    pub fn header_row(&self) -> Option<&[u8]> {
        self.header.as_ref().map(|_| self.scanner.raw.as_slice())
    }

    fn resolve(&mut self) -> Result<(), String> {
        let names = self.header.as_ref().map(|header| header.names.as_slice());
        let find = |column: &ColumnName| match (column, names) {
            (ColumnName::Number(number), _) => Ok(number - 1),
            (ColumnName::Name(name), Some(names)) => {
                let found = names.iter().position(|known| known == name);
                found.ok_or_else(|| {
                    format!("no column '{name}' in the first row: {}", names.join(", "))
                })
            }
            (ColumnName::Name(name), None) => {
                Err(format!("no first row to find column '{name}' in"))
            }
        };
        self.keys = self.options.key_columns.iter().map(find).collect::<Result<_, _>>()?;
        self.value = self.options.value_column.as_ref().map(find).transpose()?;
        let timestamp = self.options.timestamp_column.as_ref();
        self.timestamp = timestamp.map(|(column, _)| find(column)).transpose()?;
        let used = self.keys.iter().chain(&self.value).chain(&self.timestamp);
        let needed = used.max().map_or(0, |last| last + 1);
        self.columns = names.map_or(needed, <[String]>::len);
        if needed > self.columns {
            return Err(format!(
                "column {needed} is asked for, the first row has {}",
                self.columns
            ));
        }
        Ok(())
    }

    /// Reads the next row that is no comment and not empty.
    fn next_row(&mut self) -> io::Result<bool> {
        loop {
            let mut ends = RowEnds { separator: self.options.separator, state: State::FieldStart };
            if !self.scanner.next(&mut ends)? {
                return Ok(false);
            }
            let content = self.scanner.content(b'\n');
            let comment = &self.options.comment;
            let is_comment = !comment.is_empty() && content.starts_with(comment);
            if self.scanner.is_too_long || !(content.is_empty() || is_comment) {
                return Ok(true);
            }
            self.skipped += 1;
        }
    }

    /// Separates the fields of the row and takes their quotes away.
    fn read_fields(&mut self) -> Result<(), String> {
        self.split_fields()?;
        if self.fields.ends.len() > COLUMNS_MAX {
            return Err(format!("more than {COLUMNS_MAX} columns"));
        }
        Ok(())
    }

    fn split_fields(&mut self) -> Result<(), String> {
        self.fields.bytes.clear();
        self.fields.ends.clear();
        let mut state = State::FieldStart;
        for byte in self.scanner.content(b'\n') {
            state = match (state, *byte) {
                (State::FieldStart, b'"') => State::Quoted,
                (State::Quoted, b'"') => State::AfterQuote,
                (State::AfterQuote, b'"') => {
                    self.fields.bytes.push(b'"');
                    State::Quoted
                }
                (State::Quoted, byte) => {
                    self.fields.bytes.push(byte);
                    State::Quoted
                }
                (_, byte) if byte == self.options.separator => {
                    self.fields.end();
                    State::FieldStart
                }
                (_, byte) => {
                    self.fields.bytes.push(byte);
                    State::Plain
                }
            };
        }
        if state == State::Quoted {
            return Err("a quote is not closed".to_owned());
        }
        self.fields.end();
        Ok(())
    }

    fn parse(&mut self) -> Result<Record, String> {
        if self.scanner.is_too_long {
            return Err(too_long());
        }
        self.read_fields()?;
        let fields = &self.fields;
        if fields.ends.len() != self.columns {
            return Err(format!("{} columns, expected {}", fields.ends.len(), self.columns));
        }
        let key = match self.keys.as_slice() {
            [] => None,
            [only] => Some(fields.get(*only).to_vec()),
            several => {
                let parts: Vec<&[u8]> = several.iter().map(|index| fields.get(*index)).collect();
                Some(parts.join(&*self.options.key_separator))
            }
        };
        let value = match (&self.value, &self.header) {
            (Some(index), _) => fields.get(*index).to_vec(),
            (None, Some(header)) => header.object(fields)?,
            (None, None) => return Err("no column for the value".to_owned()),
        };
        let timestamp_ms = match (&self.timestamp, &self.options.timestamp_column) {
            (Some(index), Some((_, format))) => Some(format.read(fields.get(*index))?),
            _ => None,
        };
        Ok(Record { key, value: Some(value), timestamp_ms, ..Record::default() })
    }
}

impl Fields {
    /// Ends the field that is being read; of those beyond the limit one is enough to be refused.
    fn end(&mut self) {
        if self.ends.len() <= COLUMNS_MAX {
            self.ends.push(self.bytes.len());
        }
    }

    /// Returns a field; empty where there is none.
    fn get(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.bytes.get(begin.unwrap_or_default()..end).unwrap_or_default()
    }
}

impl Header {
    /// Reads the names of the columns.
    fn new(fields: &Fields) -> Result<Self, String> {
        let mut header = Self { names: Vec::new(), members: Vec::new() };
        for index in 0..fields.ends.len() {
            let name = std::str::from_utf8(fields.get(index));
            let name = name.map_err(|_| "a column's name is not UTF-8".to_owned())?;
            let quoted = serde_json::to_string(name).map_err(|error| error.to_string())?;
            let before = if index == 0 { '{' } else { ',' };
            header.names.push(name.to_owned());
            header.members.push(format!("{before}{quoted}:").into_bytes());
        }
        Ok(header)
    }

    /// The row as a JSON object of strings, in the order of the first row.
    fn object(&self, fields: &Fields) -> Result<Vec<u8>, String> {
        let names: usize = self.members.iter().map(Vec::len).sum();
        let mut object =
            Vec::with_capacity(names + fields.bytes.len() + 2 * self.members.len() + 1);
        for (index, member) in self.members.iter().enumerate() {
            let text = std::str::from_utf8(fields.get(index)).map_err(|_| {
                let name = self.names.get(index).map_or("", String::as_str);
                format!("column '{name}' is not UTF-8, which JSON needs")
            })?;
            object.extend_from_slice(member);
            serde_json::to_writer(&mut object, text).map_err(|error| error.to_string())?;
        }
        object.push(b'}');
        Ok(object)
    }
}

impl Reader for Table {
    fn next(&mut self) -> io::Result<Option<Item>> {
        let start = self.scanner.place;
        if !self.next_row()? {
            return Ok(None);
        }
        // A record begins behind the empty lines before it, but a resumed run may begin at them.
        let length = u64::try_from(self.scanner.raw.len()).unwrap_or(0);
        let lines =
            u64::try_from(memchr::memchr_iter(b'\n', &self.scanner.raw).count()).unwrap_or(0);
        let start = if self.scanner.is_too_long {
            start
        } else {
            let end = self.scanner.place;
            Place { offset: end.offset - length, line: end.line - lines, ..start }
        };
        self.scanner.place.record += 1;
        let content = self.parse();
        let raw = std::mem::take(&mut self.scanner.raw);
        Ok(Some(Item { start, end: self.scanner.place, content, raw }))
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn may_wait(&self) -> bool {
        // A line break inside of quotes is rare, and costs no more than a wait.
        self.scanner.may_wait(b'\n')
    }
}

fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
