//! Starting: the file of `--config`, logs, panics, the node.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, parser::ValueSource};

use super::{
    announce::{Facts, announce},
    args::Args,
    config,
    files::Announced,
};
use crate::{
    commands::{failure::Result, logging, panic},
    node::{self, Checked},
};

/// The variable that names the file.
const CONFIG_VARIABLE: &str = "PRKDB_SERVER_CONFIG";

/// Returns the server's file: `--config` on the command line, else its own variable.
///
/// `--config` is a global option; the variable and the places of the client's file do not count here.
pub fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    if matches.value_source("config") == Some(ValueSource::CommandLine) {
        return matches.get_one::<PathBuf>("config").cloned();
    }
    std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// As the table of exit codes says.
pub fn run(args: &Args, file: Option<&Path>) -> Result {
    panic::end_process();
    let args = match file {
        Some(path) => args.clone().with_file(path)?,
        None => args.clone(),
    };
    let config = config::config(&args)?;
    logging::server(args.log_format.unwrap_or_default(), args.log_level.as_deref())?;
    if args.check {
        let checked = node::check(&config).map_err(|error| config::failure(&error))?;
        if let Checked::InUse(holder) = checked {
            let pid = holder.pid.unwrap_or_default();
            tracing::warn!(pid, "the data directory is in use: its logs were not read");
        }
        return Ok(());
    }
    let mut announced = Announced::default();
    let stopped = node::run(config, |ready| {
        let facts = Facts { node_id: ready.node_id, grpc: ready.grpc, http: ready.http };
        announce(&facts, &args, &mut announced)
    });
    // The files say that the node is ready: they go before the process does.
    drop(announced);
    stopped.map(|_| ()).map_err(|error| config::failure(&error).into())
}
