//! CSV and TSV: RFC 4180 with quotes, line breaks inside quotes and doubled quotes.

use std::io;

use super::{Item, Place, Reader, Record, Scanner, delimited::too_long, scanner::Ends};
use crate::commands::output::Object;

/// A column, by its number from 1 or by its name in the first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnName {
    /// From 1.
    Number(usize),
    /// As in the first row.
    Name(String),
}

/// What is read of each row.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Between two fields.
    pub separator: u8,
    /// Whether the first row names the columns.
    pub has_header: bool,
    /// The columns of the key.
    pub key_columns: Vec<ColumnName>,
    /// Between two columns of a key.
    pub key_separator: Vec<u8>,
    /// The column of the value; `None` = the row as a JSON object.
    pub value_column: Option<ColumnName>,
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
    columns: usize,
    skipped: u64,
}

/// The first row.
#[derive(Clone, Debug)]
struct Header {
    names: Vec<String>,
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
            columns: 0,
            skipped: 0,
            options,
        };
        if table.options.has_header && table.next_row()? {
            let fields = table.fields().map_err(wrong)?;
            let names = fields.into_iter().map(String::from_utf8).collect::<Result<_, _>>();
            let names = names.map_err(|_| wrong("a column's name is not UTF-8"))?;
            table.header = Some(Header { names });
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
        let needed = self.keys.iter().chain(&self.value).max().map_or(0, |last| last + 1);
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
    fn fields(&self) -> Result<Vec<Vec<u8>>, String> {
        let mut fields = Vec::with_capacity(self.columns);
        let mut field = Vec::new();
        let mut state = State::FieldStart;
        for byte in self.scanner.content(b'\n') {
            state = match (state, *byte) {
                (State::FieldStart, b'"') => State::Quoted,
                (State::Quoted, b'"') => State::AfterQuote,
                (State::AfterQuote, b'"') => {
                    field.push(b'"');
                    State::Quoted
                }
                (State::Quoted, byte) => {
                    field.push(byte);
                    State::Quoted
                }
                (_, byte) if byte == self.options.separator => {
                    fields.push(std::mem::take(&mut field));
                    State::FieldStart
                }
                (_, byte) => {
                    field.push(byte);
                    State::Plain
                }
            };
        }
        if state == State::Quoted {
            return Err("a quote is not closed".to_owned());
        }
        fields.push(field);
        Ok(fields)
    }

    fn parse(&self) -> Result<Record, String> {
        if self.scanner.is_too_long {
            return Err(too_long());
        }
        let fields = self.fields()?;
        if fields.len() != self.columns {
            return Err(format!("{} columns, expected {}", fields.len(), self.columns));
        }
        let field = |index: &usize| fields.get(*index).map(Vec::as_slice).unwrap_or_default();
        let key =
            self.keys.iter().map(field).collect::<Vec<_>>().join(&*self.options.key_separator);
        if key.is_empty() {
            return Err("empty key".to_owned());
        }
        let value = match (&self.value, &self.header) {
            (Some(index), _) => field(index).to_vec(),
            (None, Some(header)) => row_object(&header.names, &fields)?,
            (None, None) => return Err("no column for the value".to_owned()),
        };
        Ok(Record { key, value: Some(value) })
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
}

/// The row as a JSON object of strings, in the order of the first row.
fn row_object(names: &[String], fields: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let mut object = Object::default();
    for (name, field) in names.iter().zip(fields) {
        let text = std::str::from_utf8(field)
            .map_err(|_| format!("column '{name}' is not UTF-8, which JSON needs"))?;
        object.add(name.as_str(), text);
    }
    serde_json::to_vec(&object).map_err(|error| error.to_string())
}

fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
