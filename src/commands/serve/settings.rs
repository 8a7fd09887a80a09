//! What a node is started with: flags, file and defaults, checked together.
//!
//! All that is wrong is told at once, before anything is bound or written.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::args::Args;
use crate::commands::{
    collection::PartitionerArg,
    failure::{Failure, Result},
};

const MIB: u64 = 1 << 20;
const KEY_BYTES_MAX: u64 = 64 << 10;
const VALUE_BYTES_MAX: u64 = 16 * MIB;
const MESSAGE_BYTES_MAX: u64 = 64 * MIB;
const SEGMENT_BYTES_MIN: u64 = 4 * MIB;

/// The settings of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its id.
    pub node_id: u64,
    /// Where it listens, as host and port.
    pub listen: String,
    /// Where others reach it.
    pub advertise: Option<String>,
    /// Where it answers HTTP; `None` = nowhere.
    pub http: Option<String>,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Data shards at the first start.
    pub shards: u32,
    /// Partitions of the first collection.
    pub partitions: u32,
    /// Partitioner of the first collection.
    pub partitioner: PartitionerArg,
    /// What segments grow to.
    pub segment_bytes: u64,
    /// When a replica asks for votes: at least and at most.
    pub election_timeout: (Duration, Duration),
    /// Between two signs of life of a leader.
    pub heartbeat: Duration,
    /// The largest key.
    pub max_key: u64,
    /// The largest value.
    pub max_value: u64,
    /// The largest message.
    pub max_message: u64,
    /// The most connections; `None` = by the machine's memory.
    pub max_connections: Option<u32>,
    /// Memory of the key index; `None` = by the machine's memory.
    pub index_memory: Option<u64>,
    /// Time to finish after SIGTERM.
    pub shutdown_timeout: Duration,
}

impl Settings {
    /// Checks flags and adds defaults.
    ///
    /// # Errors
    /// Exit 2, with everything that is wrong.
    pub fn of(args: &Args) -> Result<Self> {
        let mut problems = Vec::new();
        let node_id = args.node_id.unwrap_or(1);
        let listen = args.listen.clone().unwrap_or_else(|| "127.0.0.1:9090".to_owned());
        check_listen(args, &listen, &mut problems);
        let http = http(args, &listen).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let settings = Self {
            node_id,
            advertise: args.advertise.clone(),
            http,
            data_dir: args
                .data_dir
                .clone()
                .unwrap_or_else(|| PathBuf::from(format!("./prkdb-data/node-{node_id}"))),
            shards: args.shards.unwrap_or(1),
            partitions: args.partitions.unwrap_or(3),
            partitioner: args.partitioner.unwrap_or(PartitionerArg::Ring),
            segment_bytes: args.segment_bytes.unwrap_or(256 * MIB),
            election_timeout: args
                .election_timeout
                .unwrap_or((Duration::from_millis(500), Duration::from_millis(800))),
            heartbeat: args.heartbeat.unwrap_or(Duration::from_millis(100)),
            max_key: args.max_key.unwrap_or(4 << 10),
            max_value: args.max_value.unwrap_or(MIB),
            max_message: args.max_message.unwrap_or(8 * MIB),
            max_connections: args.max_connections,
            index_memory: args.index_memory,
            shutdown_timeout: args.shutdown_timeout.unwrap_or(Duration::from_secs(10)),
            listen,
        };
        // A value above the default limit of messages raises that limit where no flag sets it.
        let settings = match args.max_message {
            None => {
                Self { max_message: settings.max_message.max(settings.max_value + MIB), ..settings }
            }
            Some(_) => settings,
        };
        settings.check(&mut problems);
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(Failure::usage(problems.join("; ")).into())
    }

    fn check(&self, problems: &mut Vec<String>) {
        let mut limit = |flag: &str, value: u64, min: u64, max: u64| {
            if value < min || value > max {
                problems.push(format!("--{flag}: {value} is not from {min} to {max}"));
            }
        };
        limit("max-key", self.max_key, 1, KEY_BYTES_MAX);
        limit("max-value", self.max_value, 1, VALUE_BYTES_MAX);
        limit("max-message", self.max_message, self.max_value + MIB, MESSAGE_BYTES_MAX);
        limit("segment-bytes", self.segment_bytes, SEGMENT_BYTES_MIN, 4096 * MIB);
        let (min, max) = self.election_timeout;
        if min >= max {
            problems
                .push("--election-timeout: the first duration must be the shorter one".to_owned());
        }
        if self.heartbeat.is_zero() || self.heartbeat * 3 > min {
            problems.push(
                "--heartbeat: must be more than 0 and at most a third of the election timeout"
                    .to_owned(),
            );
        }
    }
}

