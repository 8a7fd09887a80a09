//! The flags of `serve`, and the file that may stand in for them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::FromArgMatches as _;

use crate::commands::{
    collection::PartitionerArg,
    config::{nearest, parse_toml, read_text},
    failure::{Failure, Result},
    values,
};

const EXAMPLES: &str = "\
Examples:
  prkdb serve --data-dir ./data
  prkdb serve --listen 127.0.0.1:0 --http none --data-dir ./data
  prkdb serve --listen 0.0.0.0:9090 --advertise db1.lan:9090 --allow-insecure
  prkdb serve --config /etc/prkdb/server.toml --check";

/// Arguments of `serve`. Each may also stand in the file of `--config`, with '_' for '-'.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = LONG)]
pub struct Args {
    /// Id of the node, kept at the first start [default: 1]
    #[arg(long, value_name = "N", env = "PRKDB_NODE_ID", hide_env_values = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: Option<u64>,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", env = "PRKDB_LISTEN", hide_env_values = true,
        value_parser = values::listen_address)]
    pub listen: Option<String>,
    /// Address that others reach it at [default: that of --listen]
    #[arg(long, value_name = "ADDR", env = "PRKDB_ADVERTISE", hide_env_values = true,
        value_parser = values::listen_address)]
    pub advertise: Option<String>,
    /// Address of /livez, /readyz, /metrics and /version, or 'none' [default: port of --listen + 1000, else 127.0.0.1:9091]
    #[arg(long, value_name = "ADDR", env = "PRKDB_HTTP", hide_env_values = true)]
    pub http: Option<String>,
    /// Directory of the data [default: ./prkdb-data/node-<ID>]
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Number of data shards, at the first start [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub shards: Option<u32>,
    /// Partitions of the collection 'default', at the first start [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: Option<u32>,
    /// Partitioner of the collection 'default', at the first start [default: ring]
    #[arg(long, value_enum)]
    pub partitioner: Option<PartitionerArg>,
    /// Size that the segments of a log grow to [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub segment_bytes: Option<u64>,
    /// Growth of a log from one checkpoint to the next, at least [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub checkpoint_bytes: Option<u64>,
    /// Silence after which a replica asks for votes [default: 500ms..800ms]
    #[arg(long, value_name = "MIN..MAX", value_parser = range)]
    pub election_timeout: Option<(Duration, Duration)>,
    /// Pause between two signs of life of a leader [default: 100ms]
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub heartbeat: Option<Duration>,
    /// Listen without encryption where others than this machine may connect
    #[arg(long)]
    pub allow_insecure: bool,
    /// Largest key, up to 64KiB [default: 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub max_key: Option<u64>,
    /// Largest value, up to 16MiB [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub max_value: Option<u64>,
    /// Largest message, batch and entry; at least --max-value + 1MiB [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub max_message: Option<u64>,
    /// Most connections [default: a quarter of the memory in windows of 16MiB, at most 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// Memory of the key index [default: 40 % of the memory]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub index_memory: Option<u64>,
    /// Form of the logs on stderr [default: auto]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Filter of the logs, such as info or prkdb=debug [default: info, consensus at warn]
    #[arg(long, value_name = "FILTER", env = "PRKDB_LOG", hide_env_values = true)]
    pub log_level: Option<String>,
    /// File to write when the node is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// File to write the process id to when the node is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Time to finish what is under way after SIGTERM [default: 10s]
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub shutdown_timeout: Option<Duration>,
    /// Check configuration and data directory, start nothing
    #[arg(long)]
    pub check: bool,
}

const LONG: &str = "\
When the node serves, it prints one line, such as
  prkdb ready node=1 grpc=127.0.0.1:9090 http=127.0.0.1:9091
SIGTERM and SIGINT end it after what is under way; a second one ends it at once.

Examples:
  prkdb serve --data-dir ./data
  prkdb serve --listen 127.0.0.1:0 --http none --data-dir ./data
  prkdb serve --listen 0.0.0.0:9090 --advertise db1.lan:9090 --allow-insecure
  prkdb serve --config /etc/prkdb/server.toml --check";

/// The form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal and under the journal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object for each event.
    Json,
}

fn range(text: &str) -> std::result::Result<(Duration, Duration), String> {
    let (min, max) = text
        .split_once("..")
        .ok_or_else(|| "write two durations, such as 500ms..800ms".to_owned())?;
    Ok((values::duration(min)?, values::duration(max)?))
}

impl Args {
    /// Fills what flags and environment leave open from a file.
    ///
    /// # Errors
    /// 13 where it cannot be read, 2 where it is wrong, with its place.
    pub fn with_file(self, path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let file = Self::parse_file(&text, &path.display().to_string())?;
        Ok(self.or(file))
    }

