//! `bench` from its arguments to its result.

use super::{
    args::{Args, Command, EventArgs, LimitsArgs, LoadArgs},
    echo::{self, Echo},
    events::{self, Events},
    limits::{self, Way},
    load::Seen,
    machine,
    made::Made,
    node::{Bench, Operation},
    report::{Figure, Report},
};
use crate::commands::{
    failure::Result,
    output::Object,
    run::{Signals, block_on, runtime},
    session::Session,
};

/// Runs `bench`.
///
/// # Errors
/// 1 where the machine is busy or an expectation is missed; else as the table of exit codes says.
pub fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    match args.command {
        Command::Limits(args) => block_on(session, async |session| limits(session, &args).await),
        Command::Put(args) => measured(session, async |session, made| {
            load(session, made, Operation::Put, &args).await
        }),
        Command::Get(args) => measured(session, async |session, made| {
            load(session, made, Operation::Get, &args).await
        }),
        Command::Mixed(args) => measured(session, async |session, made| {
            load(session, made, Operation::Mixed(args.reads), &args.load).await
        }),
        Command::Produce(args) => measured(session, async |session, made| {
            events(session, made, Stream::Produce, &args).await
        }),
        Command::Consume(args) => measured(session, async |session, made| {
            events(session, made, Stream::Consume, &args).await
        }),
        Command::Echo(_) => block_on(session, async |session| echo::serve(session).await),
    }
}

/// Runs a measurement until it ends or a signal does; after that its collection goes too.
fn measured(
    session: &mut Session,
    measurement: impl AsyncFnOnce(&mut Session, &Made) -> Result,
) -> Result {
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let made = Made::default();
        let code = tokio::select! {
            ended = measurement(session, &made) => return ended,
            code = signals.next() => code,
        };
        Err(made.drop_after(code).await)
    })
}

async fn limits(session: &mut Session, args: &LimitsArgs) -> Result {
    machine::check_quiet().await?;
    let figures = limits::all(&args.data_dir, args.duration).await?;
    machine::check_quiet().await?;
    let report = Report {
        bench: "limits",
        settings: Object::default(),
        figures,
        errors: 0,
        expectations: Vec::new(),
    };
    report.finish(session, args.result.as_deref())
}

async fn load(session: &mut Session, made: &Made, operation: Operation, args: &LoadArgs) -> Result {
    machine::check_quiet().await?;
    let bench = Bench::new(session, args, made).await?;
    let measured = measure(&bench, operation, args).await;
    let dropped = made.drop().await;
    let (seen, limit) = measured?;
    dropped?;
    machine::check_quiet().await?;
    if let Some(failure) = seen.first_error.clone().filter(|_| seen.latencies.count() == 0) {
        return Err(failure.into());
    }
    let name = match operation {
        Operation::Put => format!("put, sync, {} under way", args.clients),
        Operation::Get => format!("get, linearizable, {} under way", args.clients),
        Operation::Mixed(reads) => {
            format!("{reads} % get, linearizable, the rest put, sync, {} under way", args.clients)
        }
    };
    let mut figure = Figure::rate(&name, seen.rate()).with_latencies(&seen);
    let mut figures = Vec::new();
    if let Some(limit) = limit {
        figure = figure.against(&limit);
        figures.push(limit);
    }
    figures.insert(0, figure);
    let report = Report {
        bench: match operation {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Mixed(_) => "mixed",
        },
        settings: settings(args),
        figures,
        errors: seen.errors,
        expectations: expectations(args, &seen),
    };
    report.finish(session, args.result.as_deref())
}

async fn measure(
    bench: &Bench,
    operation: Operation,
    args: &LoadArgs,
) -> Result<(Seen, Option<Figure>)> {
    let seen = bench.measure(operation, args).await?;
    if !args.with_limits {
        return Ok((seen, None));
    }
    Ok((seen, Some(limit(operation, args).await?)))
}

/// The limit of the machine for what was measured.
///
/// A get, alone or among puts: an empty call with as many under way. A put by one client: an empty call and a sync of the
/// same bytes, one after the other. Several: the smaller of empty calls with as many under way and a
/// sync for each group of as many records.
async fn limit(operation: Operation, args: &LoadArgs) -> Result<Figure> {
    let duration = args.duration.min(std::time::Duration::from_secs(2));
    let echo = Echo::start().await?;
    let calls = limits::calls(&echo, args.clients, 0, duration).await?;
    if operation != Operation::Put {
        return Ok(calls);
    }
    let record = usize::try_from(args.key_size + args.value_size).unwrap_or(usize::MAX);
    let group = usize::try_from(args.clients).unwrap_or(usize::MAX);
    let syncs =
        limits::syncs(&args.data_dir, record.saturating_mul(group).min(64 << 20), duration)?;
    if args.clients == 1 {
        let seconds = 1.0 / calls.value + 1.0 / syncs.value;
        return Ok(Figure::rate("empty call + fdatasync of the same bytes", 1.0 / seconds));
    }
    let grouped = syncs.value * f64::from(args.clients);
    if grouped < calls.value {
        return Ok(Figure::rate("group commit of the same bytes", grouped));
    }
    Ok(calls)
}

