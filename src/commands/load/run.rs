//! A run from its job to its exit code.

use std::time::Duration;

use prkdb_client::{Client, WriterOptions};
use tokio::time::Instant;

use super::{
    checkpoint::{self, Input, Rejected, State},
    job::{Job, Kind},
    link::Link,
    offsets::Offsets,
    pipeline::Pipeline,
    prepare::{Prepared, limit, open_writer, options, prepare, purpose},
    progress::Progress,
    read::Place,
    rejects::Rejects,
    report::Tally,
    resume::{restore, snapshot},
    source::{From, Source},
};
use crate::commands::{
    failure::{Failure, Result, Stop},
    run::{Signals, runtime},
    session::{self, Session},
};

/// How long an interrupted run waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a job.
///
/// # Errors
/// 8 where some records are written and some rejected, 1 where none is written, 7 where a checkpoint does
/// not fit.
pub(crate) fn run(session: &mut Session, job: &Job<'_>) -> Result {
    runtime()?.block_on(async {
        let signals = Signals::new()?;
        Box::pin(start(session, job, signals)).await
    })
}

async fn start(session: &mut Session, job: &Job<'_>, mut signals: Signals) -> Result {
    let started = Instant::now();
    let preparing = prepare(session, job);
    let Prepared { link, options, state: noted } = tokio::select! {
        prepared = preparing => prepared?,
        code = signals.next() => return Err(Stop::Quiet(code)),
    };
    let state = noted.as_ref().filter(|_| job.run.resume);
    let place = state.map_or_else(Place::default, State::place);
    let from = if job.input.is_stdin() { From::Stdin } else { From::File(&job.input.file) };
    let mut source = Source::start(&from, job, place)?;
    let progress = Progress::new(session.talk.has_progress, source.size);
    let mut pipeline = Pipeline::new(link, options, progress);
    let known = state.map_or_else(Rejected::default, |state| state.rejects);
    pipeline.with_rejects(open_rejects(job, known, source.header_row.as_deref())?);
    if let Some(state) = state {
        restore(&mut pipeline, state);
    }
    if let Kind::Events { prints_offsets: true, .. } = job.kind {
        pipeline.with_offsets(Offsets::begin(&mut session.output)?);
    }
    if let (Some(path), Some(state)) = (&job.run.checkpoint, noted) {
        let input = Input::of(&job.input.file)?;
        pipeline.with_save(Box::new(move |pipeline, rejects| {
            checkpoint::write(path, &snapshot(pipeline, rejects, &input, state.clone())?)
        }));
    }
    let ended = tokio::select! {
        ended = pipeline.run(&mut source) => ended.map(|()| None),
        code = signals.next() => Ok(Some(code)),
    };
    pipeline.tally.skipped = source.skipped.load(std::sync::atomic::Ordering::Relaxed);
    let ended = match ended {
        Ok(Some(code)) => interrupted(job, &mut pipeline, code).await,
        Ok(None) => finished(job, &mut pipeline),
        Err(stop) => Err(failed(job, &mut pipeline, stop)),
    };
    let tally = pipeline.tally();
    let offsets = pipeline.take_offsets();
    drop(pipeline);
    let printed = offsets.map_or(Ok(()), |offsets| offsets.end(session.talk));
    let ended = ended.and_then(|end| printed.map(|()| end));
    conclude(session, job, &tally, started.elapsed(), ended)
}

/// How a run ended that reached its end.
enum End {
    Finished,
    Interrupted(u8, Option<String>),
}

fn finished(job: &Job<'_>, pipeline: &mut Pipeline<'_>) -> Result<End> {
    let is_complete = !pipeline.is_stopping;
    match &job.run.checkpoint {
        Some(path) if is_complete => checkpoint::remove(path)?,
        _ => pipeline.checkpoint()?,
    }
    Ok(End::Finished)
}

async fn interrupted(job: &Job<'_>, pipeline: &mut Pipeline<'_>, code: u8) -> Result<End> {
    pipeline.drain(DRAIN).await?;
    pipeline.checkpoint()?;
    Ok(End::Interrupted(code, job.run.checkpoint.as_ref().map(|_| resume_command(job))))
}

