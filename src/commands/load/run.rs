//! `batch-put` from its arguments to its exit code.

use std::{path::Path, time::Duration};

use prkdb_client::{BatchWriter, Client, WriterOptions, wire};
use tokio::time::Instant;

use super::{
    args::{Args, OnError, Parsing, WINDOW_BATCHES},
    checkpoint::{self, Input, LaneState, Rejected, State, Target},
    conditional::Puts,
    lane::Cut,
    pipeline::{Link, Options, Pipeline},
    progress::Progress,
    read::Place,
    rejects::Rejects,
    report::Tally,
    source::{From, Source},
};
use crate::commands::{
    failure::{Failure, Result, Stop},
    output::readable_size,
    run::{Signals, runtime},
    session::{self, Session},
};

/// How long an interrupted run waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);
/// What all lanes together may collect: with many partitions, batches are smaller.
const OPEN_BYTES_MAX: u64 = 64 << 20;
/// Header of a batch and of its message, which count against the server's limit.
const MESSAGE_OVERHEAD: u64 = 1024;

/// Runs `batch-put`.
///
/// # Errors
/// 8 where some records are put and some rejected, 1 where none is put, 7 where a checkpoint does not
/// fit.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let parsing = args.parsing()?;
    runtime()?.block_on(async {
        let signals = Signals::new()?;
        start(session, args, &parsing, signals).await
    })
}

/// What a run needs beside its input.
struct Prepared {
    link: Link,
    options: Options,
    /// Where an earlier run stopped.
    state: Option<State>,
    is_resumed: bool,
}

async fn start(
    session: &mut Session,
    args: &Args,
    parsing: &Parsing,
    mut signals: Signals,
) -> Result {
    let started = Instant::now();
    let preparing = prepare(session, args, parsing);
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
        code = signals.next() => return Err(Stop::Quiet(code)),
    };
    let state = prepared.state.as_ref().filter(|_| prepared.is_resumed);
    let place = state.map_or_else(Place::default, State::place);
    let from = if args.is_stdin() { From::Stdin } else { From::File(&args.file) };
    let mut source = Source::start(&from, parsing, place)?;
    let progress = Progress::new(session.talk.has_progress, source.size);
    let mut pipeline = Pipeline::new(prepared.link, prepared.options, progress);
    let known = state.map_or_else(Rejected::default, |state| state.rejects);
    pipeline.with_rejects(open_rejects(args, parsing, known, source.header_row.as_deref())?);
    pipeline.read_to = place;
    if let Some(state) = state {
        restore(&mut pipeline, state);
    }
    if let (Some(path), Some(state)) = (&args.checkpoint, prepared.state) {
        let input = Input::of(&args.file)?;
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
        Ok(Some(code)) => interrupted(args, &mut pipeline, code).await,
        Ok(None) => finished(args, &mut pipeline),
        Err(stop) => Err(failed(args, &mut pipeline, stop)),
    };
    let tally = pipeline.tally.clone();
    drop(pipeline);
    conclude(session, args, &tally, started.elapsed(), ended)
}

/// How a run ended that reached its end.
enum End {
    Finished,
    Interrupted(u8, Option<String>),
}

fn finished(args: &Args, pipeline: &mut Pipeline<'_>) -> Result<End> {
    let is_complete = !pipeline.is_stopping;
    match &args.checkpoint {
        Some(path) if is_complete => checkpoint::remove(path)?,
        _ => pipeline.checkpoint()?,
    }
    Ok(End::Finished)
}

async fn interrupted(args: &Args, pipeline: &mut Pipeline<'_>, code: u8) -> Result<End> {
    pipeline.drain(DRAIN).await?;
    pipeline.checkpoint()?;
    Ok(End::Interrupted(code, args.checkpoint.as_ref().map(|_| resume_command(args))))
}

