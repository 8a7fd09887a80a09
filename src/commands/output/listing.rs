//! Lists: rows under columns, in every format, whole or as a stream.

use serde::Serialize;

use super::{
    cell::{Cell, Column},
    json,
    object::Object,
    table::{self, TableStyle},
    writer::{Format, Output},
};
use crate::commands::{
    failure::{Failure, Result},
    talk::Talk,
};

/// A row: one cell for each column.
pub(crate) type Row = Vec<Cell>;

/// Rows of a table that are laid out together; a longer stream is laid out in parts.
const TABLE_PAGE: usize = 1000;

/// What a list is called and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// The schema of its JSON form.
    pub schema: &'static str,
    /// Every column it knows.
    pub columns: &'static [Column],
    /// What is said on stderr where there is no row, in brackets.
    pub empty: &'static str,
}

/// A list that is being written.
pub struct Rows {
    listing: Listing,
    /// Positions in the listing's columns, in the order shown.
    shown: Vec<usize>,
    page: Vec<Row>,
    count: u64,
    has_begun: bool,
}

impl Output {
    /// Writes a whole list: sorted and cut as asked for.
    ///
    /// # Errors
    /// An unknown column is exit 2; else as [`Output::bytes`].
    pub fn list(&mut self, listing: Listing, rows: Vec<Row>, talk: &Talk) -> Result {
        self.list_first(listing, listing.columns.len(), rows, talk)
    }

    /// Writes a whole list, of which only the first columns are shown unless others are asked for.
    ///
    /// # Errors
    /// As [`Output::list`].
    pub fn list_first(
        &mut self,
        listing: Listing,
        count: usize,
        mut rows: Vec<Row>,
        talk: &Talk,
    ) -> Result {
        let mut stream = self.begin_first(listing, count)?;
        if let Some((name, is_downwards)) = self.options.sort.clone() {
            let index = position(&listing, &name)?;
            rows.sort_by(|a, b| {
                let order = compare(a.get(index), b.get(index));
                if is_downwards { order.reverse() } else { order }
            });
        }
        if let Some(limit) = self.options.limit {
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        for row in rows {
            stream.row(self, &row)?;
        }
        stream.end(self, talk)
    }

    /// Begins a list whose rows come one by one.
    ///
    /// # Errors
    /// An unknown column, or `-o raw` or `prometheus`, is exit 2.
    pub fn begin(&mut self, listing: Listing) -> Result<Rows> {
        self.begin_first(listing, listing.columns.len())
    }

    /// Begins a list of which only the first columns are shown unless others are asked for.
    ///
    /// # Errors
    /// As [`Output::begin`].
    pub fn begin_first(&mut self, listing: Listing, count: usize) -> Result<Rows> {
        self.refuse_special_formats()?;
        let shown = if self.options.columns.is_empty() {
            (0..count.min(listing.columns.len())).collect()
        } else {
            let names = self.options.columns.iter();
            names.map(|name| position(&listing, name)).collect::<Result<_>>()?
        };
        Ok(Rows { listing, shown, page: Vec::new(), count: 0, has_begun: false })
    }

    /// Refuses the formats that only single commands know.
    ///
    /// # Errors
    /// Exit 2.
    pub fn refuse_special_formats(&self) -> Result {
        let name = match self.options.format {
            Format::Raw => "raw",
            Format::Prometheus => "prometheus",
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("output format '{name}': this command does not know it"))
            .hint("one of: table, plain, json, ndjson, csv")
            .into())
    }
}

