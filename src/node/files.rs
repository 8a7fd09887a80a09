//! How many files the process may open: every segment and every connection is one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use super::NodeError;

/// With fewer, a node cannot serve its connections and its log at once.
const FILES_MIN: u64 = 256;
/// With fewer, a log of 256 GiB or a thousand connections is too much.
const FILES_ENOUGH: u64 = 4096;

/// Raises the limit as far as the process may.
///
/// # Errors
/// [`NodeError::Io`] if it stays below what a node needs.
pub(super) fn raise_limit() -> Result<(), NodeError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is `None`.
    match files {
        Some(files) if files < FILES_MIN => {
            let source = io::Error::other(format!(
                "{files}, a node needs {FILES_MIN}: raise it with LimitNOFILE= or ulimit -n"
            ));
            Err(NodeError::Io { action: "check limit of", path: "open files".into(), source })
        }
        Some(files) if files < FILES_ENOUGH => {
            warn!(files, "few files may be opened: raise the limit with LimitNOFILE= or ulimit -n");
            Ok(())
        }
        _ => Ok(()),
    }
}