/// Notes how far it came, and says how to go on.
fn failed(args: &Args, pipeline: &mut Pipeline<'_>, stop: Stop) -> Stop {
    let Stop::Failed(failure) = stop else { return stop };
    if let Err(stop) = pipeline.checkpoint() {
        return stop;
    }
    let failure = failure.details(pipeline.tally.details());
    match &args.checkpoint {
        Some(_) => failure.hint(format!("resume with: {}", resume_command(args))).into(),
        None => failure.into(),
    }
}

fn conclude(
    session: &mut Session,
    args: &Args,
    tally: &Tally,
    elapsed: Duration,
    ended: Result<End>,
) -> Result {
    let end = ended?;
    let is_empty = tally.put == 0 && tally.rejected == 0;
    if is_empty && !args.allow_empty && matches!(end, End::Finished) {
        let message = format!("no records in {}", args.input_name());
        return Err(Failure::rejected(message).hint("pass --allow-empty to accept that").into());
    }
    let checkpoint = match &end {
        End::Interrupted(_, Some(_)) => args.checkpoint.as_ref(),
        End::Finished if tally.rejected > 0 && args.on_error == OnError::Stop => {
            args.checkpoint.as_ref()
        }
        _ => None,
    };
    let checkpoint = checkpoint.map(|path| path.display().to_string());
    tally.print(&mut session.output, elapsed, args.dry_run, checkpoint.as_deref())?;
    session.output.flush()?;
    if let End::Interrupted(code, command) = end {
        let failure = Failure::interrupted(code, "interrupted").details(tally.details());
        return Err(match command {
            Some(command) => failure.hint(format!("resume with: {command}")),
            None => failure,
        }
        .into());
    }
    let Some((_, message)) = &tally.first_error else { return Ok(()) };
    let message = if args.on_error == OnError::Stop {
        message.clone()
    } else {
        format!("{} records rejected, the first: {message}", tally.rejected)
    };
    let failure =
        if tally.put > 0 { Failure::partial(message) } else { Failure::rejected(message) };
    Err(failure.details(tally.details()).into())
}

/// The command that goes on: the same one with `--resume`.
fn resume_command(args: &Args) -> String {
    let mut words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--resume")
        .map(|word| quoted(&word))
        .collect();
    words.insert(0, "prkdb".to_owned());
    words.push("--resume".to_owned());
    debug_assert!(args.checkpoint.is_some(), "only a checkpoint can be resumed");
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
    args: &Args,
    parsing: &Parsing,
    known: Rejected,
    header_row: Option<&[u8]>,
) -> Result<Option<Rejects>> {
    let Some(path) = &args.rejects else { return Ok(None) };
    let terminator = match parsing {
        Parsing::Delimited { terminator, .. } => Some(*terminator),
        Parsing::Table(_) | Parsing::Jsonl { .. } => Some(b'\n'),
        Parsing::Frames => None,
    };
    let mut rejects = Rejects::open(path, known, terminator)?;
    if let Some(row) = header_row {
        rejects.header_row(row)?;
    }
    Ok(Some(rejects))
}

