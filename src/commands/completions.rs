//! `prkdb completions`: a script for a shell.

use crate::commands::{failure::Result, session::Session, tree::cli};

const EXAMPLES: &str = "\
Examples:
  source <(prkdb completions bash)
  prkdb completions fish > ~/.config/fish/completions/prkdb.fish";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell
    shell: clap_complete::Shell,
}

/// Runs `completions`.
///
/// # Errors
/// 13 where it cannot be written.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli(), "prkdb", &mut script);
    session.output.bytes(&script)
}
