//! A proxy that loses replies.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Forwards connections to a node.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct State {
    /// Bytes of a request whose reply is to be lost.
    marker: Mutex<Option<Vec<u8>>>,
    /// The marker has passed: nothing more goes back to the client.
    silent: AtomicBool,
    /// Counts the times that all connections were cut.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let own = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(node).await.unwrap();
                connections.spawn(forward(client, server, Arc::clone(&own)));
            }
        });
        Self { address, state, accepting: accepting.abort_handle() }
    }

    /// From the request with these bytes on, no reply reaches a client until [`Self::cut`].
    pub(crate) fn lose_reply_to(&self, marker: &[u8]) {
        *self.state.marker() = Some(marker.to_vec());
    }

    /// Whether the request has passed and its reply is being lost.
    pub(crate) fn is_silent(&self) -> bool {
        self.state.silent.load(Ordering::SeqCst)
    }

    /// Cuts all connections; those that come are served well.
    pub(crate) fn cut(&self) {
        // In this order: whoever sees that there is no silence any more sees the cut too.
        self.state.cuts.send_modify(|cuts| *cuts += 1);
        self.state.silent.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn marker(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for the marker in what a client has sent.
    fn look(&self, sent: &[u8]) {
        let mut marker = self.marker();
        let is_there =
            |marker: &Vec<u8>| sent.windows(marker.len()).any(|window| window == marker.as_slice());
        if marker.as_ref().is_some_and(is_there) {
            *marker = None;
            self.silent.store(true, Ordering::SeqCst);
        }
    }
}

async fn forward(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    cuts.mark_unchanged();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = requests(from_client, to_server, &state) => {}
        () = replies(from_server, to_client, &state, cuts.clone()) => {}
        _ = cuts.changed() => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut bytes = vec![0; 64 << 10];
    // What was sent lately: a marker may come in two parts.
    let mut sent = Vec::new();
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let part = bytes.get(..read).unwrap();
        sent.extend_from_slice(part);
        state.look(&sent);
        sent.drain(..sent.len().saturating_sub(256));
        if to.write_all(part).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    cuts: watch::Receiver<u64>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        // A reply may come between the end of the silence and the end of its connection.
        if state.silent.load(Ordering::SeqCst) || cuts.has_changed().unwrap_or(true) {
            continue;
        }
        if to.write_all(bytes.get(..read).unwrap()).await.is_err() {
            return;
        }
    }
}
