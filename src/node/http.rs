//! HTTP beside gRPC: `/livez`, `/readyz`, `/metrics`, `/version`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Node, core::Phase};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A client has so long to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until told to stop.
pub async fn serve(node: Arc<Node>, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // No descriptor is free, perhaps: others need the processor to give one back.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let node = Arc::clone(&node);
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(&node, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                debug!(%error, "http connection ended");
            }
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

fn respond(node: &Arc<Node>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "live\n".to_owned()),
        "/readyz" => match not_ready(node) {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => with_type(StatusCode::OK, METRICS, node.metrics().render(node)),
        "/version" => text(StatusCode::OK, format!("{}\n", crate::admin::VERSION)),
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

/// Returns why the node is not ready.
fn not_ready(node: &Node) -> Option<String> {
    match node.phase() {
        Phase::Replaying => Some("replaying log".to_owned()),
        Phase::Stopping => Some("stopping".to_owned()),
        Phase::Serving => node
            .shards()
            .iter()
            .find(|handle| !handle.is_leading())
            .map(|handle| format!("shard {} has no leader", handle.number)),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, TEXT, body)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
