//! `prkdb wal repair`: ends damaged logs behind the last entry that can be read.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use prkdb_types::ErrorCode;

use super::{
    args::RepairArgs,
    names::{METADATA_SHARD, Names},
    place::{Place, lies_in, of_dir, of_log},
    told,
    verify::missing,
};
use crate::{
    commands::{
        failure::{Failure, Result},
        output::{Object, Output},
        session::Session,
        talk::Talk,
    },
    storage::{
        clock::{Clock as _, SystemClock},
        disk::{Disk as _, RealDisk},
        log::inspect::{self, CutPlan, Damage, Depth, LogReport},
    },
};

/// What a replica of which something was lost may never do again.
pub(super) const FORGETS: &str = "a replica whose log was cut may have forgotten a vote: if the shard has other replicas, it must \
     never vote again; begin it anew on an empty directory";

/// A log, and how it is cut if it is damaged.
struct Log {
    shard: u32,
    report: LogReport,
    plan: Option<CutPlan>,
}

impl Log {
    fn damage(&self) -> Option<&Damage> {
        self.report.damage.as_ref()
    }
}

/// Runs `wal repair`.
///
/// # Errors
/// 9 where it is not confirmed; 13 where the target is there already; 14 where a log is of a newer
/// version.
pub(super) fn run(session: &mut Session, args: &RepairArgs) -> Result {
    let place = if args.in_place {
        Place::change(session, &args.data_dir)?
    } else {
        Place::copy(&args.data_dir)?
    };
    let mut logs = Vec::new();
    let shards = place.shards(None)?;
    if let Some(missing) = missing(&place, &shards).into_iter().next() {
        return Err(missing.into());
    }
    for shard in shards.iter().copied() {
        let report =
            place.verify(shard, Depth::Checksums).map_err(|error| of_log(shard, &error))?;
        let plan = report.damage.is_some().then(|| CutPlan::at_end(&report));
        if let Some(plan) = &plan {
            check_history(shard, &report, plan)?;
        }
        logs.push(Log { shard, report, plan });
    }
    if logs.iter().all(|log| log.plan.is_none()) {
        return nothing(session, args);
    }
    if logs.iter().any(|log| log.shard == METADATA_SHARD && log.plan.is_some()) {
        check_catalogue(&place, &Names::read(&place), &shards)?;
    }
    if let Some(to) = &args.to {
        check_target(&args.data_dir, to)?;
    }
    let lost: u64 =
        logs.iter().filter_map(Log::damage).map(|damage| damage.following.records).sum();
    tell_plan(session.talk, &logs);
    let records =
        told::count(lost, "record that can still be read is", "records that can still be read are");
    let what = match &args.to {
        Some(to) => format!(
            "write a repaired copy of {} to {}: {records} left out",
            args.data_dir.display(),
            to.display()
        ),
        None => format!("repair {} in place: {records} cut off", args.data_dir.display()),
    };
    session.confirmation.destructive(&what)?;
    let now_ms = SystemClock::new().wall_ms();
    let aside = match &args.to {
        Some(to) => {
            copy(&place, &logs, to, now_ms)?;
            Vec::new()
        }
        None => cut(&place, &logs, now_ms)?,
    };
    match &args.to {
        Some(to) => check_result(&Place::copy(to)?)?,
        None => check_result(&place)?,
    }
    tell(&mut session.output, args, &logs, &aside)
}

fn nothing(session: &mut Session, args: &RepairArgs) -> Result {
    if session.output.options.format.is_json() {
        return session.output.document(&document(args, &[], &[]));
    }
    session.output.confirmation("no log is damaged: nothing to repair")
}

/// A log that was cleaned can be cut behind its checkpoint only.
///
/// # Errors
/// 12.
pub(super) fn check_history(shard: u32, report: &LogReport, plan: &CutPlan) -> Result {
    if !plan.loses_history(report) {
        return Ok(());
    }
    let message = format!(
        "shard {shard} cannot be cut there: its log was cleaned, and what stands before its last checkpoint \
         is needed whole"
    );
    let failure = Failure::of(ErrorCode::Corrupt, message);
    Err(failure.hint("restore a backup: prkdb backup restore FILE --data-dir DIR").into())
}

/// A catalogue that is cut must still name every partition that the other shards host.
///
/// # Errors
/// 12.
pub(super) fn check_catalogue(place: &Place, left: &Names, shards: &[u32]) -> Result {
    let Some(lost) = left.nameless(place, shards) else { return Ok(()) };
    let message = format!(
        "shard {METADATA_SHARD} cannot be cut there: {lost} would belong to no collection, and to another \
         one later"
    );
    let failure = Failure::of(ErrorCode::Corrupt, message);
    Err(failure.hint("restore its segments from a copy of the directory").into())
}

/// The target must be new: nothing in it is written over.
fn check_target(from: &Path, to: &Path) -> Result {
    let taken = RealDisk.exists(to);
    match taken.map_err(|error| Failure::io(format_args!("look for {}", to.display()), &error))? {
        false if lies_in(to, from) => {
            let message = format!("--to {}: it lies inside of the data directory", to.display());
            Err(Failure::usage(message).into())
        }
        false => Ok(()),
        true => {
            let taken = io::Error::from(io::ErrorKind::AlreadyExists);
            let failure = Failure::io(format_args!("create {}", to.display()), &taken);
            Err(failure.hint("name a directory that does not exist").into())
        }
    }
}

