//! Starting: the file of `--config`, logs, panics, the node.

use std::path::PathBuf;

use clap::{ArgMatches, parser::ValueSource};

use super::{args::Args, settings::Settings};
use crate::commands::{
    failure::{Failure, Result},
    panic,
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
pub fn run(args: &Args, config: Option<&std::path::Path>) -> Result {
    panic::end_process();
    let args = match config {
        Some(path) => args.clone().with_file(path)?,
        None => args.clone(),
    };
    let settings = Settings::of(&args)?;
    Err(Failure::usage(format!("{settings:?}")).into())
}
