//! What may be changed of a collection that is there.

use crate::{
    Cleanup, CollectionSettings, ErrorCode, KeyIndex, Retention, SettingsError, headers::Ttl,
};

/// What is to change of a collection; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionChanges {
    /// How many partitions there are: more than now, and only without a key index.
    pub partitions: Option<u32>,
    /// How long values last that are appended from then on and state nothing else.
    pub ttl: Option<Ttl>,
    /// How old records get, in milliseconds; 0 = any age.
    pub retention_ms: Option<u64>,
    /// How many bytes of a partition are kept; 0 = all.
    pub retention_bytes: Option<u64>,
}

/// Why a collection is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// Its keys would be looked for elsewhere.
    #[error("it has a key index: other partitions would be other places for its keys")]
    Keyed,
    /// What stands in the last ones would be gone.
    #[error("it has {partitions} partitions: fewer would lose records")]
    Fewer {
        /// How many there are.
        partitions: u32,
    },
    /// No collection can be so.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl AlterError {
    /// Returns the code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Keyed | Self::Fewer { .. } => ErrorCode::AlterRefused,
            Self::Settings(error) => error.code(),
        }
    }

    /// Returns what helps; empty where there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Keyed => "create another collection with the partitions wanted, and copy",
            Self::Fewer { .. } | Self::Settings(_) => "",
        }
    }
}

impl CollectionChanges {
    /// Returns what the settings become.
    ///
    /// # Errors
    /// [`AlterError`].
    pub fn of(self, known: &CollectionSettings) -> Result<CollectionSettings, AlterError> {
        let changed = |to: Option<u64>, from: Option<u64>| match to {
            Some(to) => (to > 0).then_some(to),
            None => from,
        };
        let retention = Retention {
            ms: changed(self.retention_ms, known.retention.ms),
            bytes: changed(self.retention_bytes, known.retention.bytes),
        };
        let settings = CollectionSettings {
            partitions: self.partitions.unwrap_or(known.partitions),
            ttl_ms: match self.ttl {
                Some(Ttl::Ms(ms)) => Some(ms),
                Some(Ttl::Never) => None,
                None => known.ttl_ms,
            },
            cleanup: match known.cleanup {
                Cleanup::Keep if !retention.is_none() => Cleanup::Expire,
                Cleanup::Expire if retention.is_none() => Cleanup::Keep,
                cleanup => cleanup,
            },
            retention,
            ..*known
        };
        if settings.partitions != known.partitions && known.key_index == KeyIndex::On {
            return Err(AlterError::Keyed);
        }
        if settings.partitions < known.partitions {
            return Err(AlterError::Fewer { partitions: known.partitions });
        }
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_a_retention_says_the_cleanup() {
        let known = CollectionSettings { ttl_ms: Some(5), ..CollectionSettings::default() };
        assert_eq!(CollectionChanges::default().of(&known), Ok(known));
        let kept = CollectionChanges { retention_ms: Some(60_000), ..Default::default() };
        let altered = kept.of(&known).unwrap();
        assert_eq!((altered.cleanup, altered.ttl_ms), (Cleanup::Expire, Some(5)));
        let all = CollectionChanges {
            retention_ms: Some(0),
            ttl: Some(Ttl::Never),
            ..Default::default()
        };
        let altered = all.of(&altered).unwrap();
        assert_eq!((altered.cleanup, altered.retention.is_none()), (Cleanup::Keep, true));
        assert_eq!(altered.ttl_ms, None);
    }

    #[test]
    fn what_would_lose_keys_or_records_is_refused() {
        let keyed = CollectionSettings::with_partitions(4);
        let events = CollectionSettings { key_index: KeyIndex::Off, ..keyed };
        let to =
            |partitions| CollectionChanges { partitions: Some(partitions), ..Default::default() };
        assert_eq!(to(8).of(&keyed), Err(AlterError::Keyed));
        assert_eq!(to(4).of(&keyed), Ok(keyed));
        assert_eq!(to(8).of(&events).unwrap().partitions, 8);
        let fewer = to(2).of(&events).unwrap_err();
        assert_eq!(fewer, AlterError::Fewer { partitions: 4 });
        assert_eq!(fewer.code(), ErrorCode::AlterRefused);
        let nothing = CollectionChanges { ttl: Some(Ttl::Ms(0)), ..Default::default() };
        assert_eq!(nothing.of(&keyed).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
}
