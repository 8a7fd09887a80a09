//! `prkdb backup`: a whole node in one file, and back.

mod archive;
#[cfg(test)]
mod archive_tests;
mod create;
#[doc(hidden)]
pub mod fuzz;
mod inspect;
mod restore;

use crate::commands::{
    failure::Result,
    run::{block_on, threaded_runtime},
    session::Session,
};

const EXAMPLES: &str = "\
Examples:
  prkdb backup create nightly.backup --compress zstd
  prkdb backup verify nightly.backup
  prkdb backup inspect nightly.backup
  prkdb backup restore nightly.backup --data-dir ./restored";

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a backup of a running node to a file
    Create(create::CreateArgs),
    /// Check every file of a backup by its checksum
    Verify(inspect::VerifyArgs),
    /// List what is in a backup, after checking it
    Inspect(inspect::InspectArgs),
    /// Make a data directory from a backup, as a cluster of its own
    Restore(restore::RestoreArgs),
}

/// Runs `backup`.
///
/// # Errors
/// 7 where the file exists, 9 where the directory is not empty, 12 for a damaged backup, 14 for one of a
/// later version.
pub fn run(session: &mut Session, args: &Args) -> Result {
    match &args.command {
        // A reader that pauses must not hold up the connection; a signal ends it wherever it is.
        Command::Create(args) if args.is_stdout() => {
            threaded_runtime()?.block_on(create::run(session, args))
        }
        Command::Create(args) => {
            block_on(session, async |session| create::run(session, args).await)
        }
        Command::Verify(args) => inspect::verify(session, args),
        Command::Inspect(args) => inspect::inspect(session, args),
        Command::Restore(args) => {
            block_on(session, async |session| restore::run(session, args).await)
        }
    }
}
