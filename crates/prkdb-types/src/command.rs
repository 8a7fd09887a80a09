//! The metadata records of a shard: what partition 0 of its log holds.
//!
//! They are decided by the sequencer and folded by apply like any other record. The metadata shard
//! folds [`CollectionPut`] into the catalogue; a shard with data folds [`PartitionPut`] and
//! [`PartitionDrop`] into its own list of partitions and reads nothing of another shard's log.
//!
//! The messages are protobuf, written by hand so that building needs no generator. Field numbers are
//! format: they are never changed nor used again.

use bytes::Bytes;
use prost::Message;

use crate::{
    Cleanup, CollectionName, CollectionSettings, Durability, ErrorCode, KeyIndex, NameError,
    Partitioner, Placement, Retention, SettingsError,
};

/// One metadata record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ShardCommand {
    /// What it is about: the id of the collection or the partition. With `version` it makes a repeat
    /// harmless.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Rises with every command about one id; one that does not rise is a repeat.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// What changes. Absent only in a record written by a newer version.
    #[prost(oneof = "ShardChange", tags = "3, 4, 5, 6")]
    pub change: Option<ShardChange>,
}

/// What a [`ShardCommand`] changes.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum ShardChange {
    /// A collection of the catalogue.
    #[prost(message, tag = "3")]
    CollectionPut(CollectionPut),
    /// A partition this shard hosts from now on.
    #[prost(message, tag = "4")]
    PartitionPut(PartitionPut),
    /// A partition this shard no longer hosts.
    #[prost(message, tag = "5")]
    PartitionDrop(PartitionDrop),
    /// The beginning of a partition goes. Not versioned: its start only rises.
    #[prost(message, tag = "6")]
    Trim(Trim),
}

/// A row of the catalogue, whole: it replaces the row with the same id.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CollectionPut {
    /// The collection's id, given out once: a dropped collection keeps its row, so that neither its
    /// id nor its partitions' numbers are given out again.
    #[prost(uint32, tag = "1")]
    pub collection: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it was created with.
    #[prost(message, optional, tag = "3")]
    pub settings: Option<SettingsRecord>,
    /// When it was created, in milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_ms: i64,
    /// Where its partitions lie, by number.
    #[prost(message, repeated, tag = "5")]
    pub partitions: Vec<PartitionPlace>,
    /// Whether it was dropped.
    #[prost(bool, tag = "6")]
    pub dropped: bool,
}

/// [`CollectionSettings`] as a record holds them, the choices by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SettingsRecord {
    /// How many partitions.
    #[prost(uint32, tag = "1")]
    pub partitions: u32,
    /// Number of the [`Partitioner`].
    #[prost(uint32, tag = "2")]
    pub partitioner: u32,
    /// Number of the [`Durability`].
    #[prost(uint32, tag = "3")]
    pub durability: u32,
    /// Number of the [`Cleanup`].
    #[prost(uint32, tag = "4")]
    pub cleanup: u32,
    /// Number of the [`Placement`].
    #[prost(uint32, tag = "5")]
    pub placement: u32,
    /// Number of the [`KeyIndex`].
    #[prost(uint32, tag = "6")]
    pub key_index: u32,
    /// How long values last that state nothing else, in milliseconds; 0 = for ever.
    #[prost(uint64, tag = "7")]
    pub ttl_ms: u64,
    /// Records appended longer ago than this go, in milliseconds; 0 = none do.
    #[prost(uint64, tag = "8")]
    pub retention_ms: u64,
    /// The oldest records of each partition beyond so many bytes go; 0 = none do.
    #[prost(uint64, tag = "9")]
    pub retention_bytes: u64,
}

/// Where one partition of a collection lies.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PartitionPlace {
    /// Its number in frames, given out once in the whole cluster.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// Its number in the collection, from 0.
    #[prost(uint32, tag = "2")]
    pub number: u32,
    /// The shard that hosts it.
    #[prost(uint32, tag = "3")]
    pub shard: u32,
}

