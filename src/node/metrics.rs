//! What the node counts, and the text in which it is read.
//!
//! Names and labels are API and bounded: methods, codes, limits and shards, never what a client sent.
//! Counting is cheap enough for every request: what each method touches is looked up once.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prkdb_types::ErrorCode;
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{Node, limits::names};
use crate::storage::{ShardStats, log::Recovery};

macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal;)+) => {
        /// What a client can ask for: a call, or an operation inside a stream.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Method {
            /// Every method, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns its name in labels.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

methods! {
    /// A put.
    Put = "Kv/Put";
    /// A get.
    Get = "Kv/Get";
    /// A delete.
    Delete = "Kv/Delete";
    /// A get of many keys.
    MultiGet = "Kv/MultiGet";
    /// A put inside a stream.
    ExchangePut = "Kv/Exchange.Put";
    /// A get inside a stream.
    ExchangeGet = "Kv/Exchange.Get";
    /// Another time to live for a key.
    Expire = "Kv/Expire";
    /// A delete inside a stream.
    ExchangeDelete = "Kv/Exchange.Delete";
    /// A get of many keys inside a stream.
    ExchangeMultiGet = "Kv/Exchange.MultiGet";
    /// The opening of a stream of operations, or one that asks for none.
    Exchange = "Kv/Exchange";
    /// A batch, or the opening of a stream of them.
    BatchPut = "Kv/BatchPut";
    /// A scan, up to its first page.
    Scan = "Kv/Scan";
    /// A batch of a stream, or the opening of one.
    Produce = "Stream/Produce";
    /// The opening of a stream of batches to be read.
    Fetch = "Stream/Fetch";
    /// A question for offsets.
    ListOffsets = "Stream/ListOffsets";
    /// The list of consumer groups.
    ListGroups = "Groups/ListGroups";
    /// The beginning of a transaction.
    BeginTxn = "Txn/Begin";
    /// A read of keys in a transaction.
    ReadTxn = "Txn/Read";
    /// A page of a range in a transaction.
    ScanTxn = "Txn/Scan";
    /// The commit of a transaction.
    CommitTxn = "Txn/Commit";
    /// The end of a transaction that is not committed.
    RollbackTxn = "Txn/Rollback";
    /// The list of collections.
    ListCollections = "Collections/List";
    /// The creation of a collection.
    CreateCollection = "Collections/Create";
    /// The description of a collection.
    DescribeCollection = "Collections/Describe";
    /// A change of a collection.
    AlterCollection = "Collections/Alter";
    /// The end of the beginning of a collection.
    TruncateCollection = "Collections/Truncate";
    /// The end of a collection.
    DropCollection = "Collections/Drop";
    /// Where things are.
    Metadata = "Admin/Metadata";
    /// How the node is doing.
    Status = "Admin/Status";
    /// These metrics.
    Metrics = "Admin/Metrics";
    /// The version.
    Version = "Admin/Version";
    /// The opening of a backup.
    Backup = "Admin/Backup";
    /// The taking of snapshots.
    CreateSnapshot = "Admin/CreateSnapshot";
    /// The list of snapshots.
    ListSnapshots = "Admin/ListSnapshots";
}

type ByCall = Family<[(&'static str, &'static str); 2], Counter>;
type ByLimit = Family<[(&'static str, &'static str); 1], Counter>;
type Seconds = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;
type ByShard = Family<[(&'static str, u32); 1], Gauge>;
type SecondsByShard = Family<[(&'static str, u32); 1], Gauge<f64, std::sync::atomic::AtomicU64>>;

/// The metrics of a node.
pub struct Metrics {
    registry: Mutex<Registry>,
    calls: ByCall,
    methods: Vec<MethodMetrics>,
    limits: ByLimit,
    append_bytes: Counter,
    fetch_bytes: Counter,
    fsync_seconds: Histogram,
    fsync_entries: Histogram,
    recovery_seconds: SecondsByShard,
    recovered_cut_bytes: ByShard,
    recovery_bytes: ByShard,
    checkpoint_seconds: Histogram,
    checkpoint_bytes: Counter,
    clean_seconds: Histogram,
    cleaned_bytes: Counter,
    clean_written_bytes: Counter,
    shards: ShardGauges,
    open_connections: Gauge,
    in_flight_bytes: Gauge,
}

/// What every call of a method touches.
#[derive(Debug)]
struct MethodMetrics {
    ok: Counter,
    seconds: Histogram,
}

/// Figures of shards, read when they are asked for.
#[derive(Debug, Default)]
struct ShardGauges {
    segment_count: ByShard,
    prepared_bytes: ByShard,
    tail_cache_bytes: ByShard,
    keys: ByShard,
    index_bytes: ByShard,
    producers: ByShard,
    stream_index_bytes: ByShard,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From 20 microseconds to ten seconds.
fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_02, 2.0, 20))
}

impl Metrics {
    /// Returns metrics that have counted nothing.
    #[expect(clippy::too_many_lines, reason = "a line or two for each metric")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("prkdb");
        let calls = ByCall::default();
        let seconds = Seconds::new_with_constructor(seconds_histogram);
        let limits = ByLimit::default();
        let append_bytes = Counter::default();
        let fetch_bytes = Counter::default();
        let fsync_seconds = seconds_histogram();
        let fsync_entries = Histogram::new(exponential_buckets(1.0, 2.0, 12));
        let recovery_seconds = SecondsByShard::default();
        let recovered_cut_bytes = ByShard::default();
        let recovery_bytes = ByShard::default();
        let checkpoint_seconds = seconds_histogram();
        let checkpoint_bytes = Counter::default();
        let clean_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 20));
        let cleaned_bytes = Counter::default();
        let clean_written_bytes = Counter::default();
        let shards = ShardGauges::default();
        let open_connections = Gauge::default();
        let in_flight_bytes = Gauge::default();
        registry.register("rpc_requests", "Requests answered", calls.clone());
        registry.register("rpc_seconds", "Time from request to answer", seconds.clone());
        registry.register("limit_rejections", "Requests turned away by a limit", limits.clone());
        registry.register("append_bytes", "Bytes written to logs", append_bytes.clone());
        registry.register("fetch_bytes", "Bytes of batches sent to readers", fetch_bytes.clone());
        registry.register("fsync_seconds", "Time to write and sync", fsync_seconds.clone());
        registry.register("fsync_entries", "Entries synced at once", fsync_entries.clone());
        let help = "Time to read the log at start";
        registry.register("recovery_seconds", help, recovery_seconds.clone());
        let help = "Bytes cut from a torn tail at start";
        registry.register("recovered_cut_bytes", help, recovered_cut_bytes.clone());
        let help = "Bytes of checkpoint and log read at start";
        registry.register("recovery_bytes", help, recovery_bytes.clone());
        registry.register(
            "checkpoint_seconds",
            "Time to write a checkpoint",
            checkpoint_seconds.clone(),
        );
        registry.register("checkpoint_bytes", "Bytes of checkpoints", checkpoint_bytes.clone());
        let help = "Time to clean segments, pauses included";
        registry.register("clean_seconds", help, clean_seconds.clone());
        let help = "Bytes of segments that were cleaned";
        registry.register("cleaned_bytes", help, cleaned_bytes.clone());
        let help = "Bytes that were left of them";
        registry.register("clean_written_bytes", help, clean_written_bytes.clone());
        shards.register(&mut registry);
        registry.register("open_connections", "gRPC connections", open_connections.clone());
        registry.register(
            "in_flight_bytes",
            "Bytes of requests under way",
            in_flight_bytes.clone(),
        );
        for name in names::ALL {
            // Known from the start: a figure that is missing cannot be told from one that is 0.
            let _zero = limits.get_or_create_owned(&[("limit", name)]);
        }
        let method_metrics = |method: &Method| MethodMetrics {
            ok: calls.get_or_create_owned(&[("method", method.label()), ("code", "ok")]),
            seconds: seconds.get_or_create_owned(&[("method", method.label())]),
        };
        Self {
            methods: Method::ALL.iter().map(method_metrics).collect(),
            registry: Mutex::new(registry),
            calls,
            limits,
            append_bytes,
            fetch_bytes,
            fsync_seconds,
            fsync_entries,
            recovery_seconds,
            recovered_cut_bytes,
            recovery_bytes,
            checkpoint_seconds,
            checkpoint_bytes,
            clean_seconds,
            cleaned_bytes,
            clean_written_bytes,
            shards,
            open_connections,
            in_flight_bytes,
        }
    }

    /// Counts an answer; `None` is success.
    pub fn rpc(&self, method: Method, code: Option<ErrorCode>, took: Duration) {
        let at = Method::ALL.iter().position(|other| *other == method);
        if let Some(metrics) = at.and_then(|at| self.methods.get(at)) {
            metrics.seconds.observe(took.as_secs_f64());
            if code.is_none() {
                metrics.ok.inc();
            }
        }
        if let Some(code) = code {
            self.calls.get_or_create(&[("method", method.label()), ("code", code.name())]).inc();
        }
    }

    /// Counts what was written and synced at once.
    pub fn flushed(&self, bytes: u64, entries: usize, took: Duration) {
        self.append_bytes.inc_by(bytes);
        self.fsync_seconds.observe(took.as_secs_f64());
        self.fsync_entries.observe(f64::from(u32::try_from(entries).unwrap_or(u32::MAX)));
    }

    /// Counts batches sent to a reader.
    pub fn fetched(&self, bytes: u64) {
        self.fetch_bytes.inc_by(bytes);
    }

    /// Returns how many bytes were written to logs.
    pub fn appended_bytes(&self) -> u64 {
        self.append_bytes.get()
    }

    /// Counts what a limit turned away.
    pub fn limit(&self, name: &'static str) {
        self.limits.get_or_create(&[("limit", name)]).inc();
    }

    /// Counts a checkpoint.
    pub fn checkpointed(&self, bytes: u64, took: Duration) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.checkpoint_bytes.inc_by(bytes);
    }

    /// Counts a cleaning.
    pub fn cleaned(&self, read: u64, written: u64, took: Duration) {
        self.clean_seconds.observe(took.as_secs_f64());
        self.cleaned_bytes.inc_by(read);
        self.clean_written_bytes.inc_by(written);
    }

    /// Keeps what the recovery of a shard took, read and cut.
    pub fn recovered(&self, shard: u32, took: Duration, recovery: &Recovery) {
        let Recovery { read_bytes, checkpoint_bytes, cut_bytes, .. } = *recovery;
        set(&self.recovery_bytes, shard, read_bytes + checkpoint_bytes);
        self.recovery_seconds.get_or_create(&[("shard", shard)]).set(took.as_secs_f64());
        set(&self.recovered_cut_bytes, shard, cut_bytes);
    }

    /// Returns everything as `OpenMetrics` text.
    pub fn render(&self, node: &Node) -> String {
        for handle in node.shards() {
            self.shards.set(handle.number, &handle.shard.stats());
        }
        self.open_connections.set(gauge(node.limits().open_connections()));
        self.in_flight_bytes.set(gauge(node.limits().in_flight_bytes()));
        self.exposition()
    }

    /// Returns `OpenMetrics` text of what was counted; figures that are read when asked for are those of
    /// the last time.
    pub fn exposition(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exposition = String::new();
        // Writing to a string fails only if a metric refuses to be written, and ours do not.
        if let Err(error) = text::encode(&mut exposition, &registry) {
            tracing::error!(%error, "encode metrics");
        }
        exposition
    }
}