impl Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn row(&mut self, output: &mut Output, row: &[Cell]) -> Result {
        self.count += 1;
        let row: Row = self.shown.iter().filter_map(|index| row.get(*index).cloned()).collect();
        match output.options.format {
            Format::Table => {
                self.page.push(row);
                if self.page.len() == TABLE_PAGE { self.flush_page(output) } else { Ok(()) }
            }
            Format::Json => {
                let object = self.object(output, &row, None);
                self.json_item(output, &object)
            }
            Format::Ndjson => {
                let object = self.object(output, &row, Some(self.listing.schema));
                output.document(&object)
            }
            Format::Csv => {
                self.header(output)?;
                let time = output.options.time;
                let fields: Vec<_> = row.iter().map(|cell| cell.csv(time)).collect();
                csv_line(output, &fields)
            }
            Format::Plain | Format::Raw | Format::Prometheus => {
                self.header(output)?;
                let (units, time) = (output.options.units, output.options.time);
                let cells: Vec<_> = row.iter().map(|cell| cell.text(units, time)).collect();
                output.line(&cells.join("\t"))
            }
        }
    }

    /// Adds a row that is an object already, in one of the two JSON formats; as `ndjson` it begins with
    /// its schema.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn item(&mut self, output: &mut Output, object: &impl Serialize) -> Result {
        self.count += 1;
        match output.options.format {
            Format::Json => self.json_item(output, object),
            _ => output.document(object),
        }
    }

    /// Adds a line that is a row of `plain` already, with its line break.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn line(&mut self, output: &mut Output, line: &str) -> Result {
        self.count += 1;
        self.header(output)?;
        output.bytes(line.as_bytes())
    }

    /// Hands every row so far to the system: more may take its time.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn flush(&mut self, output: &mut Output) -> Result {
        match output.options.format {
            Format::Table if self.page.is_empty() => {}
            Format::Table => self.flush_page(output)?,
            Format::Plain | Format::Csv => self.header(output)?,
            _ => {}
        }
        output.flush()
    }

    /// Returns the positions of the columns that are shown, in order.
    pub fn shown(&self) -> &[usize] {
        &self.shown
    }

    /// Ends the list.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn end(mut self, output: &mut Output, talk: &Talk) -> Result {
        match output.options.format {
            Format::Table => self.flush_page(output)?,
            Format::Json if self.has_begun => output.bytes(b"\n  ]\n}\n")?,
            Format::Json => {
                let schema = serde_json::Value::from(self.listing.schema);
                output.line(&format!("{{\n  \"schema\": {schema},\n  \"items\": []\n}}"))?;
            }
            Format::Ndjson => {}
            _ => self.header(output)?,
        }
        output.flush()?;
        if self.count == 0 && output.options.format == Format::Table {
            talk.notice(self.listing.empty);
        }
        Ok(())
    }

    fn columns(&self) -> Vec<Column> {
        self.shown.iter().filter_map(|index| self.listing.columns.get(*index).copied()).collect()
    }

    fn object(&self, output: &Output, row: &Row, schema: Option<&str>) -> Object {
        let mut object = schema.map_or_else(Object::default, Object::document);
        for (cell, column) in row.iter().zip(self.columns()) {
            cell.add_to(&mut object, &column, output.options.time);
        }
        object
    }

    fn json_item(&mut self, output: &mut Output, object: &impl Serialize) -> Result {
        let schema = serde_json::Value::from(self.listing.schema);
        let before = if self.has_begun {
            ",\n".to_owned()
        } else {
            format!("{{\n  \"schema\": {schema},\n  \"items\": [\n")
        };
        self.has_begun = true;
        output.bytes(before.as_bytes())?;
        let mut text = Vec::new();
        json::write(&mut text, object, true, output.options.has_int_strings)
            .map_err(|error| Failure::io("write to standard output", &error.into()))?;
        let text = String::from_utf8_lossy(&text);
        // Line breaks inside strings are escaped, so each line of the text is one of its layout.
        output.bytes(format!("    {}", text.replace('\n', "\n    ")).as_bytes())
    }

    fn header(&mut self, output: &mut Output) -> Result {
        if self.has_begun || !output.options.has_headers {
            return Ok(());
        }
        self.has_begun = true;
        let names: Vec<_> = self.columns().iter().map(|column| column.name).collect();
        if output.options.format == Format::Csv {
            let fields: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            csv_line(output, &fields)
        } else {
            output.line(&names.join("\t"))
        }
    }

    fn flush_page(&mut self, output: &mut Output) -> Result {
        let has_header = !self.has_begun && output.options.has_headers;
        if self.page.is_empty() && !has_header {
            return Ok(());
        }
        let style = TableStyle {
            width: output.options.width.filter(|_| output.is_terminal),
            has_header,
            is_coloured: output.options.is_coloured,
        };
        let (units, time) = (output.options.units, output.options.time);
        let cells = |row: Row| row.iter().map(|cell| cell.text(units, time)).collect();
        let page: Vec<Vec<String>> =
            std::mem::take(&mut self.page).into_iter().map(cells).collect();
        self.has_begun = true;
        output.bytes(table::render(&self.columns(), &page, style).as_bytes())
    }
}

fn csv_line(output: &mut Output, fields: &[Vec<u8>]) -> Result {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    // A Vec takes every byte; the writer's types cannot say so.
    let is_written = writer.write_byte_record(&fields.iter().collect()).is_ok();
    match writer.into_inner() {
        Ok(line) if is_written => output.bytes(&line),
        _ => Err(Failure::of(prkdb_types::ErrorCode::Internal, "encode a CSV line").into()),
    }
}

fn position(listing: &Listing, name: &str) -> Result<usize> {
    let found = listing.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<_> = listing.columns.iter().map(|column| column.name).collect();
        Failure::usage(format!("unknown column '{name}'"))
            .hint(format!("one of: {}", names.join(", ")))
            .into()
    })
}

