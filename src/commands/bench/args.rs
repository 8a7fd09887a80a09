//! The flags of `bench`.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use prkdb_types::Compression;

use crate::commands::values;

const EXAMPLES: &str = "\
Examples:
  prkdb bench limits --data-dir ./data
  prkdb bench put --clients 64 --with-limits
  prkdb bench get --unary --expect-rate 20000
  prkdb bench produce --bytes 2GiB --with-limits
  prkdb bench consume --rate 100000";

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
    /// Measure puts and gets, mixed
    Mixed(MixedArgs),
    /// Measure producing batches of events
    Produce(EventArgs),
    /// Measure reading them, or, with --rate, from the time meant until they are read
    Consume(EventArgs),
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
#[command(
    after_help = "Examples:\n  prkdb bench mixed --clients 64 --reads 95\n  prkdb bench mixed --clients 64 --with-limits -o json"
)]
pub(super) struct MixedArgs {
    /// So many operations of a hundred are gets
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb bench produce --bytes 256MiB --partitions 3\n  prkdb bench produce --rate 100000 --duration 5s -o json\n  prkdb bench consume --bytes 256MiB --with-limits\n  prkdb bench consume --rate 100000 --duration 5s"
)]
pub(super) struct EventArgs {
    /// Producers, or readers, at a time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: u32,
    /// Partitions of the collection
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub partitions: u32,
    /// So many bytes of keys and values, all counted; consume reads what it has produced before [consume:
    /// 2GiB]
    #[arg(long, value_name = "SIZE", conflicts_with = "rate", value_parser = values::size)]
    pub bytes: Option<u64>,
    /// So long
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = values::duration)]
    pub duration: Duration,
    /// Size of a key; 0 = none
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = values::size)]
    pub key_size: u64,
    /// Size of a value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = values::size)]
    pub value_size: u64,
    /// Most records in a batch
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Most bytes in a batch
    #[arg(long, value_name = "SIZE", default_value = "2MiB", value_parser = values::size)]
    pub batch_bytes: u64,
    /// Batches under way for each producer
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,
    /// Codec of the batches
    #[arg(long, value_name = "CODEC", value_enum, default_value = "none")]
    pub compression: CompressionArg,
    /// Records begun in a second, in whole batches at fixed times; latency counts from the time meant
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate: Option<NonZeroU64>,
    /// Time before anything counts
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = values::duration)]
    pub warmup: Duration,
    /// Measure the limits of the machine in the same run, and print ratios
    #[arg(long)]
    pub with_limits: bool,
    /// Directory on the disk to measure with --with-limits
    #[arg(long, value_name = "DIR", default_value = ".", requires = "with_limits")]
    pub data_dir: PathBuf,
    /// Fail with exit code 1 if the 99th percentile is above
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub expect_p99: Option<Duration>,
    /// Fail with exit code 1 if fewer records in a second
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub expect_rate: Option<NonZeroU64>,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct EchoArgs {}

/// `--compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CompressionArg {
    /// As it is.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Self::None,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Snappy => Self::Snappy,
        }
    }
}
