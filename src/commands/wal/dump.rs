//! `prkdb wal dump`: what a log holds, in the order it was written.

use std::ops::ControlFlow;

use prkdb_types::{DecompressLimit, ErrorCode, RecordView};
use serde_json::Value;

use super::{
    args::DumpArgs,
    names::Names,
    place::{Place, of_log},
    raw, told,
};
use crate::{
    commands::{
        failure::{Failure, Result, Stop},
        output::{Cell, Column, Kind, Listing, Object, Rows, escape_into},
        session::Session,
    },
    storage::{
        kv::state::DECOMPRESSED_BYTES_MAX,
        log::{
            entry::{Control, Entry, Frame, Item, Payload},
            inspect::{LogReport, Visited},
        },
    },
};

const RECORDS: Listing = Listing {
    schema: "prkdb.wal-dump/1",
    columns: &[
        Column::new("OFFSET", "offset", Kind::Number),
        Column::new("INDEX", "index", Kind::Number),
        Column::new("TERM", "term", Kind::Number),
        Column::new("TYPE", "type", Kind::Text),
        Column::new("COLLECTION", "collection", Kind::Text),
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("KEY", "key", Kind::Bytes),
        Column::new("SIZE", "size", Kind::Size),
        Column::new("CRC", "crc", Kind::Text),
        Column::new("TIMESTAMP", "timestamp", Kind::Time),
        Column::new("SEGMENT", "segment", Kind::Number),
        Column::new("BYTE", "byte", Kind::Number),
        Column::new("LSN", "lsn", Kind::Number),
        Column::new("STREAM", "stream", Kind::Number),
        Column::new("DETAIL", "detail", Kind::Text),
        Column::new("VALUE", "value", Kind::Bytes),
        Column::new("HEADERS", "headers", Kind::Text),
    ],
    empty: "(no entries)",
};

/// The columns that are shown where none are asked for.
const SHOWN: usize = 9;
/// All but values and headers.
const WITHOUT_VALUES: usize = 15;
const HEADERS: usize = 16;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EntryKind {
    /// Record batches.
    Entry,
    /// Record batches that were refused afterwards.
    Void,
    /// The first entry of a leader.
    Blank,
    /// The replicas of the shard.
    Membership,
    /// A vote of this replica.
    Vote,
    /// Entries behind an index are gone.
    Truncate,
    /// Entries up to an index are history.
    Purge,
    /// What was synced.
    Sync,
}

impl EntryKind {
    /// Returns the kind of what was read.
    fn of(item: &Item) -> Self {
        match item {
            Item::Entry(Entry { is_void: true, .. }) => Self::Void,
            Item::Entry(entry) => match entry.payload {
                Payload::Normal(_) => Self::Entry,
                Payload::Blank => Self::Blank,
                Payload::Membership(_) => Self::Membership,
            },
            Item::Control(Control::Vote(_)) => Self::Vote,
            Item::Control(Control::Truncate(_)) => Self::Truncate,
            Item::Control(Control::Purge(_)) => Self::Purge,
            Item::Control(Control::Sync) => Self::Sync,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Void => "void",
            Self::Blank => "blank",
            Self::Membership => "membership",
            Self::Vote => "vote",
            Self::Truncate => "truncate",
            Self::Purge => "purge",
            Self::Sync => "sync",
        }
    }
}

/// Returns whether an entry is asked for.
pub(super) fn is_wanted(args: &DumpArgs, visited: &Visited<'_>) -> bool {
    let index = match visited.item {
        Item::Entry(entry) => Some(entry.id.index),
        Item::Control(_) => None,
    };
    let is_in_range = match index {
        Some(index) => {
            args.from.is_none_or(|from| from <= index) && args.to.is_none_or(|to| index <= to)
        }
        None => args.from.is_none() && args.to.is_none(),
    };
    is_in_range
        && args.segment.is_none_or(|number| number == visited.segment)
        && (args.kind.is_empty() || args.kind.contains(&EntryKind::of(visited.item)))
}