fn compare(a: Option<&Cell>, b: Option<&Cell>) -> std::cmp::Ordering {
    match (a, b) {
        (Some(Cell::Text(a)), Some(Cell::Text(b))) => a.cmp(b),
        (Some(Cell::Bytes(a)), Some(Cell::Bytes(b))) => a.cmp(b),
        (Some(Cell::Float(a)), Some(Cell::Float(b))) => a.total_cmp(b),
        (Some(Cell::Time(a)), Some(Cell::Time(b))) => a.cmp(b),
        (Some(a), Some(b)) => rank(a).cmp(&rank(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Numbers by size, what is absent first.
fn rank(cell: &Cell) -> (u8, u64) {
    match cell {
        Cell::Absent => (0, 0),
        Cell::Flag(is_set) => (1, u64::from(*is_set)),
        Cell::Number(n) | Cell::Size(n) | Cell::Duration(n) => (2, *n),
        Cell::List(texts) => (3, u64::try_from(texts.len()).unwrap_or(u64::MAX)),
        Cell::Text(_) | Cell::Bytes(_) | Cell::Float(_) | Cell::Time(_) => (4, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io, rc::Rc};

    use super::*;
    use crate::commands::{
        failure::Stop,
        output::{Kind, OutputOptions},
    };

    const LISTING: Listing = Listing {
        schema: "prkdb.things/1",
        columns: &[
            Column::new("NAME", "name", Kind::Bytes),
            Column::new("SIZE", "size", Kind::Size),
        ],
        empty: "(no things)",
    };

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rows() -> Vec<Row> {
        let row = |name: &[u8], size| vec![Cell::Bytes(name.to_vec()), Cell::Size(size)];
        vec![row(b"b\tc", 2048), row(b"\xff", 1)]
    }

    fn try_print(options: OutputOptions, rows: Vec<Row>) -> Result<String> {
        let shared = Shared::default();
        let mut output = Output::to(Box::new(shared.clone()), options);
        output.list(LISTING, rows, &Talk { is_quiet: true, ..Talk::plain() })?;
        let bytes = shared.0.borrow().clone();
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn print(format: Format, rows: Vec<Row>) -> String {
        try_print(OutputOptions { format, ..OutputOptions::plain() }, rows).unwrap()
    }

    #[test]
    fn plain_lines_have_the_same_number_of_tabs() {
        assert_eq!(print(Format::Plain, rows()), "NAME\tSIZE\nb\\tc\t2048\n\\xff\t1\n");
        assert_eq!(print(Format::Plain, vec![]), "NAME\tSIZE\n");
    }

    #[test]
    fn json_is_one_document_also_when_empty() {
        let document: serde_json::Value =
            serde_json::from_str(&print(Format::Json, rows())).unwrap();
        assert_eq!(document["items"][0]["name"], "b\tc");
        assert_eq!(document["items"][1]["name_b64"], "/w==");
        let empty: serde_json::Value = serde_json::from_str(&print(Format::Json, vec![])).unwrap();
        assert_eq!(empty["items"], serde_json::json!([]));
    }

    #[test]
    fn ndjson_is_one_object_for_each_row() {
        assert_eq!(
            print(Format::Ndjson, rows()),
            "{\"schema\":\"prkdb.things/1\",\"name\":\"b\\tc\",\"size_bytes\":2048}\n\
             {\"schema\":\"prkdb.things/1\",\"name_b64\":\"/w==\",\"size_bytes\":1}\n"
        );
    }

    #[test]
    fn columns_reorder_and_sort_turns_round() {
        let options = OutputOptions {
            columns: vec!["size".into(), "name".into()],
            sort: Some(("size".into(), false)),
            limit: Some(1),
            has_headers: false,
            ..OutputOptions::plain()
        };
        assert_eq!(try_print(options, rows()).unwrap(), "1\t\\xff\n");
    }

    #[test]
    fn an_unknown_column_is_a_usage_error_that_names_the_others() {
        let options = OutputOptions { columns: vec!["age".into()], ..OutputOptions::plain() };
        let Err(Stop::Failed(failure)) = try_print(options, rows()) else { panic!("accepted") };
        assert_eq!(failure.exit(), 2);
        assert_eq!(failure.hint_text().unwrap(), "one of: NAME, SIZE");
    }

    #[test]
    fn csv_keeps_bytes_and_quotes_what_needs_it() {
        let row = vec![Cell::Bytes(b"a,\"b\"".to_vec()), Cell::Size(1)];
        assert_eq!(print(Format::Csv, vec![row]), "NAME,SIZE\n\"a,\"\"b\"\"\",1\n");
    }
}
