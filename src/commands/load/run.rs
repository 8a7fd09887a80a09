//! A run from its job to its end.

use prkdb_client::{Client, WriterOptions};
use tokio::time::Instant;

use super::{
    checkpoint::{self, Input, Rejected, State},
    end::{conclude, failed, finished, interrupted},
    job::{Job, Kind},
    link::Link,
    offsets::Offsets,
    pipeline::Pipeline,
    prepare::{Prepared, limit, open_writer, options, prepare, purpose},
    progress::Progress,
    read::Place,
    rejects::{self, Rejects},
    report::Tally,
    resume::{restore, snapshot},
    source::{From, Source},
};
use crate::commands::{
    failure::{Result, Stop},
    run::{Signals, runtime},
    session::{self, Session},
};

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
    rejects::check(job)?;
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
        if !job.run.resume {
            // Whatever ends the run from here on, another one can go on.
            pipeline.checkpoint()?;
        }
    }
    let ended = tokio::select! {
        ended = pipeline.run(&mut source) => ended.map(|()| None),
        code = signals.next() => Ok(Some(code)),
    };
    pipeline.tally.skipped = source.skipped.load(std::sync::atomic::Ordering::Relaxed);
    let ended = match ended {
        Ok(Some(code)) => Ok(interrupted(job, &mut pipeline, code).await),
        Ok(None) => finished(job, &mut pipeline),
        Err(stop) => Err(failed(job, &mut pipeline, stop)),
    };
    let tally = pipeline.tally();
    let offsets = pipeline.take_offsets();
    drop(pipeline);
    let printed = offsets.map_or(Ok(()), |offsets| offsets.end(session.talk));
    conclude(session, job, &tally, started.elapsed(), ended?, printed)
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
