//! The life of a node: bind, lock, recover, lead, serve; drain and stop.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, NodeError,
    boot::{self, Booted},
    config::HttpListen,
    core::{Node, Phase},
    fatal::Fatal,
    http, machine,
    security::AllowAll,
    server,
};
use crate::{
    admin,
    storage::{
        clock::{Clock, SystemClock},
        dir::DataDir,
    },
};

/// What is said of a node that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its id.
    pub node_id: u64,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where HTTP listens, if it does.
    pub http: Option<SocketAddr>,
}

/// How a node stopped that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The number of the signal.
    pub signal: i32,
}

/// What the process around a node does at the turns of its life.
pub struct Process<'a> {
    on_ready: Box<dyn FnOnce(&Ready) -> io::Result<()> + Send + 'a>,
    on_stopping: fn(),
    on_reload: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for Process<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

impl<'a> Process<'a> {
    /// A process that only hears that the node is ready.
    pub fn new(on_ready: impl FnOnce(&Ready) -> io::Result<()> + Send + 'a) -> Self {
        Self { on_ready: Box::new(on_ready), on_stopping: || {}, on_reload: Box::new(|| {}) }
    }

    /// Hears that the node drains and ends.
    #[must_use]
    pub fn on_stopping(self, on_stopping: fn()) -> Self {
        Self { on_stopping, ..self }
    }

    /// Hears SIGHUP, on a thread that may block.
    #[must_use]
    pub fn on_reload(self, on_reload: impl Fn() + Send + 'static) -> Self {
        Self { on_reload: Box::new(on_reload), ..self }
    }
}

/// Runs a node until it is told to stop. Blocks; builds its own runtimes.
///
/// # Errors
/// [`NodeError`]: what kept it from starting, or ended it.
pub fn run(config: Config, process: Process<'_>) -> Result<Stopped, NodeError> {
    config.check()?;
    let consensus = runtime("consensus", 1)?;
    let workers = thread::available_parallelism().map_or(2, usize::from).max(2);
    let data = runtime("data", workers)?;
    let handle = consensus.handle().clone();
    let result = data.block_on(live(config, handle, process));
    // Tasks still running hold connections that outlived the stop; they end with the process.
    data.shutdown_background();
    consensus.shutdown_background();
    result
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, NodeError> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|source| NodeError::Io { action: "start runtime", path: name.into(), source })
}

/// The sockets of a node.
struct Sockets {
    grpc: TcpListener,
    grpc_at: SocketAddr,
    http: Option<(TcpListener, SocketAddr)>,
}

async fn bind(config: &Config) -> Result<Sockets, NodeError> {
    let listen = |address: SocketAddr| async move {
        let failed = |source| NodeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        Ok::<_, NodeError>((listener, at))
    };
    let (grpc, grpc_at) = listen(config.listen).await?;
    let http = match config.http {
        HttpListen::Off => None,
        HttpListen::At(address) => Some(listen(address).await?),
    };
    Ok(Sockets { grpc, grpc_at, http })
}

async fn live(
    config: Config,
    consensus: Handle,
    process: Process<'_>,
) -> Result<Stopped, NodeError> {
    let Process { on_ready, on_stopping, on_reload } = process;
    let mut signals = Signals::listen()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let started = clock.monotonic();
    let sockets = bind(&config).await?;
    machine::check(&config, clock.as_ref())?;
    let directory = Arc::new(boot::open_directory(&config, clock.as_ref()).await?);
    machine::check_file_system(directory.path());
    let advertised = config.advertise.clone().unwrap_or_else(|| sockets.grpc_at.to_string());
    let ready = Ready {
        node_id: directory.identity().node_id,
        grpc: sockets.grpc_at,
        http: sockets.http.as_ref().map(|(_, at)| *at),
    };
    let node = Arc::new(Node::new(config, &directory, advertised, clock, started));
    let asked = signals.dump.take();
    let reloads =
        signals.hangup.take().map(|hangup| tokio::spawn(reload_on_signal(on_reload, hangup)));
    let servers = Servers::start(&node, sockets);
    let dumps = asked.map(|asked| tokio::spawn(dump_on_signal(Arc::clone(&node), asked)));
    let fatal = Fatal::default();
    let work = tokio::select! {
        booted = boot(&node, &directory, &consensus, &fatal) => booted,
        error = fatal.raised() => Err(error),
        signal = signals.next() => return Ok(servers.abandon(signal)),
    };
    let booted = match work {
        Ok(booted) => booted,
        Err(error) => {
            servers.stop.cancel();
            return Err(error);
        }
    };
    node.enter(Phase::Serving);
    info!(node = ready.node_id, grpc = %ready.grpc, "ready");
    on_ready(&ready).map_err(|source| NodeError::Io {
        action: "announce readiness",
        path: "the ready line or file".into(),
        source,
    })?;
    let ended = tokio::select! {
        signal = signals.next() => Ok(signal),
        error = fatal.raised() => Err(error),
    };
    let signal = match ended {
        Ok(signal) => signal,
        Err(error) => {
            // Nothing may be promised any more: no drain.
            servers.stop.cancel();
            return Err(error);
        }
    };
    on_stopping();
    for task in [dumps, reloads].into_iter().flatten() {
        task.abort();
    }
    let stopping = stop(&node, servers, booted);
    tokio::select! {
        stopped = stopping => match fatal.take() {
            Some(error) => Err(error),
            None => stopped.map(|()| Stopped { signal }),
        },
        // Nothing may be promised any more: no further drain.
        error = fatal.raised() => Err(error),
        again = signals.next() => {
            warn!(signal = again, "second signal: stopping at once");
            exit_at_once(again)
        }
    }
}