/// A partition that the shard hosts from now on, with all that the shard must know about it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PartitionPut {
    /// Its number in frames.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The collection's id.
    #[prost(uint32, tag = "2")]
    pub collection: u32,
    /// Its number in the collection, from 0.
    #[prost(uint32, tag = "3")]
    pub number: u32,
    /// Whether the shard keeps a key index of it.
    #[prost(bool, tag = "4")]
    pub key_index: bool,
    /// How long values last that state nothing else, in milliseconds; 0 = for ever.
    #[prost(uint64, tag = "5")]
    pub ttl_ms: u64,
    /// Whether records of keys that were written again may go.
    #[prost(bool, tag = "6")]
    pub compact: bool,
    /// Records appended longer ago than this go, in milliseconds; 0 = none do.
    #[prost(uint64, tag = "7")]
    pub retention_ms: u64,
    /// The oldest records beyond so many bytes go; 0 = none do.
    #[prost(uint64, tag = "8")]
    pub retention_bytes: u64,
}

/// A partition of which the beginning goes.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Trim {
    /// Its number in frames.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The first offset that stays.
    #[prost(uint64, tag = "2")]
    pub log_start: u64,
    /// How many bytes go, about.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

/// A partition that the shard no longer hosts.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PartitionDrop {
    /// Its number in frames.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
}

/// A metadata record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is no protobuf message of this type.
    #[error("decode metadata record")]
    Decode(#[source] prost::DecodeError),
    /// It says nothing that this version knows.
    #[error("metadata record {id} version {version} has no change that this version knows")]
    NoChange {
        /// The id it is about.
        id: u64,
        /// Its version.
        version: u64,
    },
    /// A collection without settings, or with a choice that this version does not know.
    #[error("metadata record of collection {collection}: {field} {number} is not known")]
    Choice {
        /// The collection's id.
        collection: u32,
        /// The setting at fault.
        field: &'static str,
        /// What was found; 0 where nothing was.
        number: u32,
    },
    /// A collection with a name that is none.
    #[error("metadata record of collection {collection}")]
    Name {
        /// The collection's id.
        collection: u32,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// A collection with settings beyond a limit.
    #[error("metadata record of collection {collection}")]
    Settings {
        /// The collection's id.
        collection: u32,
        /// What is wrong with them.
        #[source]
        source: SettingsError,
    },
}

impl CommandError {
    /// Returns the code a caller sees: what does not decode is damaged, what is not known is newer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoChange { .. } | Self::Choice { .. } => ErrorCode::NewerFormat,
            Self::Decode(_) | Self::Name { .. } | Self::Settings { .. } => ErrorCode::Corrupt,
        }
    }
}

impl ShardCommand {
    /// Encodes the command as the value of a record.
    pub fn to_record(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Decodes the value of a record.
    ///
    /// # Errors
    /// [`CommandError::Decode`] and [`CommandError::NoChange`].
    pub fn parse_record(value: &[u8]) -> Result<Self, CommandError> {
        let command = Self::decode(value).map_err(CommandError::Decode)?;
        if command.change.is_none() {
            return Err(CommandError::NoChange { id: command.id, version: command.version });
        }
        Ok(command)
    }
}

impl CollectionPut {
    /// Returns the name, checked.
    ///
    /// # Errors
    /// [`CommandError::Name`].
    pub fn typed_name(&self) -> Result<CollectionName, CommandError> {
        CollectionName::parse(&self.name)
            .map_err(|source| CommandError::Name { collection: self.collection, source })
    }

