//! stub
use crate::node::{Node, outcome::Failure};
pub async fn ensure_default(_n: &Node) -> Result<(), Failure> {
    Ok(())
}
pub async fn reconcile(_n: &Node) -> Result<(), Failure> {
    Ok(())
}
