//! `prkdb wal dump --raw-batches`: the record batches of a log for readers of Kafka's format.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    ops::ControlFlow,
    path::Path,
};

use super::{
    args::DumpArgs,
    dump::{end, is_wanted},
    place::{Place, lies_in, of_log},
};
use crate::{
    commands::{
        failure::{Failure, Result},
        output::{Object, Output},
        session::Session,
    },
    storage::log::{
        entry::{Entry, Item, Payload},
        inspect::Visited,
    },
};

/// Where batches go.
enum Target {
    Stdout,
    File(BufWriter<File>),
}

/// How much was written.
#[derive(Default)]
struct Written {
    batches: u64,
    records: u64,
    bytes: u64,
}

/// Writes the batches of all entries that are asked for, in the order of the log. Void entries have
/// none for anybody.
///
/// # Errors
/// 12 where the log is damaged, after all that stands before it; 13 where the file is there already or
/// cannot be written.
pub(super) fn run(session: &mut Session, args: &DumpArgs, place: &Place, file: &Path) -> Result {
    let failed =
        |error: &std::io::Error| Failure::io(format_args!("write {}", file.display()), error);
    check(session, place, file)?;
    let mut target = if file.as_os_str() == "-" {
        Target::Stdout
    } else {
        let created = File::create_new(file);
        Target::File(BufWriter::new(created.map_err(|error| failed(&error))?))
    };
    let mut written = Written::default();
    let mut ended = Ok(());
    let walked = place.walk(args.shard, |visited| {
        if is_wanted(args, visited) {
            ended = entry(&mut session.output, &mut target, visited, &mut written, &failed);
        }
        if ended.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ended?;
    let report = walked.and_then(|report| place.confirmed(args.shard, report));
    let report = report.map_err(|error| of_log(args.shard, &error))?;
    if let Target::File(mut writer) = target {
        writer
            .flush()
            .and_then(|()| writer.get_ref().sync_all())
            .map_err(|error| failed(&error))?;
        told(session, file, &written)?;
    }
    end(session, args.shard, &report)
}

/// Refuses bytes for a terminal, and a file among those of the log.
fn check(session: &Session, place: &Place, file: &Path) -> Result {
    if file.as_os_str() == "-" && session.output.is_terminal {
        let failure = Failure::usage("--raw-batches -: standard output is a terminal");
        return Err(failure.hint("name a file, or pass it on through a pipe").into());
    }
    if lies_in(file, place.dir().path()) {
        let message = format!("--raw-batches {}: it lies in the data directory", file.display());
        return Err(Failure::usage(message).into());
    }
    Ok(())
}

fn entry(
    output: &mut Output,
    target: &mut Target,
    visited: &Visited<'_>,
    written: &mut Written,
    failed: &impl Fn(&std::io::Error) -> Failure,
) -> Result {
    let Item::Entry(Entry { payload: Payload::Normal(write), is_void: false, .. }) = visited.item
    else {
        return Ok(());
    };
    for frame in &write.frames {
        for part in [frame.batch.head().as_slice(), frame.batch.tail()] {
            match target {
                Target::Stdout => output.bytes(part)?,
                Target::File(writer) => writer.write_all(part).map_err(|error| failed(&error))?,
            }
        }
        written.batches += 1;
        written.records += u64::from(frame.record_count);
        written.bytes += frame.batch.len() as u64;
    }
    Ok(())
}

fn told(session: &mut Session, file: &Path, written: &Written) -> Result {
    let Written { batches, records, bytes } = *written;
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.wal-batches/1");
        document.add("file", file.display().to_string());
        document.add("batches", batches).add("records", records).add("size_bytes", bytes);
        return session.output.document(&document);
    }
    let text = format!("{batches} batches, {records} records, {bytes} bytes in {}", file.display());
    session.output.confirmation(&text)
}
