//! What a node is told, with its defaults and limits.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use prkdb_types::{Partitioner, limits};

use super::NodeError;
use crate::storage::{
    CHECKPOINT_BYTES,
    log::options::{SEGMENT_BYTES_FIRST, SEGMENT_BYTES_MAX},
};

/// Where HTTP listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's id of the node, kept in the directory. Default 1.
    pub node_id: u64,
    /// Where gRPC listens; port 0 takes a free one. Default 127.0.0.1:9090.
    pub listen: SocketAddr,
    /// What clients are told to connect to; `None`: the address listened on.
    pub advertise: Option<String>,
    /// Where HTTP listens. Default 127.0.0.1:9091.
    pub http: HttpListen,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Whether the directory that it stands in is created too: where nobody named it.
    pub creates_parent: bool,
    /// Data shards, at the first start only. Default 1.
    pub shards: u32,
    /// Partitions of the collection `default`, at the first start only. Default 3.
    pub partitions: u32,
    /// Partitioner of the collection `default`, at the first start only.
    pub partitioner: Partitioner,
    /// Size of the largest segment of a log. Default 256 MiB.
    pub segment_bytes: u64,
    /// The least growth of a log from one checkpoint to the next. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// Interval of heartbeats. Default 100 ms.
    pub heartbeat: Duration,
    /// Shortest and longest time without a leader before an election. Default 500 ms to 800 ms.
    pub election_timeout: (Duration, Duration),
    /// Allow to listen off loopback although connections are neither encrypted nor authenticated.
    pub allow_insecure: bool,
    /// Longest key. Default 4 KiB, at most 64 KiB.
    pub max_key: usize,
    /// Longest value. Default 1 MiB, at most 16 MiB.
    pub max_value: usize,
    /// Largest message, batch and entry. Default 8 MiB, at least the longest value and 1 MiB.
    pub max_message: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most bytes of the key index of a shard.
    pub index_memory: u64,
    /// How long a stop may take. Default 10 s.
    pub shutdown_timeout: Duration,
}

/// A connection may hold a window of this size.
pub const WINDOW_BYTES: u32 = 16 << 20;
const CONNECTIONS_MAX: usize = 1024;
const MIB: usize = 1 << 20;
/// Bounds of the largest segment: an entry's position in it has 32 bits.
const SEGMENT_BYTES_BOUNDS: (u64, u64) = (64 << 10, 1 << 30);
/// Less log than this is read faster than a checkpoint is written.
const CHECKPOINT_BYTES_MIN: u64 = 64 << 10;
const SHARDS_MAX: u32 = 64;

