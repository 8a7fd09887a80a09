//! `prkdb wal info`: the segments of the logs.

use super::{
    args::InfoArgs,
    place::{Place, of_log},
    told,
};
use crate::{
    commands::{
        failure::Result,
        output::{Cell, Column, Kind, Listing},
        session::Session,
    },
    storage::log::inspect::{Depth, LogReport, SegmentReport, SegmentState},
};

const SEGMENTS: Listing = Listing {
    schema: "prkdb.wal-info/1",
    columns: &[
        Column::new("SHARD", "shard", Kind::Number),
        Column::new("SEGMENT", "segment", Kind::Number),
        Column::new("FIRST-INDEX", "first_index", Kind::Number),
        Column::new("LAST-INDEX", "last_index", Kind::Number),
        Column::new("RECORDS", "records", Kind::Number),
        Column::new("BYTES", "size", Kind::Size),
        Column::new("FIRST-TIME", "first_time", Kind::Time),
        Column::new("LAST-TIME", "last_time", Kind::Time),
        Column::new("CRC", "crc", Kind::Text),
        Column::new("STATE", "state", Kind::Text),
        Column::new("ENTRIES", "entries", Kind::Number),
        Column::new("USED", "used", Kind::Size),
        Column::new("FILE", "file", Kind::Text),
    ],
    empty: "(no segments)",
};

/// The columns that are shown where none are asked for; JSON has all.
const SHOWN: usize = 10;

/// Runs `wal info`.
///
/// # Errors
/// What keeps a log from being read at all; damage is only told.
pub(super) fn run(session: &mut Session, args: &InfoArgs) -> Result {
    session.output.begin(SEGMENTS)?;
    let place = Place::read(session, &args.read)?;
    let mut rows = Vec::new();
    for shard in place.shards(args.shard)? {
        let report =
            place.verify(shard, Depth::Checksums).map_err(|error| of_log(shard, &error))?;
        rows.extend(report.segments.iter().map(|segment| row(shard, &report, segment)));
        told::torn(session.talk, shard, &report);
        if let Some(damage) = &report.damage {
            session.talk.warning(&told::damage(shard, damage));
        }
    }
    let count =
        if session.output.options.format.is_json() { SEGMENTS.columns.len() } else { SHOWN };
    session.output.list_first(SEGMENTS, count, rows, &session.talk)
}

fn row(shard: u32, report: &LogReport, segment: &SegmentReport) -> Vec<Cell> {
    let number = |value: Option<u64>| value.map_or(Cell::Absent, Cell::Number);
    let time = |value: Option<i64>| value.map_or(Cell::Absent, Cell::Time);
    let is_read = segment.end > 0;
    let read = |cell: Cell| if is_read { cell } else { Cell::Absent };
    vec![
        Cell::Number(u64::from(shard)),
        Cell::Number(segment.number),
        number(segment.first_index),
        number(segment.last_index),
        read(Cell::Number(segment.records)),
        Cell::Size(segment.file_bytes),
        time(segment.first_time_ms),
        time(segment.last_time_ms),
        crc(report, segment),
        Cell::Text(segment.state.to_string()),
        read(Cell::Number(segment.entries)),
        read(Cell::Size(segment.end)),
        Cell::Text(told::file(&segment.path)),
    ]
}

/// Whether what was read of a segment matches its checksums.
fn crc(report: &LogReport, segment: &SegmentReport) -> Cell {
    let is_damaged = report.damage.as_ref().is_some_and(|damage| damage.path == segment.path);
    let is_torn = report.torn.iter().any(|torn| torn.path == segment.path);
    match segment.state {
        _ if is_damaged => Cell::from("bad"),
        _ if is_torn => Cell::from("torn"),
        SegmentState::Sealed | SegmentState::Active if segment.end > 0 => Cell::from("ok"),
        _ => Cell::Absent,
    }
}