/// Runs `wal dump`.
///
/// # Errors
/// 12 where the log is damaged, after all that stands before it.
pub(super) fn run(session: &mut Session, args: &DumpArgs) -> Result {
    if session.output.options.sort.is_some() {
        let failure = Failure::usage("wal dump --sort: entries come in the order of the log");
        return Err(failure.into());
    }
    let is_json = session.output.options.format.is_json();
    let count = match (is_json, args.keys_only) {
        (false, _) => SHOWN,
        (true, true) => WITHOUT_VALUES,
        (true, false) => RECORDS.columns.len(),
    };
    // Wrong columns are refused before anything is opened.
    let rows = session.output.begin_first(RECORDS, count)?;
    let place = Place::read(session, &args.read)?;
    place.shards(Some(args.shard))?;
    if let Some(file) = &args.raw_batches {
        return raw::run(session, args, &place, file);
    }
    let mut dump =
        Dump { session, rows, names: Names::read(&place), shard: args.shard, left: None };
    dump.left = dump.session.output.options.limit;
    let mut ended = Ok(());
    let walked = place.walk(args.shard, |visited| {
        if !is_wanted(args, visited) {
            return ControlFlow::Continue(());
        }
        ended = dump.entry(visited);
        if ended.is_err() || dump.left == Some(0) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    ended?;
    let Dump { session, rows, .. } = dump;
    rows.end(&mut session.output, &session.talk)?;
    let report = walked.and_then(|report| place.confirmed(args.shard, report));
    end(session, args.shard, &report.map_err(|error| of_log(args.shard, &error))?)
}

/// Ends a command that has read a log: damage is an error although all before it was read.
pub(super) fn end(session: &Session, shard: u32, report: &LogReport) -> Result {
    told::torn(session.talk, shard, report);
    match &report.damage {
        None => Ok(()),
        Some(damage) => Err(Failure::of(ErrorCode::Corrupt, told::damage(shard, damage)).into()),
    }
}

struct Dump<'a> {
    session: &'a mut Session,
    rows: Rows,
    names: Names,
    shard: u32,
    /// Rows that may still be printed.
    left: Option<u64>,
}

impl Dump<'_> {
    /// Prints an entry: a line for each record, or one where it has none.
    fn entry(&mut self, visited: &Visited<'_>) -> Result {
        if let Item::Entry(Entry { payload: Payload::Normal(write), .. }) = visited.item {
            for frame in &write.frames {
                self.frame(visited, frame)?;
            }
            return Ok(());
        }
        let mut row = row(visited);
        row.crc = format!("{:08x}", visited.header.body_crc);
        row.size = u64::from(visited.header.body_len);
        row.detail = detail(visited);
        self.print(&row)
    }

    fn frame(&mut self, visited: &Visited<'_>, frame: &Frame) -> Result {
        let shard = self.shard;
        let wrong = |error: prkdb_types::BatchError| -> Stop {
            let at = visited.position;
            let message = format!("shard {shard}: segment {}: byte {at}: {error}", visited.segment);
            Failure::of(ErrorCode::Corrupt, message).into()
        };
        let limit = DecompressLimit::new(DECOMPRESSED_BYTES_MAX);
        let records = frame.batch.records(limit).map_err(wrong)?;
        let name = self.names.of(frame.partition);
        let (collection, number) =
            name.map_or((None, None), |(name, number)| (Some(name.to_owned()), Some(number)));
        for record in &records {
            let record = record.map_err(wrong)?;
            let mut row = row(visited);
            // An entry that is void has no offsets: those in its batches were given to others.
            row.offset = (!visited.header.is_void).then_some(record.offset);
            row.collection.clone_from(&collection);
            row.partition = number.map(u64::from);
            row.stream = Some(u64::from(frame.partition));
            row.crc = format!("{:08x}", frame.batch.crc());
            row.size =
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            row.record = Some(&record);
            self.print(&row)?;
            if self.left == Some(0) {
                break;
            }
        }
        Ok(())
    }

    fn print(&mut self, row: &Row<'_>) -> Result {
        if self.left == Some(0) {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        let output = &mut self.session.output;
        if !output.options.format.is_json() {
            return self.rows.row(output, &row.cells());
        }
        let mut object = if output.options.format == crate::commands::output::Format::Ndjson {
            Object::document(RECORDS.schema)
        } else {
            Object::default()
        };
        let cells = row.cells();
        for index in self.rows.shown() {
            let (Some(cell), Some(column)) = (cells.get(*index), RECORDS.columns.get(*index))
            else {
                continue;
            };
            if *index == HEADERS {
                row.add_headers(&mut object);
            } else {
                cell.add_to(&mut object, column, output.options.time);
            }
        }
        self.rows.item(output, &object)
    }
}

/// One line.
struct Row<'a> {
    offset: Option<u64>,
    index: Option<u64>,
    term: Option<u64>,
    kind: EntryKind,
    collection: Option<String>,
    partition: Option<u64>,
    stream: Option<u64>,
    size: u64,
    crc: String,
    segment: u64,
    byte: u64,
    lsn: u64,
    detail: Option<String>,
    record: Option<&'a RecordView<'a>>,
}

