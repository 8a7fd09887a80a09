//! stub
use super::Node;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
pub async fn serve(_n: Arc<Node>, _l: TcpListener, s: CancellationToken) {
    s.cancelled().await;
}
