//! `prkdb completions`: a script for a shell.

use clap_complete::env::Shells;
use prkdb_types::ErrorCode;

use crate::commands::{
    failure::{Failure, Result},
    session::Session,
    tree::cli,
};

const EXAMPLES: &str = "\
Examples:
  source <(prkdb completions bash)
  source <(prkdb completions bash --dynamic)
  prkdb completions fish > ~/.config/fish/completions/prkdb.fish

With --dynamic the shell calls prkdb for each completion, which asks the server for the names of collections:
source it when a shell starts instead of keeping it, so that it fits the program.";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell
    shell: clap_complete::Shell,
    /// Let the shell ask the program, which knows the names of collections too
    #[arg(long)]
    dynamic: bool,
}

/// Runs `completions`.
///
/// # Errors
/// 13 where it cannot be written.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let mut script = Vec::new();
    if args.dynamic {
        let internal =
            |why: String| Failure::of(ErrorCode::Internal, format!("completions: {why}"));
        let name = args.shell.to_string();
        let shells = Shells::builtins();
        let shell = shells.completer(&name).ok_or_else(|| internal(format!("no shell {name}")))?;
        shell
            .write_registration("COMPLETE", "prkdb", "prkdb", "prkdb", &mut script)
            .map_err(|error| internal(error.to_string()))?;
    } else {
        clap_complete::generate(args.shell, &mut cli(), "prkdb", &mut script);
    }
    session.output.bytes(&script)
}
