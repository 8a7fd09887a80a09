//! What one client, and all of them together, may take of the node.
//!
//! Owns the counts of connections and of bytes in flight. Each limit has a name; what it turns away
//! is counted under that name by the caller. Guards give back what they took when they are dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prkdb_types::ErrorCode;

use super::{
    config::{Config, WINDOW_BYTES},
    outcome::Failure,
    proposer::queue::Flow,
};

/// Most streams of one connection at once: 256 callers of single calls fit beside streams. What they
/// may hold in memory is bounded by the bytes in flight, not by their number.
pub const CONNECTION_STREAMS_MAX: u32 = 1024;
/// Most bytes of admitted requests of one connection.
pub const CONNECTION_BYTES_MAX: u64 = 64 << 20;
/// Least room for admitted requests of all connections, on a node that allows few connections.
const NODE_BYTES_MIN: u64 = 256 << 20;
/// Nobody waits longer than this for a single call, whatever deadline it came with.
pub const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);
/// A connection that has not said in this time that it speaks HTTP/2 is closed.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Most HTTP connections at once: probes and scrapers.
pub const HTTP_CONNECTIONS_MAX: usize = 64;

/// The names under which rejections are counted.
pub mod names {
    /// Connections of the node.
    pub const CONNECTIONS: &str = "max-connections";
    /// Bytes in flight of the node.
    pub const NODE_BYTES: &str = "node-in-flight-bytes";
    /// Bytes in flight of a connection.
    pub const CONNECTION_BYTES: &str = "connection-in-flight-bytes";
    /// Connections to the HTTP port.
    pub const HTTP_CONNECTIONS: &str = "http-connections";
    /// Key, value or message sizes.
    pub const SIZE: &str = "request-size";
    /// Writes that wait for a shard's proposer.
    pub const SHARD_QUEUE: &str = "shard-queue-writes";
    /// Snapshots kept for transactions.
    pub const TXN_SNAPSHOTS: &str = "transaction-snapshots";
    /// All of them.
    pub const ALL: [&str; 7] = [
        CONNECTIONS,
        NODE_BYTES,
        CONNECTION_BYTES,
        HTTP_CONNECTIONS,
        SIZE,
        SHARD_QUEUE,
        TXN_SNAPSHOTS,
    ];
}