async fn prepare(session: &Session, args: &Args, parsing: &Parsing) -> Result<Prepared> {
    let mut options = Options {
        input: args.input_name(),
        cut: Cut {
            records: usize::try_from(args.batch_size).unwrap_or(usize::MAX),
            bytes: usize::MAX,
        },
        window: usize::from(args.concurrency),
        rate: args.rate,
        stops_at_error: args.on_error == OnError::Stop,
        max_errors: args.max_errors,
        skip: args.skip,
        timestamp_ms: 0,
        // What no node can be told to take.
        max_key: 64 << 10,
        max_value: 16 << 20,
        keeps_raw: args.rejects.is_some(),
    };
    if args.dry_run {
        return Ok(Prepared { link: Link::Dry, options, state: None, is_resumed: false });
    }
    options.timestamp_ms = session.options.clock.now_ms();
    let collection = session.collection(&args.collection);
    let client = session.client().await?;
    let failed = |error| session::failure(&error);
    let metadata = client.metadata(&[&collection]).await.map_err(failed)?;
    let limits = metadata.limits.unwrap_or_default();
    limit(&mut options, &limits);
    if args.if_absent {
        options.cut = Cut { records: 1, bytes: usize::MAX };
        let unlimited = client.with_deadline(None);
        let puts = Puts::new(unlimited, collection, options.timestamp_ms, args.concurrency);
        return Ok(Prepared { link: Link::Puts(puts), options, state: None, is_resumed: false });
    }
    let partitions = client.partitions(&collection).await.map_err(failed)?;
    let bytes = batch_bytes(args, &limits, partitions.count())?;
    options.cut.bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if limits.max_keyed_batch_records > 0 {
        let most = usize::try_from(limits.max_keyed_batch_records).unwrap_or(usize::MAX);
        options.cut.records = options.cut.records.min(most);
    }
    let target = target(&metadata, partitions.collection(), &options.cut);
    let state = state(args, parsing, target, options.timestamp_ms)?;
    let is_resumed = args.resume;
    let mut writer = WriterOptions::default();
    if let Some(state) = state.as_ref().filter(|_| is_resumed) {
        options.timestamp_ms = state.producer.timestamp_ms;
        writer.producer_id = Some(state.producer.id);
        let lanes = state.producer.lanes.iter();
        writer.sequences = lanes.map(|lane| (lane.partition, lane.sequence)).collect();
    }
    let (writer, answers) = open_writer(session, &client, &collection, writer).await?;
    let link = Link::Batches { writer, answers, partitions };
    Ok(Prepared { link, options, state, is_resumed })
}

/// The deadline counts until the stream is open; batches have none.
async fn open_writer(
    session: &Session,
    client: &Client,
    collection: &str,
    options: WriterOptions,
) -> Result<(BatchWriter, prkdb_client::BatchAnswers)> {
    let unlimited = client.with_deadline(None);
    let opening = BatchWriter::open(&unlimited, collection, options);
    let opened = match session.timeout {
        None => opening.await,
        Some(timeout) => tokio::time::timeout(timeout, opening)
            .await
            .map_err(|_| session.deadline_passed("open a stream of batches"))?,
    };
    opened.map_err(|error| session::failure(&error).into())
}

fn limit(options: &mut Options, limits: &wire::Limits) {
    if limits.max_key_bytes > 0 {
        options.max_key = limits.max_key_bytes;
    }
    if limits.max_value_bytes > 0 {
        options.max_value = limits.max_value_bytes;
    }
}

fn batch_bytes(args: &Args, limits: &wire::Limits, partitions: u32) -> Result<u64> {
    let most = limits.max_message_bytes.saturating_sub(MESSAGE_OVERHEAD);
    if most > 0 && args.batch_bytes > most {
        let (asked, most) = (readable_size(args.batch_bytes), readable_size(most));
        let message = format!("--batch-bytes: {asked} is more than the server takes, {most}");
        return Err(Failure::usage(message).into());
    }
    Ok(args.batch_bytes.min(OPEN_BYTES_MAX / u64::from(partitions.max(1))))
}

fn target(metadata: &wire::MetadataReply, collection: &wire::Collection, cut: &Cut) -> Target {
    let settings = collection.settings.unwrap_or_default();
    Target {
        cluster_id: hex::encode(&metadata.cluster_id),
        collection: collection.name.clone(),
        collection_id: collection.id,
        partitions: settings.partitions,
        partitioner: settings.partitioner,
        batch_records: u32::try_from(cut.records).unwrap_or(u32::MAX),
        batch_bytes: u64::try_from(cut.bytes).unwrap_or(u64::MAX),
    }
}

/// The state of the checkpoint to resume, or of one that begins.
fn state(
    args: &Args,
    parsing: &Parsing,
    target: Target,
    timestamp_ms: i64,
) -> Result<Option<State>> {
    let Some(path) = &args.checkpoint else { return Ok(None) };
    let input = Input::of(&args.file)?;
    let fingerprint = serde_json::Value::from(args.fingerprint(parsing));
    if args.resume {
        let state = checkpoint::read(path)?;
        state.check(&input, &target, &fingerprint)?;
        return Ok(Some(state));
    }
    if Path::new(path).exists() {
        let message = format!("checkpoint {}: exists already", path.display());
        return Err(Failure::checkpoint_mismatch(message)
            .hint("go on with --resume, or remove it to begin anew")
            .into());
    }
    Ok(Some(State::new(&input, target, fingerprint, timestamp_ms)))
}

