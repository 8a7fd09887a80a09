//! Logs of the process, on stderr.

use std::{io::IsTerminal as _, sync::Arc};

use tracing_subscriber::{EnvFilter, fmt};

use crate::commands::{
    failure::{Failure, Result},
    serve::LogFormat,
};

/// The variable that holds a filter, such as `info` or `prkdb_client=debug`.
pub(crate) const VARIABLE: &str = "PRKDB_LOG";

/// Installs the logs of a client command: warnings, more with each `-v`.
///
/// # Errors
/// A wrong filter in the environment is exit 2.
pub(crate) fn client(verbose: u8) -> Result {
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
    let _installed = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Changes what a running node logs.
pub(super) type Refilter = Arc<dyn Fn(Option<&str>) -> Result + Send + Sync>;

/// Installs the logs of a node; returns what changes their filter.
///
/// # Errors
/// A wrong filter is exit 2.
pub(super) fn server(format: LogFormat, level: Option<&str>) -> Result<Refilter> {
    let builder =
        fmt().with_env_filter(server_filter(level)?).with_writer(std::io::stderr).with_ansi(false);
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let is_text = match format {
        LogFormat::Auto => is_journal || std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // Builders of different formats are of different types.
    macro_rules! install {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            // A second installation in one process, as in tests, keeps the first.
            let _installed = tracing::subscriber::set_global_default(builder.finish());
            Arc::new(move |level: Option<&str>| {
                // Without a subscriber there is nothing to change.
                let _changed = handle.reload(server_filter(level)?);
                Ok(())
            })
        }};
    }
    Ok(match (is_text, is_journal) {
        (true, false) => install!(builder),
        // The journal has its own timestamps.
        (true, true) => install!(builder.without_time()),
        (false, _) => install!(builder.json()),
    })
}

fn server_filter(level: Option<&str>) -> Result<EnvFilter> {
    // The library of consensus tells its own steps at `info`: a person need not read them.
    let level = level.unwrap_or(crate::node::LOG_FILTER);
    EnvFilter::try_new(level)
        .map_err(|error| Failure::usage(format!("--log-level: '{level}': {error}")).into())
}