fn settings(args: &LoadArgs) -> Object {
    let mut settings = Object::default();
    settings
        .add("clients", args.clients)
        .add("loop", if args.rate.is_some() { "open" } else { "closed" })
        .add("transport", if args.unary { "unary" } else { "stream" })
        .add("durability", "sync")
        .add("key_bytes", args.key_size)
        .add("value_bytes", args.value_size)
        .add("keyspace", args.keyspace.get())
        .add("rate", args.rate.map(std::num::NonZeroU64::get));
    settings
}

/// What of a stream is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Produce,
    Consume,
}

async fn events(session: &mut Session, made: &Made, stream: Stream, args: &EventArgs) -> Result {
    machine::check_quiet().await?;
    let events = Events::new(session, args, made).await?;
    let seen = match (stream, args.rate) {
        (Stream::Produce, _) => events.produce().await,
        (Stream::Consume, None) => events.consume().await,
        (Stream::Consume, Some(rate)) => events.follow(rate).await,
    };
    let dropped = made.drop().await;
    let seen = seen?;
    dropped?;
    let limits =
        if args.with_limits { event_limits(stream, args).await? } else { EventLimits::default() };
    machine::check_quiet().await?;
    let name = match (stream, args.rate) {
        (Stream::Produce, _) => "produce, sync",
        (Stream::Consume, None) => "consume",
        (Stream::Consume, Some(_)) => "produce, sync, until consumed",
    };
    let mut bytes = Figure::bytes(name, seen.bytes, seen.elapsed);
    if seen.latencies.count() > 0 {
        bytes = bytes.with_percentiles(&seen.latencies);
    }
    if let Some(limit) = limits.smallest() {
        bytes = bytes.against(limit);
    }
    let rate = super::report::per_second(seen.records, seen.elapsed);
    let mut figures = vec![bytes, Figure::rate(&format!("{name}, records"), rate)];
    figures.extend(limits.named);
    figures.extend(limits.beside);
    let report = Report {
        bench: if stream == Stream::Produce { "produce" } else { "consume" },
        settings: event_settings(args),
        figures,
        errors: seen.errors,
        expectations: event_expectations(args, &seen, rate),
    };
    report.finish(session, args.result.as_deref())
}

/// What limits a stream.
#[derive(Debug, Default)]
struct EventLimits {
    /// What it is compared with.
    named: Vec<Figure>,
    /// The same bytes going one way only, which is stricter than an echo of them.
    beside: Option<Figure>,
}

impl EventLimits {
    fn smallest(&self) -> Option<&Figure> {
        self.named.iter().min_by(|one, other| one.value.total_cmp(&other.value))
    }
}

/// An echo of the same bytes; what is produced goes to the disk too.
async fn event_limits(stream: Stream, args: &EventArgs) -> Result<EventLimits> {
    let duration = args.duration.min(std::time::Duration::from_secs(2));
    let echo = Echo::start().await?;
    let batch = usize::try_from(args.batch_bytes.min(1 << 20)).unwrap_or(usize::MAX);
    let mut named = vec![limits::exchange(&echo, Way::Both, batch, duration).await?];
    let way = match stream {
        Stream::Produce => {
            named.push(limits::grouped(&args.data_dir, duration)?);
            Way::In
        }
        Stream::Consume => Way::Out,
    };
    let beside = Some(limits::exchange(&echo, way, batch, duration).await?);
    Ok(EventLimits { named, beside })
}

fn event_settings(args: &EventArgs) -> Object {
    let mut settings = Object::default();
    settings
        .add("clients", args.clients)
        .add("partitions", args.partitions)
        .add("loop", if args.rate.is_some() { "open" } else { "closed" })
        .add("durability", "sync")
        .add("key_bytes", args.key_size)
        .add("value_bytes", args.value_size)
        .add("batch_records", args.batch_size)
        .add("batch_bytes", args.batch_bytes)
        .add("in_flight", u64::from(args.in_flight))
        .add("compression", format!("{:?}", args.compression).to_lowercase())
        .add("rate", args.rate.map(std::num::NonZeroU64::get));
    settings
}

fn event_expectations(args: &EventArgs, seen: &events::Seen, rate: f64) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    if let Some(limit) = args.expect_p99 {
        let p99 = seen.latencies.percentile(99.0);
        let shown = humantime::format_duration(limit);
        all.push((format!("p99 of at most {shown}, is {p99:?}"), p99 <= limit));
    }
    if let Some(least) = args.expect_rate {
        let second = std::time::Duration::from_secs(1);
        let is_met = rate >= super::report::per_second(least.get(), second);
        all.push((format!("at least {least} records/s, are {rate:.0}/s"), is_met));
    }
    if seen.errors > 0 {
        all.push((format!("no errors, are {}", seen.errors), false));
    }
    all
}

fn expectations(args: &LoadArgs, seen: &Seen) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    if let Some(limit) = args.expect_p99 {
        let p99 = seen.latencies.percentile(99.0);
        let shown = humantime::format_duration(limit);
        all.push((format!("p99 of at most {shown}, is {p99:?}"), p99 <= limit));
    }
    if let Some(rate) = args.expect_rate {
        let is_met =
            seen.rate() >= super::report::per_second(rate.get(), std::time::Duration::from_secs(1));
        all.push((format!("at least {rate}/s, is {:.0}/s", seen.rate()), is_met));
    }
    if seen.errors > 0 {
        all.push((format!("no errors, are {}", seen.errors), false));
    }
    all
}