    /// Reads a file by way of the flags: the same names, values and limits.
    pub(super) fn parse_file(text: &str, shown: &str) -> Result<Self> {
        let table: toml::Table = parse_toml(text, shown)?;
        let command = Self::command_without_environment();
        let mut args = vec![OsString::from("serve")];
        for (key, value) in &table {
            let line = text.lines().position(|line| line.trim_start().starts_with(key.as_str()));
            let place = format!("{shown}:{}:1", line.map_or(1, |line| line + 1));
            let long = key.replace('_', "-");
            let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(&*long))
            else {
                return Err(unknown_key(&command, &place, key));
            };
            let value = match value {
                toml::Value::Boolean(false) => continue,
                toml::Value::Boolean(true) if !arg.get_action().takes_values() => None,
                toml::Value::String(text) => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                other => {
                    let message =
                        format!("{place}: {key}: a {} is no value for it", other.type_str());
                    return Err(Failure::usage(message).into());
                }
            };
            let one = match value {
                None => format!("--{long}"),
                Some(value) => format!("--{long}={value}"),
            };
            if let Err(error) = command.clone().try_get_matches_from(["serve", &one]) {
                let text = error.to_string();
                let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                return Err(Failure::usage(format!("{place}: {message}")).into());
            }
            args.push(one.into());
        }
        let parsed = command.try_get_matches_from(args).and_then(|m| Self::from_arg_matches(&m));
        parsed.map_err(|error| Failure::usage(format!("{shown}: {error}")).into())
    }

    fn command_without_environment() -> clap::Command {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("serve"));
        command.mut_args(|arg| arg.env(None::<&str>))
    }

    /// Takes from `other` what is not set here.
    fn or(self, other: Self) -> Self {
        Self {
            node_id: self.node_id.or(other.node_id),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            http: self.http.or(other.http),
            data_dir: self.data_dir.or(other.data_dir),
            shards: self.shards.or(other.shards),
            partitions: self.partitions.or(other.partitions),
            partitioner: self.partitioner.or(other.partitioner),
            segment_bytes: self.segment_bytes.or(other.segment_bytes),
            checkpoint_bytes: self.checkpoint_bytes.or(other.checkpoint_bytes),
            election_timeout: self.election_timeout.or(other.election_timeout),
            heartbeat: self.heartbeat.or(other.heartbeat),
            allow_insecure: self.allow_insecure || other.allow_insecure,
            max_key: self.max_key.or(other.max_key),
            max_value: self.max_value.or(other.max_value),
            max_message: self.max_message.or(other.max_message),
            max_connections: self.max_connections.or(other.max_connections),
            index_memory: self.index_memory.or(other.index_memory),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            ready_file: self.ready_file.or(other.ready_file),
            pid_file: self.pid_file.or(other.pid_file),
            shutdown_timeout: self.shutdown_timeout.or(other.shutdown_timeout),
            check: self.check || other.check,
        }
    }
}

fn unknown_key(command: &clap::Command, place: &str, key: &str) -> crate::commands::failure::Stop {
    let names: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(|long| long.replace('-', "_")))
        .collect();
    let failure = Failure::usage(format!("{place}: unknown key '{key}'"));
    match nearest(key, names.iter().map(String::as_str)) {
        Some(name) => failure.hint(format!("did you mean '{name}'?")),
        None => failure,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    #[test]
    fn a_file_has_the_names_and_limits_of_the_flags() {
        let file =
            "node_id = 7\nlisten = \"127.0.0.1:1\"\nmax_value = \"2MiB\"\nallow_insecure = true\n";
        let args = Args::parse_file(file, "server.toml").unwrap();
        assert_eq!(
            (args.node_id, args.max_value, args.allow_insecure),
            (Some(7), Some(2 << 20), true)
        );
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = Args::parse_file("node_id = 7\nshards = 2\n", "server.toml").unwrap();
        let args = Args { node_id: Some(1), ..Args::default() }.or(file);
        assert_eq!((args.node_id, args.shards), (Some(1), Some(2)));
    }

    #[test]
    fn wrong_files_name_the_place() {
        for (text, expected) in [
            ("listen = \"127.0.0.1:1\"\nnode_ide = 7\n", "server.toml:2:1: unknown key 'node_ide'"),
            ("node_id = 0\n", "server.toml:1:1: invalid value '0'"),
            ("node_id = [1]\n", "server.toml:1:1: node_id: a array is no value"),
            ("heartbeat = 5\n", "server.toml:1:1: invalid value '5'"),
            ("node_id = \n", "server.toml:1:11:"),
        ] {
            let Err(Stop::Failed(failure)) = Args::parse_file(text, "server.toml") else {
                panic!("{text} was accepted")
            };
            assert!(failure.message().starts_with(expected), "{}", failure.message());
            assert_eq!(failure.exit(), 2);
        }
    }
}