impl ShardGauges {
    fn register(&self, registry: &mut Registry) {
        registry.register("segment_count", "Segments of a log", self.segment_count.clone());
        let help = "Bytes ready to be written to";
        registry.register("prepared_bytes", help, self.prepared_bytes.clone());
        let help = "Bytes of entries held in memory";
        registry.register("tail_cache_bytes", help, self.tail_cache_bytes.clone());
        registry.register("keys", "Keys with a value", self.keys.clone());
        registry.register("index_bytes", "Bytes of the key index", self.index_bytes.clone());
        registry.register("producers", "Producers remembered", self.producers.clone());
        let help = "Bytes of memory of the index of streams";
        registry.register("stream_index_bytes", help, self.stream_index_bytes.clone());
    }

    fn set(&self, shard: u32, stats: &ShardStats) {
        set(&self.segment_count, shard, stats.segment_count as u64);
        set(&self.prepared_bytes, shard, stats.prepared_bytes);
        set(&self.tail_cache_bytes, shard, stats.tail_cache_bytes);
        set(&self.keys, shard, stats.keys);
        set(&self.index_bytes, shard, stats.index_bytes);
        set(&self.producers, shard, stats.producers as u64);
        set(&self.stream_index_bytes, shard, stats.stream_index_bytes);
    }
}

