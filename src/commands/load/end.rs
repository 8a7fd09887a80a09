//! How a run ends: what it notes for a later one, what it says, and its exit code.

use std::{path::PathBuf, time::Duration};

use super::{
    checkpoint,
    command_line::resume_command,
    job::{Job, Kind},
    pipeline::Pipeline,
    report::Tally,
};
use crate::commands::{
    failure::{Failure, Outcome, Result, Stop},
    session::Session,
};

/// How long an interrupted run waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// How a run ended that noted how far it came.
pub(crate) enum End {
    /// With its input, or at a record that was rejected.
    Finished,
    /// By a signal.
    Interrupted {
        /// What is said of it.
        failure: Failure,
        /// Whether another run can go on.
        is_resumable: bool,
    },
}

/// Notes how far it came, or that nothing is left to do.
///
/// # Errors
/// 13.
pub(crate) fn finished(job: &Job<'_>, pipeline: &mut Pipeline<'_>) -> Result<End> {
    let is_complete = !pipeline.is_stopping;
    match &job.run.checkpoint {
        Some(path) if is_complete => checkpoint::remove(path)?,
        _ => pipeline.checkpoint()?,
    }
    Ok(End::Finished)
}

/// Waits for what is under way and notes how far it came. What fails meanwhile is said beside: the run ends as one
/// that was interrupted.
pub(crate) async fn interrupted(job: &Job<'_>, pipeline: &mut Pipeline<'_>, code: u8) -> End {
    let drained = pipeline.drain(DRAIN).await;
    let saved = pipeline.checkpoint();
    let is_resumable = job.run.checkpoint.is_some() && saved.is_ok();
    let mut message = vec!["interrupted".to_owned()];
    for stop in [drained.err(), saved.err()].into_iter().flatten() {
        if let Stop::Failed(failure) = stop {
            message.push(failure.message());
        }
    }
    let records = pipeline.unanswered();
    if records > 0 {
        let they = if records == 1 { "record that was sent" } else { "records that were sent" };
        message.push(format!("{records} {they} may or may not be stored"));
    }
    let mut failure = Failure::interrupted(code, message.join("; "));
    failure = failure.details(pipeline.tally.details(job.kind));
    if records > 0 {
        failure = failure.outcome(Outcome::Unknown);
    }
    if is_resumable {
        failure = failure.hint(format!("resume with: {}", resume_command(job)));
    }
    End::Interrupted { failure, is_resumable }
}

/// Notes how far it came, and says how to go on.
pub(crate) fn failed(job: &Job<'_>, pipeline: &mut Pipeline<'_>, stop: Stop) -> Stop {
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

/// Says what was done, and how it ended. `printed` is what became of the records that were printed.
///
/// # Errors
/// 8 where some records are written and some rejected, 1 where none is written, 130 or 143 after a signal.
pub(crate) fn conclude(
    session: &mut Session,
    job: &Job<'_>,
    tally: &Tally,
    elapsed: Duration,
    end: End,
    printed: Result,
) -> Result {
    let is_empty = tally.written == 0 && tally.rejected == 0;
    if is_empty && !job.run.allow_empty && matches!(end, End::Finished) {
        let message = format!("no records in {}", job.input.name());
        return Err(Failure::rejected(message).hint("pass --allow-empty to accept that").into());
    }
    let has_checkpoint = match &end {
        End::Interrupted { is_resumable, .. } => *is_resumable,
        End::Finished => tally.rejected > 0 && job.stops_at_error(),
    };
    let checkpoint = job.run.checkpoint.as_ref().filter(|_| has_checkpoint);
    let told = printed.and_then(|()| tell(session, job, tally, elapsed, checkpoint));
    if let End::Interrupted { failure, .. } = end {
        return Err(failure.into());
    }
    // Where nobody reads it, the exit code still says what became of the records.
    if let Err(Stop::Failed(failure)) = told {
        return Err(Stop::Failed(failure));
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

fn tell(
    session: &mut Session,
    job: &Job<'_>,
    tally: &Tally,
    elapsed: Duration,
    checkpoint: Option<&PathBuf>,
) -> Result {
    if let Kind::Events { prints_offsets: true, .. } = job.kind {
        session.talk.notice(&tally.produced_line(elapsed, job.run.dry_run));
    } else {
        let checkpoint = checkpoint.map(|path| path.display().to_string());
        tally.print(&mut session.output, job, elapsed, checkpoint.as_deref())?;
    }
    session.output.flush()
}