/// A line with what all lines of an entry have.
fn row<'a>(visited: &Visited<'_>) -> Row<'a> {
    let is_control = visited.header.kind.is_control();
    Row {
        offset: None,
        index: (!is_control).then_some(visited.header.index),
        term: (!is_control).then_some(visited.header.term),
        kind: EntryKind::of(visited.item),
        collection: None,
        partition: None,
        stream: None,
        size: 0,
        crc: String::new(),
        segment: visited.segment,
        byte: visited.position,
        lsn: visited.header.lsn,
        detail: None,
        record: None,
    }
}

impl Row<'_> {
    fn cells(&self) -> Vec<Cell> {
        let number = |value: Option<u64>| value.map_or(Cell::Absent, Cell::Number);
        let text = |value: &Option<String>| value.clone().map_or(Cell::Absent, Cell::Text);
        let bytes =
            |value: Option<&[u8]>| value.map_or(Cell::Absent, |bytes| Cell::Bytes(bytes.to_vec()));
        vec![
            number(self.offset),
            number(self.index),
            number(self.term),
            Cell::from(self.kind.name()),
            text(&self.collection),
            number(self.partition),
            bytes(self.record.and_then(|record| record.key)),
            Cell::Size(self.size),
            Cell::Text(self.crc.clone()),
            self.record.map_or(Cell::Absent, |record| Cell::Time(record.timestamp_ms)),
            Cell::Number(self.segment),
            Cell::Number(self.byte),
            Cell::Number(self.lsn),
            number(self.stream),
            text(&self.detail),
            bytes(self.record.and_then(|record| record.value)),
            self.headers(),
        ]
    }

    /// `name=value` with commas between.
    fn headers(&self) -> Cell {
        let mut text = String::new();
        for (name, value) in self.record.iter().flat_map(|record| record.headers()) {
            if !text.is_empty() {
                text.push(',');
            }
            escape_into(&mut text, name.as_bytes());
            text.push('=');
            escape_into(&mut text, value.unwrap_or_default());
        }
        if text.is_empty() { Cell::Absent } else { Cell::Text(text) }
    }

    /// `[["name", "value"]]`, as `consume` prints them; base64 where one is not UTF-8.
    fn add_headers(&self, object: &mut Object) {
        let Some(record) = self.record else {
            object.add("headers", Value::Null);
            return;
        };
        let is_text = record
            .headers()
            .all(|(_, value)| std::str::from_utf8(value.unwrap_or_default()).is_ok());
        let pairs = record.headers().map(|(name, value)| {
            let mut pair = Object::default();
            let value = value.unwrap_or_default();
            let member = pair.add_bytes("value", value).members().next();
            let shown = match (is_text, member) {
                (true, Some((_, text))) => text.clone(),
                _ => Value::from(base64(value)),
            };
            Value::from(vec![Value::from(name), shown])
        });
        let pairs: Vec<Value> = pairs.collect();
        object.add(if is_text { "headers" } else { "headers_b64" }, pairs);
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What a line says that has no record.
fn detail(visited: &Visited<'_>) -> Option<String> {
    Some(match visited.item {
        Item::Control(Control::Vote(vote)) => {
            let committed = if vote.is_committed { ", committed" } else { "" };
            format!("term {}, replica {}{committed}", vote.term, vote.replica)
        }
        Item::Control(Control::Truncate(Some(kept))) => format!("keeps up to {}", kept.index),
        Item::Control(Control::Truncate(None)) => "keeps nothing".to_owned(),
        Item::Control(Control::Purge(mark)) => format!("up to {}", mark.index),
        Item::Control(Control::Sync) => format!("up to lsn {}", visited.header.synced_lsn),
        Item::Entry(_) => return None,
    })
}
