//! Logs of the process, on stderr.

use tracing_subscriber::{EnvFilter, fmt};

use crate::commands::failure::{Failure, Result};

/// The variable that holds a filter, such as `info` or `prkdb_client=debug`.
pub const VARIABLE: &str = "PRKDB_LOG";

/// Installs the logs of a client command: warnings, more with each `-v`.
///
/// # Errors
/// A wrong filter in the environment is exit 2.
pub fn client(verbose: u8) -> Result {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if verbose == 0 && !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("{VARIABLE}: '{text}': {error}")))?,
        _ => EnvFilter::new(level),
    };
    let subscriber = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .finish();
    // A second installation in one process, as in tests, keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
