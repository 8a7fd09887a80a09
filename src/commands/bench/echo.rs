//! The smallest call there is: bytes in, the same bytes out, over the transport that a node uses. It can
//! also be asked for another number of bytes: none, or all of them for a call without any.
//!
//! The server is a child process of the same program with a hidden command. Its one method is written
//! by hand (`/prkdb.bench.Echo/Call`, a message with one field of bytes): it is no part of the
//! protocol, so no node answers it.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    task::{Context, Poll},
};

use bytes::Bytes;
use prkdb_types::ErrorCode;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc as GrpcClient,
    codegen::{BoxFuture, Service, http, http::uri::PathAndQuery},
    server::{Grpc as GrpcServer, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::commands::{
    failure::{Failure, Result},
    session::Session,
};

const PATH: &str = "/prkdb.bench.Echo/Call";
const WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES: u32 = 1 << 20;
const MESSAGE_BYTES: usize = 8 << 20;

/// What goes both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
    /// So many bytes are wanted back; absent: the same ones.
    #[prost(uint32, optional, tag = "2")]
    wanted: Option<u32>,
}

/// What a call without bytes is answered with.
static ANSWER: [u8; MESSAGE_BYTES / 2] = [7; MESSAGE_BYTES / 2];

#[derive(Clone)]
struct EchoService;

impl NamedService for EchoService {
    const NAME: &'static str = "prkdb.bench.Echo";
}

impl UnaryService<Message> for EchoService {
    type Response = Message;
    type Future = BoxFuture<Response<Message>, Status>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        Box::pin(async move {
            let mut message = request.into_inner();
            if let Some(wanted) = message.wanted.take() {
                let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(ANSWER.len());
                message.payload = Bytes::from_static(&ANSWER).slice(..len);
            }
            Ok(Response::new(message))
        })
    }
}

impl Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = GrpcServer::new(ProstCodec::<Message, Message>::default())
                .max_decoding_message_size(MESSAGE_BYTES);
            Ok(grpc.unary(EchoService, request).await)
        })
    }
}

/// Serves until standard input ends, which it does with the parent process.
///
/// # Errors
/// 13 where no port can be had.
pub(super) async fn serve(session: &mut Session) -> Result {
    let failed = |error: std::io::Error| Failure::io("listen on 127.0.0.1:0", &error);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    session.output.line(&format!("echo {address}"))?;
    session.output.flush()?;
    let parent_is_gone = tokio::task::spawn_blocking(|| {
        // Whatever ends it, there is nobody to serve any more.
        let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    });
    let served = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(EchoService)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                let _joined = parent_is_gone.await;
            },
        );
    served
        .await
        .map_err(|error| Failure::of(ErrorCode::Io, format!("serve the echo: {error}")).into())
}

/// The child process, ended when dropped.
pub(super) struct Echo {
    child: Child,
    client: GrpcClient<Channel>,
}

impl Echo {
    /// Starts the child process and connects to it.
    ///
    /// # Errors
    /// 13 where it does not start.
    pub(super) async fn start() -> Result<Self> {
        let failed = |error: std::io::Error| Failure::io("start the echo", &error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["bench", "echo", "--config", "none"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let address = line.trim().strip_prefix("echo ").unwrap_or_default().to_owned();
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Failure::of(ErrorCode::Io, format!("start the echo: {error}")))?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Failure::of(ErrorCode::Io, format!("connect to the echo: {error}")))?;
        let client = GrpcClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        Ok(Self { child, client })
    }

    /// Sends bytes and waits for them.
    pub(super) async fn call(&self, payload: Bytes) -> std::result::Result<(), Failure> {
        self.ask(payload, None).await
    }

    /// Sends bytes and waits for so many others.
    pub(super) async fn ask(
        &self,
        payload: Bytes,
        wanted: Option<u32>,
    ) -> std::result::Result<(), Failure> {
        let mut client = self.client.clone();
        let failed = |why: String| Failure::of(ErrorCode::Unreachable, format!("echo: {why}"));
        client.ready().await.map_err(|error| failed(error.to_string()))?;
        let codec = ProstCodec::<Message, Message>::default();
        let length = wanted.map_or(payload.len(), |bytes| usize::try_from(bytes).unwrap_or(0));
        let request = Request::new(Message { payload, wanted });
        let answer = client.unary(request, PathAndQuery::from_static(PATH), codec).await;
        let answer = answer.map_err(|status| failed(status.to_string()))?.into_inner();
        if answer.payload.len() == length { Ok(()) } else { Err(failed("lost bytes".to_owned())) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