/// Opens the shards and waits until each of them takes writes.
pub(super) async fn boot(
    node: &Arc<Node>,
    directory: &Arc<DataDir>,
    consensus: &Handle,
    fatal: &Fatal,
) -> Result<Booted, NodeError> {
    let opened = {
        let (node, directory) = (Arc::clone(node), Arc::clone(directory));
        boot::off_runtime("open", move || boot::open_shards(&node, &directory)).await??
    };
    let booted = boot::start(node, directory, opened, consensus, fatal).await?;
    let catalogue = async {
        admin::ensure_default(node).await?;
        admin::reconcile(node).await
    };
    catalogue
        .await
        .map_err(|failure| NodeError::Consensus { shard: 0, reason: failure.to_string() })?;
    Ok(booted)
}

/// The tasks that listen.
struct Servers {
    stop: CancellationToken,
    grpc: JoinHandle<Result<(), NodeError>>,
    http: Option<JoinHandle<()>>,
}

impl Servers {
    fn start(node: &Arc<Node>, sockets: Sockets) -> Self {
        let stop = CancellationToken::new();
        let policy = Arc::new(AllowAll);
        let grpc = server::serve(Arc::clone(node), policy, sockets.grpc, stop.clone());
        let http = sockets.http.map(|(listener, _)| {
            tokio::spawn(http::serve(Arc::clone(node), listener, stop.clone()))
        });
        Self { stop, grpc: tokio::spawn(grpc), http }
    }

    /// Stops before the node was ever ready: nothing was promised.
    fn abandon(self, signal: i32) -> Stopped {
        self.stop.cancel();
        Stopped { signal }
    }
}

/// Finishes what is under way, writes what waits, and closes.
async fn stop(node: &Arc<Node>, servers: Servers, booted: Booted) -> Result<(), NodeError> {
    info!("stopping");
    node.enter(Phase::Stopping);
    let limit = node.config().shutdown_timeout;
    let grpc_abort = servers.grpc.abort_handle();
    let drained = async {
        servers.stop.cancel();
        let served = servers.grpc.await;
        if let Some(http) = servers.http {
            let _ended = http.await;
        }
        served
    };
    match tokio::time::timeout(limit, drained).await {
        Ok(Ok(Ok(())) | Err(_)) => {}
        Ok(Ok(Err(error))) => warn!(%error, "the server ended with an error"),
        // A call that does not end holds up nobody's writes: those are finished next.
        Err(_) => {
            warn!(?limit, "connections with calls under way are cut off");
            grpc_abort.abort();
        }
    }
    if tokio::time::timeout(limit.max(Duration::from_secs(1)), booted.stop()).await.is_err() {
        return Err(NodeError::ShutdownTimeout { limit });
    }
    info!("stopped");
    Ok(())
}

/// Logs how the shards are at every SIGUSR1.
async fn dump_on_signal(node: Arc<Node>, mut asked: Signal) {
    while asked.recv().await.is_some() {
        for handle in node.shards() {
            let stats = handle.shard.stats();
            info!(
                shard = handle.number,
                term = handle.term(),
                revision = handle.shard.revision(),
                lag = handle.lag(),
                segments = stats.segment_count,
                log_bytes = stats.log_bytes,
                keys = stats.keys,
                producers = stats.producers,
                "state"
            );
        }
        info!(phase = ?node.phase(), connections = node.limits().open_connections(), "state");
    }
}

/// Lets the process read its configuration again whenever it is asked.
async fn reload_on_signal(on_reload: Box<dyn Fn() + Send>, mut asked: Signal) {
    let mut on_reload = Some(on_reload);
    while asked.recv().await.is_some() {
        let Some(reload) = on_reload.take() else { return };
        let reloaded = boot::off_runtime("reload", move || {
            reload();
            reload
        });
        on_reload = reloaded.await.ok();
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// SIGUSR1, until a task takes it.
    dump: Option<Signal>,
    /// SIGHUP, until a task takes it.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> Result<Self, NodeError> {
        let on = |kind| {
            signal(kind).map_err(|source| NodeError::Io {
                action: "listen for signals",
                path: "the process".into(),
                source,
            })
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            dump: Some(on(SignalKind::user_defined1())?),
            hangup: Some(on(SignalKind::hangup())?),
        })
    }

    /// Waits for the next one and returns its number.
    ///
    /// Cancel safety: a signal is not lost.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// A shell's code for a process that a signal ended.
const SIGNAL_EXIT_BASE: i32 = 128;

#[expect(clippy::exit, reason = "a second signal asks for just this; the log recovers from it")]
fn exit_at_once(signal: i32) -> ! {
    std::process::exit(SIGNAL_EXIT_BASE + signal)
}
