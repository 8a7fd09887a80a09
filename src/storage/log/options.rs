//! What a log is told when it is opened.

/// Settings of one shard's log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The shard.
    pub shard: u32,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Size of the first segment; each next one doubles.
    pub segment_bytes_first: u64,
    /// Size of the largest segment. An entry that is larger gets a segment of its own size.
    pub segment_bytes_max: u64,
    /// How many bytes of the newest entries stay in memory.
    pub tail_cache_bytes: u64,
    /// How many bytes are written and synced at once.
    pub group_bytes_max: u64,
}

/// A log begins with a segment of this size by default, so that an empty node is small.
pub const SEGMENT_BYTES_FIRST: u64 = 4 << 20;
/// Default size of the largest segment of a data shard.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Size of the largest segment of the metadata shard.
pub const SEGMENT_BYTES_MAX_METADATA: u64 = 16 << 20;
/// Default size of the tail cache of a shard.
pub const TAIL_CACHE_BYTES: u64 = 64 << 20;
/// Default size of one group; measured: between 2 and 4 MiB a disk is as fast as it gets.
pub const GROUP_BYTES_MAX: u64 = 4 << 20;
