//! The flags of `bench`.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use crate::commands::values;

const EXAMPLES: &str = "\
Examples:
  prkdb bench limits --data-dir ./data
  prkdb bench put --clients 64 --with-limits
  prkdb bench get --unary --expect-rate 20000";

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Measure what this machine can do without a node
    Limits(LimitsArgs),
    /// Measure puts
    Put(LoadArgs),
    /// Measure gets
    Get(LoadArgs),
    /// The other side of the limits' calls
    #[command(hide = true)]
    Echo(EchoArgs),
}

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb bench limits\n  prkdb bench limits --data-dir /var/lib/prkdb -o json"
)]
pub(super) struct LimitsArgs {
    /// Directory on the disk to measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data_dir: PathBuf,
    /// Time for each figure
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = values::duration)]
    pub duration: Duration,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb bench put --clients 64 --duration 10s\n  prkdb bench get --clients 64 --with-limits -o json"
)]
pub(super) struct LoadArgs {
    /// Operations under way at a time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub clients: u32,
    /// So many operations
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub count: Option<NonZeroU64>,
    /// So long
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = values::duration)]
    pub duration: Duration,
    /// Size of a key
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = values::size)]
    pub key_size: u64,
    /// Size of a value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = values::size)]
    pub value_size: u64,
    /// Number of different keys
    #[arg(long, value_name = "N", default_value = "10000")]
    pub keyspace: NonZeroU64,
    /// Operations begun in a second, at fixed times; latency counts from the time meant
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate: Option<NonZeroU64>,
    /// Time before anything counts
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = values::duration)]
    pub warmup: Duration,
    /// Send each operation as a call of its own instead of over the stream
    #[arg(long)]
    pub unary: bool,
    /// Measure the limits of the machine in the same run, and print ratios
    #[arg(long)]
    pub with_limits: bool,
    /// Directory on the disk to measure with --with-limits
    #[arg(long, value_name = "DIR", default_value = ".", requires = "with_limits")]
    pub data_dir: PathBuf,
    /// Fail with exit code 1 if the 99th percentile is above
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub expect_p99: Option<Duration>,
    /// Fail with exit code 1 if the rate is below
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub expect_rate: Option<NonZeroU64>,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct EchoArgs {}
