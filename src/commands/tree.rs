//! The tree of commands and the options that all of them share.
//!
//! [`cli`] is the one description: parsing, help, man pages, completions and tests use it.

use std::{path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum, builder::FalseyValueParser,
};

use crate::commands::{
    backup, batch_put, bench, collection, completions, consume, consumer, delete, demo, doctor,
    get, health, help, man, metrics,
    output::{Format, TimeStyle},
    produce, put, scan, serve, snapshot, status, ttl, values, version, wal,
};

/// Returns the command line of the program.
pub fn cli() -> clap::Command {
    Cli::command()
}

/// Stores keys on a replicated log, and serves it
#[derive(Debug, Parser)]
#[command(
    name = "prkdb",
    bin_name = "prkdb",
    version = version::VERSION.as_str(),
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    propagate_version = false,
    max_term_width = 100,
    after_long_help = EXAMPLES
)]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  prkdb serve --data-dir ./data
  prkdb put user:101 '{\"name\": \"Alice\"}'; prkdb get user:101";

/// Which colours to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which units to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Units {
    /// 12.3 MiB and 3m 2s in tables, integers elsewhere.
    Auto,
    /// Integers: bytes, milliseconds.
    Raw,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Global {
    /// Servers to begin with
    ///
    /// HOST, HOST:PORT, [V6]:PORT or http://...; port 9090 unless given
    #[arg(short, long = "server", value_name = "ADDR", global = true, env = "PRKDB_SERVER",
        value_delimiter = ',', action = ArgAction::Append, hide_env_values = true)]
    pub servers: Vec<String>,
    /// Connection profile of the configuration file
    #[arg(
        long,
        value_name = "NAME",
        global = true,
        env = "PRKDB_PROFILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub profile: Option<String>,
    /// Configuration file; 'none' reads no file
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "PRKDB_CONFIG",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub config: Option<PathBuf>,
    /// Output format
    ///
    /// One of table, plain, json, ndjson, csv, raw, prometheus; unless given: table on a terminal, plain
    /// elsewhere
    #[arg(
        short,
        long,
        value_name = "FMT",
        global = true,
        env = "PRKDB_OUTPUT",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub output: Option<Format>,
    /// Write integers of JSON as strings, for programs that round those above 2^53
    #[arg(long, global = true, hide_short_help = true)]
    pub json_int_strings: bool,
    /// Print no header row
    #[arg(long, global = true, hide_short_help = true)]
    pub no_headers: bool,
    /// Select and order columns
    #[arg(
        long,
        value_name = "A,B,...",
        global = true,
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub columns: Vec<String>,
    /// Sort a list by a column
    #[arg(long, value_name = "COL[:desc]", global = true, hide_short_help = true)]
    pub sort: Option<String>,
    /// Print at most N rows
    #[arg(long, value_name = "N", global = true, value_parser = values::limit,
        hide_short_help = true)]
    pub limit: Option<u64>,
    /// Units of sizes and durations
    #[arg(long, global = true, default_value = "auto", hide_short_help = true)]
    pub units: Units,
    /// Form of timestamps
    #[arg(
        long,
        global = true,
        env = "PRKDB_TIME",
        default_value = "utc",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub time: TimeStyle,
    /// Which colours to use.
    #[arg(
        long,
        help = "Colours; NO_COLOR and CLICOLOR_FORCE are respected",
        value_name = "WHEN",
        global = true,
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: ColorChoice,
    /// Print no confirmations, hints or progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How much is logged.
    #[arg(short, long, help = "Log to stderr; repeat for more (PRKDB_LOG takes filters)", global = true, action = ArgAction::Count, hide_short_help = true)]
    pub verbose: u8,
    /// Draw no progress
    #[arg(long, global = true, hide_short_help = true)]
    pub no_progress: bool,
    /// Confirm what is not severe
    #[arg(short, long, global = true, env = "PRKDB_YES", hide_env_values = true,
        value_parser = FalseyValueParser::new(), hide_short_help = true)]
    pub yes: bool,
    /// Never ask, even on a terminal
    #[arg(long, global = true, env = "PRKDB_NO_INPUT", hide_env_values = true,
        value_parser = FalseyValueParser::new(), hide_short_help = true)]
    pub no_input: bool,
    /// Deadline of the whole command, of a streaming one until its first answer; 0 = none [default: 10s]
    #[arg(long, value_name = "DUR", global = true, env = "PRKDB_TIMEOUT",
        value_parser = values::duration, hide_env_values = true, hide_short_help = true)]
    pub timeout: Option<Duration>,
    /// Limit for reaching one address [default: 2s]
    #[arg(long, value_name = "DUR", global = true, env = "PRKDB_CONNECT_TIMEOUT",
        value_parser = values::duration, hide_env_values = true, hide_short_help = true)]
    pub connect_timeout: Option<Duration>,
    /// Repetitions of an operation; a write is applied once [default: 3]
    #[arg(
        long,
        value_name = "N",
        global = true,
        env = "PRKDB_RETRIES",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub retries: Option<u32>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(Box<serve::Args>),
    /// Those that talk to one.
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands that talk to a node, or to nobody.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show what a node does, with real data in a temporary directory
    Demo(demo::Args),
    /// Store a value under a key
    Put(put::Args),
    /// Print the values of keys
    Get(get::Args),
    /// Delete keys
    #[command(visible_aliases = ["del", "rm"])]
    Delete(delete::Args),
    /// Print how long a key's value lasts
    Ttl(ttl::Args),
    /// Let a key's value end now, or after a time
    Expire(ttl::ExpireArgs),
    /// Let a key's value last for ever
    Persist(ttl::PersistArgs),
    /// Print keys in order
    Scan(scan::Args),
    /// Store many records from a file or standard input
    BatchPut(Box<batch_put::Args>),
    /// Append events from a file or standard input to a collection
    Produce(Box<produce::Args>),
    /// Print the records of a collection in their order, and follow it
    Consume(consume::Args),
    /// Back up a node, and make a directory from a backup
    Backup(backup::Args),
    /// Take, list and check snapshots: what a shard is as files
    Snapshot(snapshot::Args),
    /// List consumer groups
    #[command(visible_alias = "group")]
    Consumer(consumer::Args),
    /// Create, list, describe, alter and drop collections
    #[command(visible_alias = "topic")]
    Collection(collection::Args),
    /// Print the state of the nodes
    Status(status::Args),
    /// Check whether a node serves
    Health(health::Args),
    /// Print the metrics of a node
    Metrics(metrics::Args),
    /// Look at the logs of a stopped node, and mend them
    Wal(wal::Args),
    /// Check what a node needs of this machine and directory
    Doctor(doctor::Args),
    /// Measure this machine and a node
    Bench(bench::Args),
    /// Print the version
    Version(version::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print or write the manual pages
    Man(man::Args),
    /// Print help for a command or a topic
    Help(help::Args),
}
