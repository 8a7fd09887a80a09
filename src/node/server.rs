//! The gRPC server: connections, their windows, frames and limits. The bench's echo has the same windows
//! and frames, so that both are measured alike.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use prkdb_proto::{
    DESCRIPTOR_SET,
    v1::{
        admin_server::AdminServer, collections_server::CollectionsServer,
        groups_server::GroupsServer, kv_server::KvServer, stream_server::StreamServer,
        txn_server::TxnServer,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};
use tonic_health::ServingStatus;
use tracing::{debug, warn};

use super::{
    Node, NodeError,
    config::WINDOW_BYTES,
    core::Phase,
    limits::{self, CONNECTION_STREAMS_MAX, Connection as Place, HANDSHAKE_TIME_MAX},
    security::Policy,
    service::{Context, KvService, StreamService, TxnService},
};
use crate::admin::{AdminService, CollectionsService, GroupsService};

/// Largest HTTP/2 frame: bulk bytes travel in pieces of this size.
const FRAME_BYTES: u32 = 1 << 20;
const HEADER_LIST_BYTES: u32 = 16 << 10;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After this many streams that a client opened and reset it is turned away.
const PENDING_RESETS_MAX: usize = 100;
/// After a connection could not be accepted, the next one is tried so much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client sends first: the preface of HTTP/2.
const PREFACE_BYTES: usize = 24;
/// What the health service knows; the empty name is the node.
const SERVICES: [&str; 7] = [
    "",
    "prkdb.v1.Kv",
    "prkdb.v1.Stream",
    "prkdb.v1.Txn",
    "prkdb.v1.Collections",
    "prkdb.v1.Groups",
    "prkdb.v1.Admin",
];

/// Returns a server with the windows, frames and limits of a node.
fn builder() -> Server {
    Server::builder()
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Serves until told to stop, and then until the calls under way have ended.
///
/// # Errors
/// [`NodeError::Io`] if the server fails as a whole.
pub async fn serve(
    node: Arc<Node>,
    policy: Arc<dyn Policy>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    let failed = |source| NodeError::Io { action: "serve", path: node.advertised().into(), source };
    let (health, health_service) = tonic_health::server::health_reporter();
    let watch = tokio::spawn(report_health(Arc::clone(&node), health, stop.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| failed(io::Error::other(error)))?;
    let bytes_max = node.config().max_message;
    let context = Context::new(Arc::clone(&node), policy);
    let kv = KvServer::new(KvService::new(context.clone(), stop.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let streams = StreamServer::new(StreamService::new(context.clone(), stop.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let transactions = TxnServer::new(TxnService::new(context.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX);
    let groups =
        GroupsServer::new(GroupsService::new(context.clone())).max_decoding_message_size(bytes_max);
    let collections = CollectionsServer::new(CollectionsService::new(context.clone()))
        .max_decoding_message_size(bytes_max);
    let admin = AdminServer::new(AdminService::new(context, stop.clone()))
        .max_decoding_message_size(bytes_max);
    let incoming = Incoming { listener, node: Arc::clone(&node), pause: None };
    let served = builder()
        .add_service(kv)
        .add_service(streams)
        .add_service(transactions)
        .add_service(collections)
        .add_service(groups)
        .add_service(admin)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned())
        .await;
    // Ended by the stop, or together with the server.
    stop.cancel();
    let _ended = watch.await;
    served.map_err(|error| failed(io::Error::other(error)))
}

/// Keeps the health service telling what the node is doing.
async fn report_health(
    node: Arc<Node>,
    mut health: tonic_health::server::HealthReporter,
    stop: CancellationToken,
) {
    let mut phases = node.phases();
    loop {
        let status = match *phases.borrow_and_update() {
            Phase::Serving => ServingStatus::Serving,
            Phase::Replaying | Phase::Stopping => ServingStatus::NotServing,
        };
        for service in SERVICES {
            health.set_service_status(service, status).await;
        }
        tokio::select! {
            changed = phases.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    // Whoever watches is told, and their stream ends: it must not keep the node from stopping.
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

/// Accepts connections up to the limit; what is beyond it is closed and counted.
struct Incoming {
    listener: TcpListener,
    node: Arc<Node>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let accepted = match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(accepted) => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = self.node.limits().connect() else {
                        self.node.metrics().limit(limits::names::CONNECTIONS);
                        debug!(%peer, "connection turned away: max-connections");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%peer, %error, "connection closed before it began");
                        continue;
                    }
                    let opening = Opening {
                        bytes_left: PREFACE_BYTES,
                        limit: Box::pin(sleep(HANDSHAKE_TIME_MAX)),
                    };
                    let connection = Connection { stream, opening: Some(opening), place };
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(error) => {
                    // No descriptor is free, or the peer is gone: the next one may do better, but
                    // not at once, or nothing else would be done.
                    warn!(%error, "connection not accepted");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// A connection and its place among them.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    opening: Option<Opening>,
    place: Place,
}

/// A connection that has not said yet that it speaks HTTP/2.
#[derive(Debug)]
struct Opening {
    bytes_left: usize,
    limit: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = Place;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.place.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(opening) = &mut self.opening else { return polled };
        match polled {
            Poll::Pending => {
                ready!(opening.limit.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(result) => {
                let read = buffer.filled().len() - before;
                opening.bytes_left = opening.bytes_left.saturating_sub(read);
                if opening.bytes_left == 0 {
                    self.opening = None;
                }
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
