//! Names and settings of collections.
//!
//! Owns the rules a name obeys, the choices a collection is created with, and their names and
//! numbers. Where a collection's partitions lie is not known here.

use std::{fmt, sync::Arc};

use crate::{ErrorCode, Partitioner, limits};

/// Gives a plain enum its names (on the command line and in JSON) and numbers (in records and on the
/// wire), in one table for each.
macro_rules! named_choices {
    ($type:ident, $what:literal, $($variant:ident = $name:literal, $number:literal;)+) => {
        impl $type {
            #[doc = concat!("Every ", $what, ".")]
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name used on the command line and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the number used in records and on the wire; 0 is never used.
            pub fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)+ }
            }

            #[doc = concat!("Returns the ", $what, " with this name.")]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| choice.name() == name)
            }

            #[doc = concat!("Returns the ", $what, " with this number.")]
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| choice.number() == number)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// After a majority has synced it to disk.
    Sync,
}

/// Which records go away by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cleanup {
    /// None: every record is kept.
    Keep,
    /// Those of keys that were written again, and tombstones after a day.
    Compact,
    /// Those that are beyond the collection's retention.
    Expire,
}

/// Where the partitions of a collection lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Over all shards.
    Spread,
    /// All in one shard.
    Colocated,
}

/// Whether the latest record of a key can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyIndex {
    /// It can: each key costs memory.
    On,
    /// It cannot: the collection holds events only.
    Off,
}

named_choices!(Partitioner, "partitioner", Ring = "ring", 1; Kafka = "kafka", 2;);
named_choices!(Durability, "durability", Sync = "sync", 1;);
named_choices!(Cleanup, "cleanup policy", Keep = "keep", 1; Compact = "compact", 2; Expire = "expire", 3;);
named_choices!(Placement, "placement", Spread = "spread", 1; Colocated = "colocated", 2;);
named_choices!(KeyIndex, "choice of a key index", On = "on", 1; Off = "off", 2;);

/// How much of each partition is kept, where that is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Records that were appended longer ago may go, in milliseconds of the shard's time.
    pub ms: Option<u64>,
    /// The oldest records beyond so many bytes may go.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Returns whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.ms.is_none() && self.bytes.is_none()
    }
}

/// What a collection is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollectionSettings {
    /// How many partitions, from 1 to [`limits::MAX_PARTITIONS`]. Default 3.
    pub partitions: u32,
    /// How a key is mapped to a partition. Default [`Partitioner::default_for`] the count.
    pub partitioner: Partitioner,
    /// When a write is acknowledged. Default [`Durability::Sync`].
    pub durability: Durability,
    /// Which records go away. Default [`Cleanup::Keep`].
    pub cleanup: Cleanup,
    /// Where the partitions lie. Default [`Placement::Spread`].
    pub placement: Placement,
    /// Whether keys can be looked up. Default [`KeyIndex::On`].
    pub key_index: KeyIndex,
    /// How long values last that state nothing else, in milliseconds. Default: for ever.
    pub ttl_ms: Option<u64>,
    /// How much of each partition [`Cleanup::Expire`] keeps. Default: all.
    pub retention: Retention,
}

impl CollectionSettings {
    /// Returns the defaults for a collection of `partitions` partitions.
    pub fn with_partitions(partitions: u32) -> Self {
        Self {
            partitions,
            partitioner: Partitioner::default_for(partitions),
            durability: Durability::Sync,
            cleanup: Cleanup::Keep,
            placement: Placement::Spread,
            key_index: KeyIndex::On,
            ttl_ms: None,
            retention: Retention::default(),
        }
    }

    /// Checks the limits that bind the fields to each other.
    ///
    /// # Errors
    /// [`SettingsError`], of the kind `Invalid`, names the limit.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(1..=limits::MAX_PARTITIONS).contains(&self.partitions) {
            return Err(SettingsError::Partitions(self.partitions));
        }
        if self.partitioner == Partitioner::Ring && self.partitions > limits::MAX_RING_PARTITIONS {
            return Err(SettingsError::RingPartitions(self.partitions));
        }
        match self.cleanup {
            Cleanup::Expire if self.retention.is_none() => {
                return Err(SettingsError::ExpireWithoutRetention);
            }
            Cleanup::Keep | Cleanup::Compact if !self.retention.is_none() => {
                return Err(SettingsError::RetentionWithoutExpire(self.cleanup));
            }
            Cleanup::Compact if self.key_index == KeyIndex::Off => {
                return Err(SettingsError::CompactWithoutIndex);
            }
            _ => {}
        }
        if let Retention { ms: Some(0), .. } | Retention { bytes: Some(0), .. } = self.retention {
            return Err(SettingsError::NoRetention);
        }
        match self.ttl_ms {
            Some(ttl_ms) if !(1..=limits::MAX_TTL_MS).contains(&ttl_ms) => {
                Err(SettingsError::Ttl(ttl_ms))
            }
            Some(_) if self.key_index == KeyIndex::Off => Err(SettingsError::TtlWithoutIndex),
            _ => Ok(()),
        }
    }
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self::with_partitions(3)
    }
}

