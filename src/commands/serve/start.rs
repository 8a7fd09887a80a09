//! Starting: the file of `--config`, logs, panics, the node; reading the file again.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, parser::ValueSource};

use super::{
    announce::{Facts, announce},
    args::Args,
    config,
    files::Announced,
    supervisor,
};
use crate::{
    commands::{
        failure::{Result, Stop},
        logging::{self, Refilter},
        panic,
    },
    node::{self, Checked, Process},
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
    named_config_file()
}

/// Returns the server's file that the environment names.
pub(in crate::commands) fn named_config_file() -> Option<PathBuf> {
    std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads a server's file as a start would, and starts nothing.
///
/// # Errors
/// 13 where it cannot be read, 2 where it is wrong.
pub(in crate::commands) fn check_file(path: &Path) -> Result {
    let args = Args::default().with_file(path)?;
    config::config(&args).map(drop)
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// As the table of exit codes says.
pub fn run(flags: &Args, file: Option<&Path>) -> Result {
    panic::end_process();
    let args = with_file(flags, file)?;
    let config = config::config(&args)?;
    let refilter = logging::server(args.log_format.unwrap_or_default(), args.log_level.as_deref())?;
    if args.check {
        let checked = node::check(&config).map_err(|error| config::failure(&error))?;
        if let Checked::InUse(holder) = checked {
            let pid = holder.pid.unwrap_or_default();
            tracing::warn!(pid, "the data directory is in use: its logs were not read");
        }
        return Ok(());
    }
    let mut announced = Announced::default();
    let (flags, file) = (flags.clone(), file.map(Path::to_path_buf));
    let process = Process::new(|ready| {
        let facts = Facts { node_id: ready.node_id, grpc: ready.grpc, http: ready.http };
        announce(&facts, &args, &mut announced)?;
        supervisor::ready();
        Ok(())
    })
    .on_stopping(supervisor::stopping)
    .on_reload(move || reload(&flags, file.as_deref(), &refilter));
    let stopped = node::run(config, process);
    // The files say that the node is ready: they go before the process does.
    drop(announced);
    stopped.map(|_| ()).map_err(|error| config::failure(&error).into())
}

fn with_file(flags: &Args, file: Option<&Path>) -> Result<Args> {
    match file {
        Some(path) => flags.clone().with_file(path),
        None => Ok(flags.clone()),
    }
}

/// Takes over from the file what a running node can change: the log level. A file that is wrong
/// changes nothing.
fn reload(flags: &Args, file: Option<&Path>, refilter: &Refilter) {
    supervisor::reloading();
    let read = with_file(flags, file).and_then(|args| {
        config::config(&args)?;
        refilter(args.log_level.as_deref())
    });
    match read {
        Ok(()) => tracing::info!("configuration read again: its log level holds now"),
        Err(Stop::Failed(failure)) => {
            let error = failure.message();
            tracing::error!(error, "configuration not read again: what held before holds on");
        }
        Err(Stop::Quiet(_)) => {}
    }
    supervisor::ready();
}
