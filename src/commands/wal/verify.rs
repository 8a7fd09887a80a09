//! `prkdb wal verify`: whether the logs are what was written.

use prkdb_types::ErrorCode;

use super::{
    args::VerifyArgs,
    names::Names,
    place::{Place, of_log},
    told,
};
use crate::{
    commands::{
        failure::{Failure, Result},
        output::{Cell, Column, Kind, Listing},
        session::Session,
    },
    storage::log::inspect::{Depth, LogReport, SegmentState},
};

const LOGS: Listing = Listing {
    schema: "prkdb.wal-verify/1",
    columns: &[
        Column::new("SHARD", "shard", Kind::Number),
        Column::new("STATE", "state", Kind::Text),
        Column::new("SEGMENTS", "segments", Kind::Number),
        Column::new("ENTRIES", "entries", Kind::Number),
        Column::new("RECORDS", "records", Kind::Number),
        Column::new("LAST-INDEX", "last_index", Kind::Number),
        Column::new("FILE", "file", Kind::Text),
        Column::new("BYTE", "byte", Kind::Number),
        Column::new("INDEX", "index", Kind::Number),
        Column::new("FOLLOWING", "following", Kind::Number),
        Column::new("PROBLEM", "problem", Kind::Text),
    ],
    empty: "(no logs)",
};

/// Runs `wal verify`.
///
/// # Errors
/// 12 where a log is damaged or missing; 14 where it is of a newer version.
pub(super) fn run(session: &mut Session, args: &VerifyArgs) -> Result {
    session.output.begin(LOGS)?;
    let place = Place::read(session, &args.read)?;
    let depth = if args.deep { Depth::Records } else { Depth::Checksums };
    let shards = place.shards(args.shard)?;
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for shard in &shards {
        match place.verify(*shard, depth) {
            Ok(report) => {
                rows.push(row(*shard, &report));
                told::torn(session.talk, *shard, &report);
                failures.extend(
                    report.damage.as_ref().map(|damage| {
                        Failure::of(ErrorCode::Corrupt, told::damage(*shard, damage))
                    }),
                );
            }
            Err(error) => failures.push(of_log(*shard, &error)),
        }
    }
    if args.shard.is_none() {
        failures.extend(missing(&place, &shards));
    }
    session.output.list(LOGS, rows, &session.talk)?;
    told(session, &place, failures)
}

/// The shards that have no directory and should: numbers rise by one, and the catalogue names places.
pub(super) fn missing(place: &Place, shards: &[u32]) -> Vec<Failure> {
    let named = Names::read(place).shards();
    let end = shards.last().copied().max(named.last().copied()).map_or(0, |last| last + 1);
    let lost = (0..end).filter(|shard| !shards.contains(shard));
    let failure = |shard| {
        let path = place.dir().shard_path(shard);
        let message = format!("shard {shard}: missing: there is no {}", path.display());
        Failure::of(ErrorCode::Corrupt, message)
    };
    lost.map(failure).collect()
}

/// Tells every failure; the command ends with damage, if there is any, else with the first.
fn told(session: &Session, place: &Place, mut failures: Vec<Failure>) -> Result {
    let is_damage = |failure: &Failure| failure.code() == ErrorCode::Corrupt.name();
    let last = failures.iter().position(is_damage).unwrap_or(0);
    if last >= failures.len() {
        return Ok(());
    }
    let ending = failures.remove(last);
    for failure in &failures {
        session.talk.item_failed(&failure.message());
    }
    if !is_damage(&ending) {
        return Err(ending.into());
    }
    let path = place.dir().path().display();
    Err(ending
        .hint(format!(
            "restore a copy of the file, or cut the log there: prkdb wal repair --data-dir {path} --to DIR"
        ))
        .into())
}

fn row(shard: u32, report: &LogReport) -> Vec<Cell> {
    let number = |value: Option<u64>| value.map_or(Cell::Absent, Cell::Number);
    let segments = report
        .segments
        .iter()
        .filter(|segment| matches!(segment.state, SegmentState::Sealed | SegmentState::Active));
    let state = match (&report.damage, report.torn.as_slice()) {
        (Some(_), _) => "damaged",
        (None, []) => "ok",
        (None, _) => "torn",
    };
    let damage = report.damage.as_ref();
    vec![
        Cell::Number(u64::from(shard)),
        Cell::from(state),
        Cell::Number(segments.count() as u64),
        Cell::Number(report.entries),
        Cell::Number(report.records),
        number(report.last.map(|last| last.index)),
        damage.map_or(Cell::Absent, |damage| Cell::Text(told::file(&damage.path))),
        number(damage.map(|damage| damage.position)),
        number(damage.and_then(|damage| damage.index)),
        number(damage.map(|damage| damage.following.records)),
        damage.map_or(Cell::Absent, |damage| Cell::Text(damage.problem.to_string())),
    ]
}