fn set(family: &ByShard, shard: u32, value: u64) {
    family.get_or_create(&[("shard", shard)]).set(gauge(value));
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposition(metrics: &Metrics) -> String {
        let mut text = String::new();
        text::encode(&mut text, &metrics.registry.lock().unwrap()).unwrap();
        text
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let metrics = Metrics::new();
        metrics.rpc(Method::Put, None, Duration::from_micros(30));
        metrics.rpc(Method::Put, Some(ErrorCode::KeyEmpty), Duration::from_micros(30));
        metrics.rpc(Method::Version, None, Duration::ZERO);
        let text = exposition(&metrics);
        for line in [
            r#"prkdb_rpc_requests_total{method="Kv/Put",code="ok"} 1"#,
            r#"prkdb_rpc_requests_total{method="Kv/Put",code="key_empty"} 1"#,
            r#"prkdb_rpc_seconds_count{method="Kv/Put"} 2"#,
            r#"prkdb_rpc_requests_total{method="Admin/Version",code="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn groups_limits_and_recoveries_are_counted() {
        let metrics = Metrics::new();
        metrics.flushed(4096, 3, Duration::from_millis(1));
        metrics.limit("max-connections");
        let recovery = Recovery { cut_bytes: 18, ..Recovery::default() };
        metrics.recovered(1, Duration::from_millis(250), &recovery);
        assert_eq!(metrics.appended_bytes(), 4096);
        let text = exposition(&metrics);
        for line in [
            "prkdb_append_bytes_total 4096",
            "prkdb_fsync_seconds_count 1",
            "prkdb_fsync_entries_sum 3.0",
            r#"prkdb_limit_rejections_total{limit="max-connections"} 1"#,
            r#"prkdb_recovery_seconds{shard="1"} 0.25"#,
            r#"prkdb_recovered_cut_bytes{shard="1"} 18"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
