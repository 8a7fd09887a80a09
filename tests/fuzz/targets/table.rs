//! CSV and TSV.

use std::io;

use prkdb::commands::load::read::{
    ColumnName, Input, Place, Reader, Scanner, Table, TableOptions, TimestampFormat,
};

use super::{
    readers,
    source::{Source, text},
};

/// Flags: tabs, a first row with names, two key columns, no column of the value, a time.
const TABS: u8 = 1;
const HEADER: u8 = 2;
const TWO_KEYS: u8 = 4;
const OBJECT: u8 = 8;
const TIME: u8 = 16;

fn options(flags: u8, comment: &[u8], named: &str) -> TableOptions {
    let has_header = flags & HEADER != 0;
    let first = match named {
        name if has_header && !name.is_empty() => ColumnName::Name(name.to_owned()),
        _ => ColumnName::Number(1),
    };
    let mut key_columns = vec![first];
    if flags & TWO_KEYS != 0 {
        key_columns.push(ColumnName::Number(3));
    }
    TableOptions {
        separator: if flags & TABS != 0 { b'\t' } else { b',' },
        has_header,
        key_columns,
        key_separator: b"|".to_vec(),
        value_column: (flags & OBJECT == 0).then_some(ColumnName::Number(2)),
        timestamp_column: (flags & TIME != 0)
            .then_some((ColumnName::Number(2), TimestampFormat::Auto)),
        comment: comment.to_vec(),
    }
}

/// Flags, size of the pieces, where it goes on, comment, the key's column, content.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (flags, buffer, resume) = (source.byte(), source.byte(), source.byte());
    let comment = source.piece();
    let options = options(flags, comment, text(source.piece()));
    let content = source.rest();
    readers::check(content, buffer.into(), resume.into(), &|input, place| {
        begin(content, input, &options, place)
    });
}

fn begin(
    content: &[u8],
    input: Input,
    options: &TableOptions,
    place: Place,
) -> io::Result<Box<dyn Reader>> {
    if place.offset == 0 {
        let table = Table::new(Scanner::new(input, place)?, options.clone())?;
        let _header = table.header_row().map(<[u8]>::len);
        return Ok(Box::new(table));
    }
    // A run that goes on reads the first row where it stands, and the rest from the place on.
    let first: Box<dyn io::Read + Send> = Box::new(io::Cursor::new(content.to_vec()));
    let first = Scanner::new(io::BufReader::new(first), Place::default())?;
    let table = Table::new(first, options.clone())?;
    Ok(Box::new(table.at(Scanner::new(input, place)?)))
}

/// Quotes, line breaks in quotes, names, times.
pub fn seeds() -> Vec<Vec<u8>> {
    let csv = b"\x01#\x02idid,at,n\r\n7,\"1,385\"\"\n0\",x\n#c\n\n8,1385000000,\"y\"\n9,\"open";
    let tsv = b"\0\0a\t2013-06-01T10:00:00Z\t1\nb\t1385000000000\t2\n";
    let mut seeds = Vec::new();
    for flags in [0, HEADER, HEADER | OBJECT, TWO_KEYS, HEADER | TIME] {
        seeds.push([&[flags, 5, 1][..], csv].concat());
        seeds.push([&[flags | TABS | TIME, 5, 1][..], tsv].concat());
    }
    seeds
}
