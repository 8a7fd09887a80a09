//! stub
use super::{Node, NodeError, security::AllowAll};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
pub async fn serve(
    _n: Arc<Node>,
    _p: Arc<AllowAll>,
    _l: TcpListener,
    s: CancellationToken,
) -> Result<(), NodeError> {
    s.cancelled().await;
    Ok(())
}
