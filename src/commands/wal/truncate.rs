//! `prkdb wal truncate`: ends a sound log behind an entry.

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf};

use super::{
    args::TruncateArgs,
    dump,
    names::{METADATA_SHARD, Names},
    place::{Place, of_log},
    repair::{FORGETS, check_catalogue, check_history},
    told,
};
use crate::{
    commands::{
        failure::{Failure, Result},
        output::Object,
        session::Session,
    },
    storage::{
        clock::{Clock as _, SystemClock},
        log::{
            entry::{Control, Item},
            inspect::{self, CutPlan, LogReport, Visited},
        },
    },
};

/// Where the entry stands that is the last one afterwards, and what stands behind it.
struct Search {
    after: u64,
    /// Segment, and where the entry ends in it.
    found: Option<(u64, u64)>,
    /// Records of the entries behind it, by index.
    behind: BTreeMap<u64, u64>,
}

impl Search {
    fn take(&mut self, visited: &Visited<'_>) {
        match visited.item {
            Item::Entry(entry) => {
                let index = entry.id.index;
                if index == self.after {
                    self.found = Some((visited.segment, visited.end));
                } else if index > self.after {
                    self.behind.insert(index, inspect::records(visited.item));
                }
            }
            // Entries that an older truncation took away may come again, elsewhere.
            Item::Control(Control::Truncate(kept)) => {
                let first_gone = kept.map_or(0, |kept| kept.index + 1);
                self.behind.split_off(&first_gone);
                if self.after >= first_gone {
                    self.found = None;
                }
            }
            Item::Control(_) => {}
        }
    }
}

/// Runs `wal truncate`.
///
/// # Errors
/// 2 where there is no entry with that index; 9 where it is not confirmed; 12 where the log is damaged.
pub(super) fn run(session: &mut Session, args: &TruncateArgs) -> Result {
    let place = Place::change(session, &args.data_dir)?;
    place.shards(Some(args.shard))?;
    let mut search = Search { after: args.after, found: None, behind: BTreeMap::new() };
    let walked = place.walk(args.shard, |visited| {
        search.take(visited);
        ControlFlow::Continue(())
    });
    let report = walked.map_err(|error| of_log(args.shard, &error))?;
    // What is damaged is repaired, not truncated: where it ends is then no choice.
    dump::end(session, args.shard, &report)?;
    if report.last.is_none_or(|last| last.index <= args.after) {
        return tell(session, args, &report, None);
    }
    let Some(keep) = search.found.filter(|_| report.purged.is_none_or(|mark| mark < args.after))
    else {
        let message =
            format!("--after {}: the log of shard {} has no such entry", args.after, args.shard);
        return Err(Failure::usage(message)
            .hint("prkdb wal info prints the indexes it has")
            .into());
    };
    if args.shard == METADATA_SHARD {
        let left = Names::read_to(&place, args.after);
        check_catalogue(&place, &left, &place.shards(None)?)?;
    }
    let plan = CutPlan::behind(&report, Some(keep));
    check_history(args.shard, &report, &plan)?;
    let records: u64 = search.behind.values().sum();
    let committed: u64 = search
        .behind
        .iter()
        .filter(|(index, _)| report.committed.is_some_and(|committed| **index <= committed))
        .map(|(_, records)| records)
        .sum();
    for (path, kept) in plan.changes(&report) {
        let what = kept.map_or("is set aside".to_owned(), |len| format!("is cut to {len} bytes"));
        session.talk.notice(&format!("{} {what}", told::file(path)));
    }
    session.talk.notice(FORGETS);
    let entries = told::count(search.behind.len() as u64, "entry", "entries");
    let lost = told::count(records, "record", "records");
    session.confirmation.destructive(&format!(
        "cut {entries} with {lost}, {committed} of them committed, off the log of shard {} in {}",
        args.shard,
        args.data_dir.display()
    ))?;
    let dir = place.dir().shard_path(args.shard);
    let now_ms = SystemClock::new().wall_ms();
    let aside = inspect::cut_in_place(place.disk(), &dir, &report, &plan, now_ms)
        .map_err(|error| of_log(args.shard, &error))?;
    let cut = Cut { entries: search.behind.len() as u64, records, committed, aside };
    tell(session, args, &report, Some(&cut))
}

/// What was cut off.
struct Cut {
    entries: u64,
    records: u64,
    committed: u64,
    aside: Vec<PathBuf>,
}

fn tell(
    session: &mut Session,
    args: &TruncateArgs,
    report: &LogReport,
    cut: Option<&Cut>,
) -> Result {
    let last = report.last.map(|last| last.index);
    if session.output.options.format.is_json() {
        let aside = cut.map_or(&[][..], |cut| cut.aside.as_slice()).iter();
        let aside: Vec<String> = aside.map(|path| path.display().to_string()).collect();
        let mut document = Object::document("prkdb.wal-truncate/1");
        document
            .add("shard", args.shard)
            .add("changed", cut.is_some())
            .add("last_index", cut.map_or(last, |_| Some(args.after)))
            .add("lost_entries", cut.map_or(0, |cut| cut.entries))
            .add("lost_records", cut.map_or(0, |cut| cut.records))
            .add("lost_committed_records", cut.map_or(0, |cut| cut.committed))
            .add("set_aside", aside);
        return session.output.document(&document);
    }
    let Some(cut) = cut else {
        let last =
            last.map_or("it is empty".to_owned(), |last| format!("it ends with index {last}"));
        return session.output.confirmation(&format!("nothing to cut: {last}"));
    };
    for path in &cut.aside {
        session.output.confirmation(&format!("set aside {}", path.display()))?;
    }
    let text = format!("the log of shard {} ends with index {}", args.shard, args.after);
    session.output.confirmation(&text)
}