    /// Returns the settings, checked.
    ///
    /// # Errors
    /// [`CommandError::Choice`] and [`CommandError::Settings`].
    pub fn typed_settings(&self) -> Result<CollectionSettings, CommandError> {
        let record = self.settings.unwrap_or_default();
        let collection = self.collection;
        let unknown = |field, number| move || CommandError::Choice { collection, field, number };
        let settings = CollectionSettings {
            partitions: record.partitions,
            partitioner: Partitioner::from_number(record.partitioner)
                .ok_or_else(unknown("partitioner", record.partitioner))?,
            durability: Durability::from_number(record.durability)
                .ok_or_else(unknown("durability", record.durability))?,
            cleanup: Cleanup::from_number(record.cleanup)
                .ok_or_else(unknown("cleanup", record.cleanup))?,
            placement: Placement::from_number(record.placement)
                .ok_or_else(unknown("placement", record.placement))?,
            key_index: KeyIndex::from_number(record.key_index)
                .ok_or_else(unknown("key index", record.key_index))?,
            ttl_ms: (record.ttl_ms > 0).then_some(record.ttl_ms),
            retention: Retention {
                ms: (record.retention_ms > 0).then_some(record.retention_ms),
                bytes: (record.retention_bytes > 0).then_some(record.retention_bytes),
            },
        };
        settings.check().map_err(|source| CommandError::Settings { collection, source })?;
        Ok(settings)
    }
}

impl From<&CollectionSettings> for SettingsRecord {
    fn from(settings: &CollectionSettings) -> Self {
        Self {
            partitions: settings.partitions,
            partitioner: settings.partitioner.number(),
            durability: settings.durability.number(),
            cleanup: settings.cleanup.number(),
            placement: settings.placement.number(),
            key_index: settings.key_index.number(),
            ttl_ms: settings.ttl_ms.unwrap_or_default(),
            retention_ms: settings.retention.ms.unwrap_or_default(),
            retention_bytes: settings.retention.bytes.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights() -> CollectionPut {
        CollectionPut {
            collection: 7,
            name: "flights".into(),
            settings: Some(SettingsRecord::from(&CollectionSettings::default())),
            created_ms: 1_385_000_000_000,
            partitions: (0..3)
                .map(|number| PartitionPlace { partition: 10 + number, number, shard: 1 })
                .collect(),
            dropped: false,
        }
    }

    #[test]
    fn commands_round_trip_through_a_record() {
        let changes = [
            ShardChange::CollectionPut(flights()),
            ShardChange::CollectionPut(CollectionPut { dropped: true, ..flights() }),
            ShardChange::PartitionPut(PartitionPut {
                partition: 10,
                collection: 7,
                number: 0,
                key_index: true,
                ttl_ms: 60_000,
                compact: true,
                retention_ms: 5,
                retention_bytes: 6,
            }),
            ShardChange::Trim(Trim { partition: 10, log_start: 7, bytes: 8 }),
            ShardChange::PartitionDrop(PartitionDrop { partition: 10 }),
        ];
        for (version, change) in (1..).zip(changes) {
            let command = ShardCommand { id: 7, version, change: Some(change) };
            assert_eq!(ShardCommand::parse_record(&command.to_record()).unwrap(), command);
        }
    }

    #[test]
    fn the_bytes_of_a_command_are_frozen() {
        let change = ShardChange::PartitionPut(PartitionPut {
            partition: 300,
            collection: 7,
            number: 2,
            key_index: true,
            ..PartitionPut::default()
        });
        let command = ShardCommand { id: 300, version: 1, change: Some(change) };
        let expected = [8, 0xac, 2, 16, 1, 34, 9, 8, 0xac, 2, 16, 7, 24, 2, 32, 1];
        assert_eq!(command.to_record().as_ref(), expected);
    }

    #[test]
    fn settings_and_name_round_trip() {
        let put = flights();
        assert_eq!(put.typed_settings().unwrap(), CollectionSettings::default());
        assert_eq!(put.typed_name().unwrap().as_str(), "flights");
    }

    #[test]
    fn unknown_changes_and_choices_are_newer_and_nonsense_is_corrupt() {
        let empty = ShardCommand { id: 1, version: 2, change: None };
        let error = ShardCommand::parse_record(&empty.to_record()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NewerFormat);

        let error = ShardCommand::parse_record(&[0xff; 3]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt);

        let mut put = flights();
        put.settings = Some(SettingsRecord { durability: 9, ..put.settings.unwrap() });
        assert_eq!(put.typed_settings().unwrap_err().code(), ErrorCode::NewerFormat);

        put.settings = Some(SettingsRecord::from(&CollectionSettings::with_partitions(0)));
        assert_eq!(put.typed_settings().unwrap_err().code(), ErrorCode::Corrupt);

        put.name = "no/slash".into();
        assert_eq!(put.typed_name().unwrap_err().code(), ErrorCode::Corrupt);
    }
}
