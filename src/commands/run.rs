//! From the arguments of the process to its exit code.

use std::{ffi::OsString, io::Write as _, time::Duration};

use clap::{FromArgMatches as _, parser::ValueSource};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::{
    backup, batch_put, bench, collection, completions, consume, consumer, delete, demo, doctor,
    exit,
    failure::{Failure, Outcome, Result, Stop},
    get, health, help, logging, man, metrics,
    output::Format,
    produce, put, scan, serve,
    session::Session,
    snapshot, status,
    talk::{self, Talk},
    tree::{Cli, ClientCommand, Command, Global, cli},
    ttl, usage, version, wal,
};

/// How long a command that was ended by a signal may take to remove what it has not finished.
const CLEARING_UP: Duration = Duration::from_secs(5);
/// How long after a signal a command that prints may still wait for the reader.
const STUCK: Duration = Duration::from_secs(2);

/// Runs the program and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match cli().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return usage::unparsed(&error, &args),
    };
    let parsed = match Cli::from_arg_matches(&matches) {
        Ok(parsed) => parsed,
        Err(error) => return usage::unparsed(&error, &args),
    };
    let talk = Talk {
        is_json: parsed.global.output.is_some_and(Format::is_json),
        is_coloured: talk::is_coloured(parsed.global.color, talk::stderr_is_terminal()),
        is_quiet: parsed.global.quiet,
        ..Talk::plain()
    };
    let ended = match parsed.command {
        Command::Serve(args) => serve::run(&args, serve::config_file(&matches).as_deref()),
        Command::Client(command) => {
            let source = matches.value_source("servers");
            client(&parsed.global, source == Some(ValueSource::CommandLine), command)
        }
    };
    match ended {
        Ok(()) => exit::OK,
        Err(Stop::Quiet(code)) => code,
        Err(Stop::Failed(failure)) => {
            talk.failure(&failure);
            failure.exit()
        }
    }
}

fn client(global: &Global, is_server_named: bool, command: ClientCommand) -> Result {
    logging::client(global.verbose)?;
    let mut session = Session::new(global, is_server_named)?;
    let ended = dispatch(&mut session, command);
    // What was printed before an error is a result too; the error is told after it.
    let flushed = session.output.flush();
    ended.and(flushed)
}

fn dispatch(session: &mut Session, command: ClientCommand) -> Result {
    use ClientCommand as C;
    match command {
        C::Demo(args) => demo::run(session, &args),
        C::Put(args) => block_on(session, async |session| Box::pin(put::run(session, args)).await),
        C::Get(args) => block_on(session, async |session| get::run(session, args).await),
        C::Delete(args) => {
            block_on_beside(session, async |session| Box::pin(delete::run(session, args)).await)
        }
        C::Ttl(args) => block_on(session, async |session| ttl::run(session, args).await),
        C::Expire(args) => {
            block_on(session, async |session| Box::pin(ttl::expire(session, args)).await)
        }
        C::Persist(args) => {
            block_on(session, async |session| Box::pin(ttl::persist(session, args)).await)
        }
        C::Scan(args) => block_on_beside(session, async |session| scan::run(session, args).await),
        C::BatchPut(args) => batch_put::run(session, &args),
        C::Produce(args) => produce::run(session, &args),
        C::Consume(args) => consume::run(session, &args),
        C::Backup(args) => backup::run(session, &args),
        C::Snapshot(args) => snapshot::run(session, args),
        C::Consumer(args) => block_on(session, async |session| consumer::run(session, args).await),
        C::Collection(args) => {
            block_on(session, async |session| Box::pin(collection::run(session, args)).await)
        }
        C::Status(args) => block_on(session, async |session| status::run(session, args).await),
        C::Health(args) => block_on(session, async |session| health::run(session, args).await),
        C::Metrics(args) => block_on(session, async |session| metrics::run(session, args).await),
        C::Wal(args) => wal::run(session, args),
        C::Doctor(args) => doctor::run(session, &args),
        C::Bench(args) => bench::run(session, args),
        C::Version(args) => block_on(session, async |session| version::run(session, args).await),
        C::Completions(args) => completions::run(session, &args),
        C::Man(args) => man::run(session, &args),
        C::Help(args) => help::run(session, &args),
    }
}

/// Runs a command on the thread it was called on, until it ends or a signal does.
///
/// # Errors
/// Those of the command; 130 or 143 after a signal.
pub fn block_on(
    session: &mut Session,
    command: impl AsyncFnOnce(&mut Session) -> Result,
) -> Result {
    run_in(runtime()?, session, command)
}

/// As [`block_on`], for a command that prints without end: a reader of stdout that pauses holds up neither the
/// connection nor, for long, a signal.
///
/// # Errors
/// As [`block_on`].
pub fn block_on_beside(
    session: &mut Session,
    command: impl AsyncFnOnce(&mut Session) -> Result,
) -> Result {
    let runtime = threaded_runtime()?;
    runtime.spawn(end_a_stuck_process());
    run_in(runtime, session, command)
}

fn run_in(
    runtime: tokio::runtime::Runtime,
    session: &mut Session,
    command: impl AsyncFnOnce(&mut Session) -> Result,
) -> Result {
    let is_writing = session.is_writing.clone();
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            ended = command(session) => ended,
            code = signals.next() => Err(interrupted(code, is_writing.get())),
        }
    });
    // Work on a thread that blocks clears up after itself, if it can.
    runtime.shutdown_timeout(CLEARING_UP);
    ended
}

/// Ends the process after a signal, where the thread that should do so waits for a reader of stdout. It goes with
/// its runtime, and so does nothing where that ends in time.
pub async fn end_a_stuck_process() {
    let Ok(mut signals) = Signals::new() else { return };
    let code = signals.next().await;
    tokio::time::sleep(STUCK).await;
    #[expect(clippy::exit, reason = "the thread that would return from main does not come back")]
    std::process::exit(i32::from(code));
}

/// Returns a runtime on the calling thread; it starts faster than one with threads.
///
/// # Errors
/// Exit 13.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("start the runtime", &error).into())
}

/// Returns a runtime with a thread of its own, for a command that blocks on the calling one.
///
/// # Errors
/// Exit 13.
pub fn threaded_runtime() -> Result<tokio::runtime::Runtime> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::io("start the runtime", &error).into())
}

fn interrupted(code: u8, is_writing: bool) -> Stop {
    if is_writing {
        let message = "interrupted: the write under way may or may not be applied";
        return Failure::interrupted(code, message).outcome(Outcome::Unknown).into();
    }
    Stop::Quiet(code)
}

/// The signals that end a client command.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over; call it inside a runtime.
    ///
    /// # Errors
    /// Exit 13.
    pub fn new() -> Result<Self> {
        let listen = |kind| -> Result<Signal> {
            signal(kind).map_err(|error| Failure::io("listen for signals", &error).into())
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal and returns the exit code that stands for it.
    ///
    /// Cancel safety: a signal is not lost when the future is dropped.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => exit::INTERRUPTED,
            _ = self.terminate.recv() => exit::TERMINATED,
        }
    }
}

/// Writes text that is a result, such as help, to stdout.
pub(super) fn print(text: &str) -> u8 {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            let failure = Failure::io("write to standard output", &error);
            Talk::plain().failure(&failure);
            failure.exit()
        }
    }
}