fn tell_plan(talk: Talk, logs: &[Log]) {
    for log in logs {
        let (Some(damage), Some(plan)) = (log.damage(), &log.plan) else { continue };
        talk.notice(&told::damage(log.shard, damage));
        talk.notice(&format!("  {}", loss(&log.report, damage)));
        for (path, kept) in plan.changes(&log.report) {
            let what = match kept {
                Some(len) => format!("is cut to {len} bytes"),
                None => "is set aside".to_owned(),
            };
            talk.notice(&format!("  {} {what}", told::file(path)));
        }
    }
    talk.notice(FORGETS);
}

/// Says what the log ends with, and what is lost behind it.
fn loss(report: &LogReport, damage: &Damage) -> String {
    let last = report.last.map(|last| last.index);
    let first = last.map_or(0, |last| last + 1);
    let ends = match last {
        Some(last) => format!("ends with index {last}"),
        None => "ends before its first entry".to_owned(),
    };
    let is_lost = |index: &u64| *index >= first;
    let mut lost = String::new();
    if let Some(highest) = damage.following.last_index.max(report.committed).filter(is_lost) {
        lost = format!("; indexes {first} to {highest} are lost");
        if let Some(committed) = report.committed.filter(is_lost) {
            // Writing to a String cannot fail.
            let _ = write!(lost, ", those up to {committed} look committed");
        }
    }
    let readable = told::count(damage.following.records, "record", "records");
    let committed = damage.following.committed_records;
    format!("the log {ends}{lost}; {readable} behind it can still be read, {committed} committed")
}

/// Writes a whole directory with the damaged logs cut. Its identity comes last: until then it is not a
/// data directory.
fn copy(place: &Place, logs: &[Log], to: &Path, now_ms: i64) -> Result {
    create(to)?;
    for log in logs {
        let name = place.dir().shard_path(log.shard);
        let dir = to.join(name.file_name().unwrap_or_default());
        create(&dir)?;
        inspect::copy_log(&RealDisk, (&name, &dir), &log.report, log.plan.as_ref(), now_ms)
            .map_err(|error| of_log(log.shard, &error))?;
    }
    RealDisk
        .sync_dir(to)
        .map_err(|error| Failure::io(format_args!("sync {}", to.display()), &error))?;
    place.dir().copy_identity(&RealDisk, to).map_err(|error| of_dir(&error))?;
    // Its name: who reads that it is repaired may remove what it was made of.
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    RealDisk
        .sync_dir(parent)
        .map_err(|error| Failure::io(format_args!("sync {}", parent.display()), &error).into())
}

fn create(dir: &Path) -> Result {
    let created = RealDisk.create_dir(dir);
    created.map_err(|error| Failure::io(format_args!("create {}", dir.display()), &error).into())
}

fn cut(place: &Place, logs: &[Log], now_ms: i64) -> Result<Vec<PathBuf>> {
    let mut aside = Vec::new();
    for log in logs {
        let Some(plan) = &log.plan else { continue };
        let dir = place.dir().shard_path(log.shard);
        let cut = inspect::cut_in_place(place.disk(), &dir, &log.report, plan, now_ms);
        aside.extend(cut.map_err(|error| of_log(log.shard, &error))?);
    }
    Ok(aside)
}

/// Reads what was written as a start would.
fn check_result(place: &Place) -> Result {
    for shard in place.shards(None)? {
        let report =
            place.verify(shard, Depth::Checksums).map_err(|error| of_log(shard, &error))?;
        if let Some(damage) = &report.damage {
            let message = format!("after the repair: {}", told::damage(shard, damage));
            return Err(Failure::of(ErrorCode::Corrupt, message).into());
        }
    }
    Ok(())
}

fn document(args: &RepairArgs, logs: &[Log], aside: &[PathBuf]) -> Object {
    let mut document = Object::document("prkdb.wal-repair/1");
    let repaired = logs.iter().filter_map(|log| Some((log, log.damage()?)));
    let items: Vec<Object> = repaired
        .map(|(log, damage)| {
            let mut object = Object::default();
            object
                .add("shard", log.shard)
                .add("last_index", log.report.last.map(|last| last.index))
                .add("lost_records", damage.following.records)
                .add("lost_committed_records", damage.following.committed_records);
            object
        })
        .collect();
    let result = args.to.as_deref().unwrap_or(&args.data_dir);
    let aside: Vec<String> = aside.iter().map(|path| path.display().to_string()).collect();
    document
        .add("changed", !items.is_empty())
        .add("data_dir", result.display().to_string())
        .add("shards", items)
        .add("set_aside", aside);
    document
}

fn tell(output: &mut Output, args: &RepairArgs, logs: &[Log], aside: &[PathBuf]) -> Result {
    if output.options.format.is_json() {
        return output.document(&document(args, logs, aside));
    }
    for log in logs {
        let Some(damage) = log.damage() else { continue };
        output.confirmation(&format!("shard {}: {}", log.shard, loss(&log.report, damage)))?;
    }
    for path in aside {
        output.confirmation(&format!("set aside {}", path.display()))?;
    }
    let result = args.to.as_deref().unwrap_or(&args.data_dir);
    output.confirmation(&format!("repaired {}", result.display()))
}