/// Notes how far it came, and says how to go on.
fn failed(job: &Job<'_>, pipeline: &mut Pipeline<'_>, stop: Stop) -> Stop {
    let Stop::Failed(failure) = stop else { return stop };
    if let Err(stop) = pipeline.checkpoint() {
        return stop;
    }
    let failure = failure.details(pipeline.tally.details(job.kind));
    match &job.run.checkpoint {
        Some(_) => failure.hint(format!("resume with: {}", resume_command(job))).into(),
        None => failure.into(),
    }
}

fn conclude(
    session: &mut Session,
    job: &Job<'_>,
    tally: &Tally,
    elapsed: Duration,
    ended: Result<End>,
) -> Result {
    let end = ended?;
    let is_empty = tally.written == 0 && tally.rejected == 0;
    if is_empty && !job.run.allow_empty && matches!(end, End::Finished) {
        let message = format!("no records in {}", job.input.name());
        return Err(Failure::rejected(message).hint("pass --allow-empty to accept that").into());
    }
    let checkpoint = match &end {
        End::Interrupted(_, Some(_)) => job.run.checkpoint.as_ref(),
        End::Finished if tally.rejected > 0 && job.stops_at_error() => job.run.checkpoint.as_ref(),
        _ => None,
    };
    let checkpoint = checkpoint.map(|path| path.display().to_string());
    if let Kind::Events { prints_offsets: true, .. } = job.kind {
        session.talk.notice(&tally.produced_line(elapsed, job.run.dry_run));
    } else {
        tally.print(&mut session.output, job, elapsed, checkpoint.as_deref())?;
    }
    session.output.flush()?;
    if let End::Interrupted(code, command) = end {
        let failure = Failure::interrupted(code, "interrupted").details(tally.details(job.kind));
        return Err(match command {
            Some(command) => failure.hint(format!("resume with: {command}")),
            None => failure,
        }
        .into());
    }
    let Some((_, message)) = &tally.first_error else { return Ok(()) };
    let message = if job.stops_at_error() {
        message.clone()
    } else {
        format!("{} records rejected, the first: {message}", tally.rejected)
    };
    let failure =
        if tally.written > 0 { Failure::partial(message) } else { Failure::rejected(message) };
    Err(failure.details(tally.details(job.kind)).into())
}

/// The command that goes on: the same one with `--resume`.
fn resume_command(job: &Job<'_>) -> String {
    let mut words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--resume")
        .map(|word| quoted(&word))
        .collect();
    words.insert(0, "prkdb".to_owned());
    words.push("--resume".to_owned());
    debug_assert!(job.run.checkpoint.is_some(), "only a checkpoint can be resumed");
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn open_rejects(
    job: &Job<'_>,
    known: Rejected,
    header_row: Option<&[u8]>,
) -> Result<Option<Rejects>> {
    let Some(path) = &job.run.rejects else { return Ok(None) };
    let mut rejects = Rejects::open(path, known, job.parsing.terminator())?;
    if let Some(row) = header_row {
        rejects.header_row(row)?;
    }
    Ok(Some(rejects))
}

/// Writes the records of an input in memory, as the command does with a file.
///
/// # Errors
/// As [`run`].
pub(crate) async fn from_memory(
    session: &Session,
    client: &Client,
    bytes: Vec<u8>,
    job: &Job<'_>,
) -> Result<Tally> {
    let mut source = Source::start(&From::Bytes(bytes), job, Place::default())?;
    let partitions =
        client.partitions(&job.collection).await.map_err(|error| session::failure(&error))?;
    let writer = WriterOptions { purpose: purpose(job.kind), ..WriterOptions::default() };
    let (writer, answers) = open_writer(session, client, &job.collection, writer).await?;
    let mut options = options(session, job);
    limit(&mut options, &writer.limits());
    let link = Link::Batches { writer, answers, partitions };
    let progress = Progress::new(session.talk.has_progress, source.size);
    let mut pipeline = Pipeline::new(link, options, progress);
    pipeline.run(&mut source).await?;
    Ok(pipeline.tally())
}