/// Settings that no collection can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No partitions, or too many.
    #[error("{0} partitions: a collection has from 1 to {max}", max = limits::MAX_PARTITIONS)]
    Partitions(u32),
    /// Too many partitions for a ring.
    #[error(
        "{0} partitions: the ring partitioner takes up to {max}, kafka takes more",
        max = limits::MAX_RING_PARTITIONS
    )]
    RingPartitions(u32),
    /// A time to live of nothing, or one that is too long.
    #[error("a time to live of {0} ms: it has from 1 to {max}", max = limits::MAX_TTL_MS)]
    Ttl(u64),
    /// A time to live where there are no keys.
    #[error("a time to live is that of a key: the collection has no key index")]
    TtlWithoutIndex,
    /// Nothing says what may go.
    #[error("cleanup expire: a retention says what is kept")]
    ExpireWithoutRetention,
    /// What a retention says would not be done.
    #[error("a retention is kept by cleanup expire, not by {0}")]
    RetentionWithoutExpire(Cleanup),
    /// There is no latest record of a key.
    #[error("cleanup compact keeps the latest record of a key: the collection has no key index")]
    CompactWithoutIndex,
    /// Everything would go.
    #[error("a retention of nothing: it is above 0")]
    NoRetention,
}

impl SettingsError {
    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidArgument
    }
}

/// The name of a collection: 1 to 249 of `A-Z a-z 0-9 . _ -`, but not `.` and `..`.
///
/// Two names that differ only in case may not exist together: compare [`CollectionName::folded`].
/// A clone counts a reference.
///
/// ```
/// use prkdb_types::CollectionName;
///
/// let name = CollectionName::parse("flights")?;
/// assert_eq!(name.as_str(), "flights");
/// assert!(CollectionName::parse("no/slash").is_err());
/// # Ok::<(), prkdb_types::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// The collection that exists from the start.
    pub const DEFAULT: &str = "default";

    /// Returns the name of the collection that exists from the start.
    pub fn default_name() -> Self {
        Self(Self::DEFAULT.into())
    }

    /// Checks a name. Reserved names are names too: see [`CollectionName::is_internal`].
    ///
    /// # Errors
    /// [`NameError`], of the kind `Invalid`, says which rule is broken.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > limits::MAX_COLLECTION_NAME {
            return Err(NameError::TooLong(name.len()));
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(found) = name.chars().find(|c| !is_allowed(*c)) {
            return Err(NameError::Character { name: name.into(), found });
        }
        if matches!(name, "." | "..") {
            return Err(NameError::Dots(name.into()));
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name is reserved for the system: it begins with two underscores.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with("__")
    }

    /// Returns the form in which names are unique.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for CollectionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for CollectionName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

/// A name that no collection can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a collection's name has at least one character")]
    Empty,
    /// It is too long.
    #[error(
        "a collection's name has at most {max} characters, this one has {0}",
        max = limits::MAX_COLLECTION_NAME
    )]
    TooLong(usize),
    /// A character is not allowed.
    #[error(
        "collection name {name:?}: {found:?} is none of A-Z, a-z, 0-9, dot, underscore, hyphen"
    )]
    Character {
        /// The name.
        name: String,
        /// The first character at fault.
        found: char,
    },
    /// It would be a path.
    #[error("collection name {0:?} is not allowed")]
    Dots(String),
}

impl NameError {
    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_characters_of_kafka_and_no_others() {
        for name in ["a", "default", "A.b_c-9", "__internal", "...", &"x".repeat(249)] {
            assert_eq!(CollectionName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "a b", "a/b", "ü", "a\0", "a\n", &"x".repeat(250)] {
            let error = CollectionName::parse(name).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{name:?}");
        }
    }

    #[test]
    fn two_underscores_are_internal() {
        assert!(CollectionName::parse("__x").unwrap().is_internal());
        assert!(!CollectionName::parse("_x").unwrap().is_internal());
    }

    #[test]
    fn names_that_differ_in_case_fold_to_one() {
        let one = CollectionName::parse("Flights").unwrap();
        let other = CollectionName::parse("fLIGHTS").unwrap();
        assert_ne!(one, other);
        assert_eq!(one.folded(), other.folded());
    }

    #[test]
    fn defaults_are_three_partitions_on_a_ring() {
        let settings = CollectionSettings::default();
        assert_eq!(settings.partitions, 3);
        assert_eq!(settings.partitioner, Partitioner::Ring);
        settings.check().unwrap();
    }

    #[test]
    fn partition_counts_outside_the_limits_are_refused() {
        for partitions in [0, limits::MAX_PARTITIONS + 1, u32::MAX] {
            let settings = CollectionSettings::with_partitions(partitions);
            assert_eq!(settings.check(), Err(SettingsError::Partitions(partitions)));
        }
        CollectionSettings::with_partitions(limits::MAX_PARTITIONS).check().unwrap();
        let ring = CollectionSettings {
            partitioner: Partitioner::Ring,
            ..CollectionSettings::with_partitions(1025)
        };
        assert_eq!(ring.check(), Err(SettingsError::RingPartitions(1025)));
    }

    #[test]
    fn names_and_numbers_of_the_choices_round_trip() {
        for choice in Partitioner::ALL {
            assert_eq!(Partitioner::from_name(choice.name()), Some(*choice));
            assert_eq!(Partitioner::from_number(choice.number()), Some(*choice));
        }
        assert_eq!(Placement::from_name("colocated"), Some(Placement::Colocated));
        assert_eq!(KeyIndex::from_number(0), None);
        assert_eq!(format!("{:>5}", Cleanup::Keep), " keep");
    }
}
