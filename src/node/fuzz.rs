//! What mutated bytes are given to: the decoders of consensus, and every method of the services.
//!
//! A method is called as the transport calls it, with the bytes behind the headers of HTTP/2: what is
//! read of them, and what becomes of it, is what a node does for a client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prkdb_proto::v1::{
    admin_server::AdminServer, collections_server::CollectionsServer, groups_server::GroupsServer,
    kv_server::KvServer, stream_server::StreamServer, txn_server::TxnServer,
};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::{Service as _, http},
};

use super::{
    Config, Node, NodeError,
    boot::{self, Booted},
    core::Phase,
    fatal::Fatal,
    raft::{membership_from_bytes, membership_to_bytes},
    run::boot,
    security::AllowAll,
    service::{Context, KvService, StreamService, TxnService},
};
use crate::{
    admin::{AdminService, CollectionsService, GroupsService},
    storage::clock::{Clock as _, SystemClock},
};

/// More of an answer is not read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Reads the membership of a log, and returns what would be written for it.
pub fn membership(bytes: &Bytes) -> Option<Bytes> {
    membership_from_bytes(bytes).ok().map(|membership| membership_to_bytes(&membership))
}

/// A service whose methods are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// `Kv`.
    Kv,
    /// `Stream`.
    Stream,
    /// `Txn`.
    Txn,
    /// `Collections`.
    Collections,
    /// `Groups`.
    Groups,
    /// `Admin`.
    Admin,
}

/// A node that no port leads to. Nobody else's calls disturb what is asked of it.
pub struct Served {
    node: Arc<Node>,
    booted: Option<Booted>,
    fatal: Fatal,
    stop: CancellationToken,
    runtime: Runtime,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Served {
    /// Starts a node in a directory, as [`super::run`] does.
    ///
    /// # Errors
    /// As there.
    pub fn start(config: Config) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Io { action: "start", path: "runtime".into(), source };
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
        let clock = Arc::new(SystemClock::new());
        let directory = Arc::new(boot::try_open_directory(&config, clock.as_ref())?);
        let (advertised, started) = ("127.0.0.1:9090".to_owned(), clock.monotonic());
        let node = Arc::new(Node::new(config, &directory, advertised, clock, started));
        let (fatal, handle) = (Fatal::default(), runtime.handle().clone());
        let booted = runtime.block_on(boot(&node, &directory, &handle, &fatal))?;
        node.enter(Phase::Serving);
        Ok(Self { node, booted: Some(booted), fatal, stop: CancellationToken::new(), runtime })
    }

    /// Calls a method with the bytes of a request's body: each message behind a zero and its length.
    /// Takes what is answered up to a number of bytes, and as long as `patience`; returns how many
    /// bytes came, and the code in the trailers if it got that far.
    ///
    /// # Errors
    /// What ended the node.
    pub fn call(
        &self,
        called: Called,
        method: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
        patience: Duration,
    ) -> Result<(u64, Option<i32>), NodeError> {
        let service = match called {
            Called::Kv => "Kv",
            Called::Stream => "Stream",
            Called::Txn => "Txn",
            Called::Collections => "Collections",
            Called::Groups => "Groups",
            Called::Admin => "Admin",
        };
        let mut request = http::Request::post(format!("/prkdb.v1.{service}/{method}"))
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // A header that HTTP does not allow never comes here.
        let Ok(request) = request.body(Body::new(Full::new(body))) else { return Ok((0, None)) };
        let answered = self.runtime.block_on(async {
            tokio::time::timeout(patience, async {
                let mut answer = Answer::of(self.answer(called, request).await);
                answer.read().await;
                (answer.bytes, answer.code)
            })
            .await
        });
        match self.fatal.take() {
            Some(error) => Err(error),
            None => Ok(answered.unwrap_or_default()),
        }
    }

    async fn answer(&self, called: Called, request: http::Request<Body>) -> http::Response<Body> {
        let bytes_max = self.node.config().max_message;
        let context = Context::new(Arc::clone(&self.node), Arc::new(AllowAll));
        let stop = self.stop.clone();
        let answered = match called {
            Called::Kv => {
                let service = KvServer::new(KvService::new(context, stop));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
            Called::Stream => {
                let service = StreamServer::new(StreamService::new(context, stop));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
            Called::Txn => {
                let service = TxnServer::new(TxnService::new(context));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
            Called::Collections => {
                let service = CollectionsServer::new(CollectionsService::new(context));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
            Called::Groups => {
                let service = GroupsServer::new(GroupsService::new(context));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
            Called::Admin => {
                let service = AdminServer::new(AdminService::new(context, stop));
                service.max_decoding_message_size(bytes_max).call(request).await
            }
        };
        let Ok(answer) = answered;
        answer
    }

    /// Returns how many partitions were ever given out.
    pub fn partitions(&self) -> u32 {
        self.node.catalog().next_partition()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(booted) = self.booted.take() {
            self.runtime.block_on(booted.stop());
        }
    }
}

/// An answer as far as it was read.
struct Answer {
    body: Body,
    bytes: u64,
    code: Option<i32>,
}

impl Answer {
    fn of(answer: http::Response<Body>) -> Self {
        let code = code(answer.headers());
        Self { body: answer.into_body(), bytes: 0, code }
    }

    async fn read(&mut self) {
        while let Some(Ok(frame)) = self.body.frame().await {
            if let Some(trailers) = frame.trailers_ref() {
                self.code = code(trailers);
            }
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.bytes > ANSWER_BYTES_MAX {
                return;
            }
        }
    }
}

fn code(headers: &http::HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