fn restore(pipeline: &mut Pipeline<'_>, state: &State) {
    for lane in &state.producer.lanes {
        let index = usize::try_from(lane.partition).unwrap_or(usize::MAX);
        if let Some(mine) = pipeline.lanes.get_mut(index) {
            mine.sequence = lane.sequence;
            mine.done_to = lane.byte_offset;
        }
    }
    pipeline.rejected_to = state.rejects.byte_offset;
    pipeline.tally.put = state.put;
    pipeline.tally.rejected = state.rejected;
    pipeline.tally.bytes = state.bytes;
}

/// What a later run needs to go on from here.
fn snapshot(
    pipeline: &Pipeline<'_>,
    rejects: &mut Option<Rejects>,
    input: &Input,
    state: State,
) -> Result<State> {
    let read_to = pipeline.read_to;
    let mut first = read_to;
    let mut lanes = Vec::with_capacity(pipeline.lanes.len());
    for (partition, lane) in pipeline.lanes.iter().enumerate() {
        let place = lane.first_unanswered();
        if let Some(place) = place.filter(|place| place.offset < first.offset) {
            first = place;
        }
        lanes.push(LaneState {
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            // A resumed lane that has seen nothing yet stands where the earlier run left it.
            byte_offset: place.map_or(read_to.offset.max(lane.done_to), |place| place.offset),
            sequence: lane.sequence,
        });
    }
    let (bytes, reasons_bytes) = match rejects {
        Some(rejects) => rejects.sync()?,
        None => (0, 0),
    };
    let stops = pipeline.options.stops_at_error;
    let mut next = State {
        fingerprint: input.fingerprint(first.offset)?,
        byte_offset: first.offset,
        record: first.record,
        line: first.line,
        put: pipeline.tally.put,
        // The record that ends a run is read again, and counted then.
        rejected: if stops { 0 } else { pipeline.tally.rejected },
        bytes: pipeline.tally.bytes,
        rejects: Rejected {
            byte_offset: read_to.offset.max(pipeline.rejected_to),
            bytes: if stops { 0 } else { bytes },
            reasons_bytes: if stops { 0 } else { reasons_bytes },
        },
        ..state
    };
    next.producer.id = pipeline.producer_id();
    next.producer.lanes = lanes;
    Ok(next)
}

/// Loads records of a table in memory into a collection, as the command does with a file.
///
/// # Errors
/// As [`run`].
pub async fn load(
    session: &Session,
    client: &Client,
    collection: &str,
    bytes: Vec<u8>,
    args: &Args,
) -> Result<Tally> {
    let parsing = args.parsing()?;
    let mut source = Source::start(&From::Bytes(bytes), &parsing, Place::default())?;
    let partitions =
        client.partitions(collection).await.map_err(|error| session::failure(&error))?;
    let (writer, answers) =
        open_writer(session, client, collection, WriterOptions::default()).await?;
    let limits = writer.limits();
    let mut options = Options {
        input: args.input_name(),
        cut: Cut {
            records: usize::try_from(args.batch_size).unwrap_or(usize::MAX),
            bytes: usize::try_from(args.batch_bytes).unwrap_or(usize::MAX),
        },
        window: usize::from(args.concurrency).min(WINDOW_BATCHES),
        rate: args.rate,
        stops_at_error: true,
        max_errors: 0,
        skip: 0,
        timestamp_ms: session.options.clock.now_ms(),
        max_key: 64 << 10,
        max_value: 16 << 20,
        keeps_raw: false,
    };
    limit(&mut options, &limits);
    let link = Link::Batches { writer, answers, partitions };
    let progress = Progress::new(session.talk.has_progress, source.size);
    let mut pipeline = Pipeline::new(link, options, progress);
    pipeline.run(&mut source).await?;
    Ok(pipeline.tally.clone())
}