/// An amount that may be taken up to a limit.
#[derive(Debug)]
struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    fn try_take(self: &Arc<Self>, amount: u64) -> Option<Taken> {
        self.used
            .try_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        Some(Taken { budget: Arc::clone(self), amount })
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

/// A part of a budget; given back on drop.
#[derive(Debug)]
struct Taken {
    budget: Arc<Budget>,
    amount: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

/// The limits of a node.
#[derive(Debug)]
pub struct Limits {
    connections: Arc<Budget>,
    bytes: Arc<Budget>,
}

/// A connection that was let in; it counts until its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Admitted>);

#[derive(Debug)]
struct Admitted {
    flow: Flow,
    bytes: Arc<Budget>,
    _place: Taken,
}

/// Bytes of an admitted request; given back on drop.
#[derive(Debug)]
pub struct HeldBytes {
    of_node: Taken,
    _of_connection: Option<Taken>,
}

/// A request that found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The name of the limit.
    pub limit: &'static str,
    bytes: u64,
}

impl Connection {
    /// Returns what its single calls come from.
    pub fn flow(&self) -> Flow {
        self.0.flow
    }
}

impl HeldBytes {
    /// Returns how many they are.
    pub fn bytes(&self) -> u64 {
        self.of_node.amount
    }
}

impl From<NoRoom> for Failure {
    fn from(refused: NoRoom) -> Self {
        let message =
            format!("requests under way have {} bytes already ({})", refused.bytes, refused.limit);
        Self::new(ErrorCode::Overloaded, message)
    }
}

impl Limits {
    /// Returns the limits that a configuration asks for. Bytes in flight may take what the windows
    /// of all connections could hold: a quarter of memory where the number of connections is the
    /// default.
    pub fn new(config: &Config) -> Self {
        let connections = config.max_connections as u64;
        let bytes = connections.saturating_mul(WINDOW_BYTES.into()).max(NODE_BYTES_MIN);
        Self { connections: Budget::new(connections), bytes: Budget::new(bytes) }
    }

    /// Lets a connection in, if there is a place.
    pub fn connect(&self) -> Option<Connection> {
        let place = self.connections.try_take(1)?;
        Some(Connection(Arc::new(Admitted {
            flow: Flow::new(),
            bytes: Budget::new(CONNECTION_BYTES_MAX),
            _place: place,
        })))
    }

    /// Takes room for a request.
    ///
    /// # Errors
    /// [`NoRoom`] with the name of the limit that was met.
    pub fn hold(&self, connection: Option<&Connection>, bytes: u64) -> Result<HeldBytes, NoRoom> {
        let of_connection = match connection {
            None => None,
            Some(connection) => {
                let budget = &connection.0.bytes;
                let no_room = || NoRoom { limit: names::CONNECTION_BYTES, bytes: budget.used() };
                Some(budget.try_take(bytes).ok_or_else(no_room)?)
            }
        };
        let no_room = || NoRoom { limit: names::NODE_BYTES, bytes: self.bytes.used() };
        let of_node = self.bytes.try_take(bytes).ok_or_else(no_room)?;
        Ok(HeldBytes { of_node, _of_connection: of_connection })
    }

    /// Returns how many connections there are.
    pub fn open_connections(&self) -> u64 {
        self.connections.used()
    }

    /// Returns how many bytes of requests are under way.
    pub fn in_flight_bytes(&self) -> u64 {
        self.bytes.used()
    }
}

/// Says how large something is and may be, in the largest unit that tells the two apart.
pub fn size_and_limit(size: usize, limit: usize) -> String {
    const UNITS: [(&str, usize); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, bytes) in UNITS {
        if limit >= bytes {
            let tenths = |amount: usize| amount.saturating_mul(10) / bytes;
            let (size, limit) = (tenths(size), tenths(limit));
            if size != limit {
                let whole = |tenths: usize| format!("{}.{} {unit}", tenths / 10, tenths % 10);
                return format!("{}, limit {}", whole(size), whole(limit));
            }
            break;
        }
    }
    format!("{size} bytes, limit {limit} bytes")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn limits(max_connections: usize) -> Limits {
        Limits::new(&Config { max_connections, ..Config::new(PathBuf::from("d"), 1 << 30) })
    }

    #[test]
    fn connections_beyond_the_limit_are_turned_away_until_one_is_closed() {
        let limits = limits(2);
        let first = limits.connect().unwrap();
        let _second = limits.connect().unwrap();
        assert!(limits.connect().is_none());
        let also_first = first.clone();
        drop(first);
        assert!(limits.connect().is_none(), "a clone counts as the connection");
        drop(also_first);
        assert_eq!(limits.open_connections(), 1);
        assert!(limits.connect().is_some());
    }

    #[test]
    fn bytes_are_limited_by_connection_and_by_node_and_come_back() {
        let limits = limits(1);
        let connection = limits.connect().unwrap();
        let held = limits.hold(Some(&connection), CONNECTION_BYTES_MAX).unwrap();
        let refused = limits.hold(Some(&connection), 1).unwrap_err();
        assert_eq!(refused.limit, names::CONNECTION_BYTES);
        let rest = limits.hold(None, NODE_BYTES_MIN - CONNECTION_BYTES_MAX).unwrap();
        assert_eq!(limits.hold(None, 1).unwrap_err().limit, names::NODE_BYTES);
        assert_eq!(Failure::from(refused).code, ErrorCode::Overloaded);
        drop(held);
        drop(rest);
        assert_eq!(limits.in_flight_bytes(), 0);
        // What the node refused does not stay with the connection.
        let all = limits.hold(None, NODE_BYTES_MIN).unwrap();
        assert!(limits.hold(Some(&connection), 1).is_err());
        drop(all);
        limits.hold(Some(&connection), CONNECTION_BYTES_MAX).unwrap();
    }

    #[test]
    fn sizes_are_told_apart_in_the_largest_unit_that_can() {
        assert_eq!(size_and_limit(3 << 19, 1 << 20), "1.5 MiB, limit 1.0 MiB");
        assert_eq!(size_and_limit((1 << 20) + 1, 1 << 20), "1048577 bytes, limit 1048576 bytes");
        assert_eq!(size_and_limit(5000, 4096), "4.8 KiB, limit 4.0 KiB");
        assert_eq!(size_and_limit(12, 10), "12 bytes, limit 10 bytes");
    }
}
