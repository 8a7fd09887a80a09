//! What PrkDB's client and server both know: the binary form of record batches, the partitioners,
//! the table of errors, the descriptors of collections and the metadata records of a shard.
//!
//! Pure functions and plain data: nothing here does input or output, looks at a clock or spawns.

pub mod adapter;
pub mod alter;
pub mod batch;
pub mod collection;
pub mod command;
pub mod crc;
pub mod headers;
pub mod limits;
pub mod partition;
pub mod transaction;

mod error;

pub use alter::{AlterError, CollectionChanges};
pub use batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, Compression, DecompressLimit, ProducerStamp,
    RecordCursor, RecordView, Records, SharedHeaders, SharedRecord, sequence_after,
};
pub use collection::{
    Cleanup, CollectionName, CollectionSettings, Durability, KeyIndex, NameError, Placement,
    Retention, SettingsError,
};
pub use command::{CommandError, ShardCommand};
pub use crc::{Crc32c, crc32c};
pub use error::{ErrorCode, ErrorKind, Retry};
pub use partition::{PartitionTable, Partitioner, murmur2};
pub use transaction::{Isolation, TransactionError};