impl Config {
    /// Returns the defaults for a data directory, on a machine with `memory_bytes` of memory.
    pub fn new(data_dir: PathBuf, memory_bytes: u64) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let windows = memory_bytes / 4 / u64::from(WINDOW_BYTES);
        Self {
            node_id: 1,
            listen: SocketAddr::new(loopback, 9090),
            advertise: None,
            http: HttpListen::At(SocketAddr::new(loopback, 9091)),
            data_dir,
            creates_parent: false,
            shards: 1,
            partitions: 3,
            partitioner: Partitioner::Ring,
            segment_bytes: SEGMENT_BYTES_MAX,
            checkpoint_bytes: CHECKPOINT_BYTES,
            heartbeat: Duration::from_millis(100),
            election_timeout: (Duration::from_millis(500), Duration::from_millis(800)),
            allow_insecure: false,
            max_key: limits::MAX_KEY_DEFAULT,
            max_value: limits::MAX_VALUE_DEFAULT,
            max_message: limits::MAX_MESSAGE_DEFAULT,
            max_connections: usize::try_from(windows)
                .unwrap_or(CONNECTIONS_MAX)
                .clamp(1, CONNECTIONS_MAX),
            index_memory: memory_bytes / 5 * 2,
            shutdown_timeout: Duration::from_secs(10),
        }
    }

    /// Returns the size of a log's first segment.
    pub fn segment_bytes_first(&self) -> u64 {
        SEGMENT_BYTES_FIRST.min(self.segment_bytes)
    }

    /// Checks everything that can be checked without touching the machine, and tells all problems
    /// at once.
    ///
    /// # Errors
    /// [`NodeError::Config`].
    pub fn check(&self) -> Result<(), NodeError> {
        let mut problems = Vec::new();
        let mut hint = "";
        let mut bound = |name: &str, value: u64, low: u64, high: u64| {
            if value < low || value > high {
                problems.push(format!("{name} is {value}, it must be from {low} to {high}"));
            }
        };
        bound("node-id", self.node_id, 1, u64::MAX);
        bound("shards", self.shards.into(), 1, SHARDS_MAX.into());
        bound("partitions", self.partitions.into(), 1, limits::MAX_PARTITIONS.into());
        bound("segment-bytes", self.segment_bytes, SEGMENT_BYTES_BOUNDS.0, SEGMENT_BYTES_BOUNDS.1);
        bound("checkpoint-bytes", self.checkpoint_bytes, CHECKPOINT_BYTES_MIN, u64::MAX);
        bound("max-key", self.max_key as u64, 1, limits::MAX_KEY_CEILING as u64);
        bound("max-value", self.max_value as u64, 1, limits::MAX_VALUE_CEILING as u64);
        bound("max-message", self.max_message as u64, (self.max_value + MIB) as u64, 64 << 20);
        bound("max-connections", self.max_connections as u64, 1, 1 << 16);
        let (shortest, longest) = self.election_timeout;
        // Raft's timer ticks a little slower than the heartbeat; what it needs is its own rule.
        if shortest <= self.heartbeat * 221 / 100 {
            problems.push(format!(
                "election-timeout begins at {} ms, it must be more than 2.21 heartbeats ({} ms)",
                shortest.as_millis(),
                (self.heartbeat * 221 / 100).as_millis()
            ));
        }
        if longest <= shortest {
            problems
                .push("election-timeout must be a range MIN..MAX with MIN below MAX".to_owned());
        }
        if self.listen.ip().is_unspecified() && self.advertise.is_none() {
            problems.push(format!("listen is {}: advertise must name an address", self.listen));
            hint = "--advertise HOST:PORT";
        }
        let http_is_open = matches!(self.http, HttpListen::At(at) if !at.ip().is_loopback());
        if !self.allow_insecure && (!self.listen.ip().is_loopback() || http_is_open) {
            problems.push(
                "refusing to listen off loopback: connections are neither encrypted nor authenticated"
                    .to_owned(),
            );
            hint = "--allow-insecure";
        }
        if problems.is_empty() { Ok(()) } else { Err(NodeError::Config { problems, hint }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(PathBuf::from("d"), 24 << 30)
    }

    #[test]
    fn the_defaults_hold_and_follow_the_memory() {
        config().check().unwrap();
        assert_eq!(config().max_connections, 384);
        assert_eq!(Config::new(PathBuf::new(), 1 << 40).max_connections, 1024);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let broken = Config {
            shards: 0,
            max_message: 1,
            election_timeout: (Duration::from_millis(100), Duration::from_millis(50)),
            ..config()
        };
        let NodeError::Config { problems, .. } = broken.check().unwrap_err() else {
            panic!("a usage error")
        };
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn listening_off_loopback_needs_to_be_allowed() {
        let open = Config { listen: SocketAddr::from(([10, 0, 0, 1], 9090)), ..config() };
        assert_eq!(open.check().unwrap_err().exit_code(), 2);
        Config { allow_insecure: true, ..open }.check().unwrap();
        let any = Config {
            listen: SocketAddr::from(([0, 0, 0, 0], 9090)),
            allow_insecure: true,
            ..config()
        };
        assert_eq!(any.check().unwrap_err().hint(), "--advertise HOST:PORT");
    }
}