/// Splits an address that the parser has accepted.
fn host_and_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_listen(args: &Args, listen: &str, problems: &mut Vec<String>) {
    let (host, _) = host_and_port(listen);
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) && args.advertise.is_none() {
        problems.push(format!("--advertise: needed with --listen {listen}, which names no host"));
    }
    let http = args.http.as_deref().filter(|http| *http != "none" && http.contains(':'));
    for (flag, address) in [("listen", Some(listen)), ("http", http)] {
        let Some(address) = address else { continue };
        if !is_loopback(host_and_port(address).0) && !args.allow_insecure {
            problems.push(format!(
                "--{flag} {address}: others than this machine could connect without encryption; \
                 pass --allow-insecure to accept that"
            ));
        }
    }
}

/// The address of HTTP: as given, or beside the port of `--listen`.
fn http(args: &Args, listen: &str) -> std::result::Result<Option<String>, String> {
    match args.http.as_deref() {
        Some("none") => return Ok(None),
        Some(address) => {
            let checked = crate::commands::values::listen_address(address);
            return checked.map(Some).map_err(|why| format!("--http: {why}"));
        }
        None if args.listen.is_none() => return Ok(Some("127.0.0.1:9091".to_owned())),
        None => {}
    }
    let (host, port) = host_and_port(listen);
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.is_loopback() => format!("[{host}]"),
        _ if is_loopback(host) => host.to_owned(),
        _ => "127.0.0.1".to_owned(),
    };
    if port == 0 {
        return Ok(Some(format!("{host}:0")));
    }
    match port.checked_add(1000) {
        Some(port) => Ok(Some(format!("{host}:{port}"))),
        None => {
            Err(format!("--http: the port of --listen {listen} + 1000 is above 65535; name one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    fn listen(address: &str) -> Args {
        Args { listen: Some(address.to_owned()), ..Args::default() }
    }

    fn problems(args: &Args) -> String {
        let Err(Stop::Failed(failure)) = Settings::of(args) else { panic!("accepted") };
        assert_eq!(failure.exit(), 2);
        failure.message()
    }

    #[test]
    fn http_stands_beside_the_port_of_listen() {
        for (address, expected) in [
            ("127.0.0.1:9090", "127.0.0.1:10090"),
            ("127.0.0.2:0", "127.0.0.2:0"),
            ("[::1]:7000", "[::1]:8000"),
            ("localhost:7000", "localhost:8000"),
        ] {
            assert_eq!(Settings::of(&listen(address)).unwrap().http.as_deref(), Some(expected));
        }
        let defaults = Settings::of(&Args::default()).unwrap();
        assert_eq!(defaults.http.as_deref(), Some("127.0.0.1:9091"));
        assert!(problems(&listen("127.0.0.1:65000")).contains("above 65535"));
    }

    #[test]
    fn a_public_address_needs_a_word_and_a_name() {
        let open = listen("0.0.0.0:9090");
        let text = problems(&open);
        assert!(text.contains("--advertise") && text.contains("--allow-insecure"), "{text}");
        let args = Args { allow_insecure: true, advertise: Some("db1:9090".into()), ..open };
        assert_eq!(Settings::of(&args).unwrap().http.as_deref(), Some("127.0.0.1:10090"));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let args = Args {
            max_key: Some(1 << 20),
            max_value: Some(8 << 20),
            max_message: Some(8 << 20),
            heartbeat: Some(Duration::from_secs(1)),
            ..Args::default()
        };
        let text = problems(&args);
        for flag in ["--max-key", "--max-message", "--heartbeat"] {
            assert!(text.contains(flag), "{text}");
        }
    }

    #[test]
    fn a_large_value_raises_the_limit_of_messages() {
        let args = Args { max_value: Some(16 << 20), ..Args::default() };
        assert_eq!(Settings::of(&args).unwrap().max_message, 17 << 20);
    }
}
