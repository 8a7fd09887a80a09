//! What is typed after `prkdb wal`.

use std::path::PathBuf;

use super::{dump, info, place::ReadArgs, repair, truncate, verify};
use crate::{
    commands::{failure::Result, session::Session},
    node::raise_files,
};

const EXAMPLES: &str = "\
Examples:
  prkdb wal verify --data-dir /var/lib/prkdb
  prkdb wal info --data-dir /var/lib/prkdb
  prkdb wal dump --data-dir /var/lib/prkdb --shard 1 -o ndjson";

/// Arguments of `wal`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the segments of the logs
    Info(InfoArgs),
    /// Print the records of a log in the order they were written
    Dump(DumpArgs),
    /// Check every entry of the logs and change nothing
    Verify(VerifyArgs),
    /// Cut damaged logs at the first entry that cannot be read
    Repair(RepairArgs),
    /// Cut a log behind an entry
    Truncate(TruncateArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb wal info --data-dir /var/lib/prkdb\n  prkdb wal info --data-dir /var/lib/prkdb --shard 1 -o json"
)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// One shard [default: all]
    #[arg(long, value_name = "N")]
    pub(super) shard: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb wal dump --data-dir /var/lib/prkdb --shard 1\n  prkdb wal dump --data-dir /var/lib/prkdb --shard 1 --kind vote,truncate --columns index,lsn,type,detail\n  prkdb wal dump --data-dir /var/lib/prkdb --shard 1 --raw-batches - | wc -c"
)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// Shard
    #[arg(long, value_name = "N")]
    pub(super) shard: u32,
    /// First index; entries that have none are left out
    #[arg(long, value_name = "INDEX")]
    pub(super) from: Option<u64>,
    /// Last index, inclusive; entries that have none are left out
    #[arg(long, value_name = "INDEX")]
    pub(super) to: Option<u64>,
    /// Only entries of the segment with this number
    #[arg(long, value_name = "NUMBER")]
    pub(super) segment: Option<u64>,
    /// Only entries of these kinds
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_enum)]
    pub(super) kind: Vec<dump::EntryKind>,
    /// Print no values and headers
    #[arg(long)]
    pub(super) keys_only: bool,
    /// Write the record batches end to end, as they are stored, to a new file; '-' is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "keys_only")]
    pub(super) raw_batches: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb wal verify --data-dir /var/lib/prkdb\n  prkdb wal verify --data-dir /var/lib/prkdb --deep -o json"
)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// One shard [default: all]
    #[arg(long, value_name = "N")]
    pub(super) shard: Option<u32>,
    /// Open every batch and read every record too
    #[arg(long)]
    pub(super) deep: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("target").required(true).args(["to", "in_place"]),
    after_help = "Examples:\n  prkdb wal repair --data-dir /var/lib/prkdb --to ./repaired\n  prkdb wal repair --data-dir /var/lib/prkdb --in-place --yes"
)]
pub(super) struct RepairArgs {
    /// Data directory of a stopped node
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR", hide_env_values = true)]
    pub(super) data_dir: PathBuf,
    /// Leave the directory as it is and write a repaired copy to this one, which must not exist
    #[arg(long, value_name = "DIR")]
    pub(super) to: Option<PathBuf>,
    /// Repair the directory itself; what is cut off is kept beside it as *.quarantine-<ms>
    #[arg(long)]
    pub(super) in_place: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb wal truncate --data-dir /var/lib/prkdb --shard 1 --after 1000000 --in-place\n  prkdb wal truncate --data-dir /var/lib/prkdb --shard 1 --after 1000000 --in-place --yes"
)]
pub(super) struct TruncateArgs {
    /// Data directory of a stopped node
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR", hide_env_values = true)]
    pub(super) data_dir: PathBuf,
    /// Shard
    #[arg(long, value_name = "N")]
    pub(super) shard: u32,
    /// Index of the last entry that is kept
    #[arg(long, value_name = "INDEX")]
    pub(super) after: u64,
    /// Change the directory itself; what is cut off is kept beside it as *.quarantine-<ms>
    #[arg(long, required = true)]
    pub(super) in_place: bool,
}

/// Runs `wal`.
///
/// # Errors
/// 12 where a log is damaged, 13 where there is no data directory, 14 where it is of a newer version, 15
/// where a node runs on it, 9 where a change is not confirmed.
pub fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    // As a node does: a log may have more segments than a shell lets a program open.
    let _limit = raise_files();
    match args.command {
        Command::Info(args) => info::run(session, &args),
        Command::Dump(args) => dump::run(session, &args),
        Command::Verify(args) => verify::run(session, &args),
        Command::Repair(args) => repair::run(session, &args),
        Command::Truncate(args) => truncate::run(session, &args),
    }
}
