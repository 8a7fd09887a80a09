//! What single operations ask and answer.

use std::time::Duration;

use bytes::Bytes;
use prkdb_proto::v1::{self, put_request};
use prkdb_types::headers::Ttl;

/// What must hold of a key for a write to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has no value.
    Absent,
    /// Its latest record has this offset.
    Version(u64),
}

/// A value to store under a key.
///
/// ```
/// let put = prkdb_client::Put::new("default", "user:1", "Ada").if_absent();
/// assert_eq!(put.collection(), "default");
/// ```
#[derive(Clone, Debug)]
pub struct Put {
    pub(crate) request: v1::PutRequest,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Put {
    /// Stores `value` under `key` of `collection`.
    pub fn new(
        collection: impl Into<String>,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        let request = v1::PutRequest {
            collection: collection.into(),
            partition: None,
            key: key.into(),
            value: value.into(),
            timestamp_ms: 0,
            producer: None,
            condition: None,
            want_previous: false,
            ttl_ms: None,
        };
        Self { request, timestamp_ms: None }
    }

    /// Ends after so long, by the shard's time from the append on; what is above 100 years is cut to that.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl_ms = ttl_ms(Ttl::of(ttl));
        self
    }

    /// Only if the key has no value.
    #[must_use]
    pub fn if_absent(self) -> Self {
        self.only_if(Condition::Absent)
    }

    /// Only if the key's latest record has this offset.
    #[must_use]
    pub fn if_version(self, version: u64) -> Self {
        self.only_if(Condition::Version(version))
    }

    /// Only if this holds.
    #[must_use]
    pub fn only_if(mut self, condition: Condition) -> Self {
        self.request.condition = Some(match condition {
            Condition::Absent => put_request::Condition::IfAbsent(true),
            Condition::Version(version) => put_request::Condition::IfVersion(version),
        });
        self
    }

    /// Stamps the record with this time instead of the client's clock, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Asks for the value that is replaced.
    #[must_use]
    pub fn return_previous(mut self) -> Self {
        self.request.want_previous = true;
        self
    }

    /// Returns the collection it goes to.
    pub fn collection(&self) -> &str {
        &self.request.collection
    }

    /// Returns the key.
    pub fn key(&self) -> &Bytes {
        &self.request.key
    }
}

fn ttl_ms(ttl: Ttl) -> Option<u64> {
    match ttl {
        Ttl::Never => None,
        Ttl::Ms(ttl_ms) => Some(ttl_ms),
    }
}

/// A key whose value is given another time to live.
#[derive(Clone, Debug)]
pub struct Expire {
    pub(crate) request: v1::ExpireRequest,
}

impl Expire {
    /// The value of `key` of `collection` ends after so long from now, by the shard's time; at once for
    /// nothing.
    pub fn after(collection: impl Into<String>, key: impl Into<Bytes>, ttl: Duration) -> Self {
        Self::new(collection, key, Ttl::of(ttl))
    }

    /// The value of `key` of `collection` does not end by itself.
    pub fn never(collection: impl Into<String>, key: impl Into<Bytes>) -> Self {
        Self::new(collection, key, Ttl::Never)
    }

    fn new(collection: impl Into<String>, key: impl Into<Bytes>, ttl: Ttl) -> Self {
        let (collection, key) = (collection.into(), key.into());
        Self { request: v1::ExpireRequest { collection, key, ttl_ms: ttl_ms(ttl) } }
    }
}

/// What giving a key another time to live found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Whether the key had a value; nothing was changed where it had none.
    pub existed: bool,
    /// Whether it was to expire before.
    pub expired_before: bool,
    /// The version of the key now; 0 where it has no value.
    pub version: u64,
    /// The number of the key's partition in its collection.
    pub partition: u32,
    /// The revision at which it is so.
    pub revision: u64,
}

impl From<v1::ExpireReply> for Renewed {
    fn from(reply: v1::ExpireReply) -> Self {
        let v1::ExpireReply { existed, expired_before, version, partition, revision } = reply;
        Self { existed, expired_before, version, partition, revision }
    }
}

/// A key to delete.
#[derive(Clone, Debug)]
pub struct Delete {
    pub(crate) request: v1::DeleteRequest,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Delete {
    /// Deletes `key` of `collection`.
    pub fn new(collection: impl Into<String>, key: impl Into<Bytes>) -> Self {
        let request = v1::DeleteRequest {
            collection: collection.into(),
            partition: None,
            key: key.into(),
            timestamp_ms: 0,
            producer: None,
            if_version: None,
            want_previous: false,
        };
        Self { request, timestamp_ms: None }
    }

    /// Only if the key's latest record has this offset.
    #[must_use]
    pub fn if_version(mut self, version: u64) -> Self {
        self.request.if_version = Some(version);
        self
    }

    /// Stamps the tombstone with this time instead of the client's clock, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Asks for the value that is deleted.
    #[must_use]
    pub fn return_previous(mut self) -> Self {
        self.request.want_previous = true;
        self
    }

    /// Returns the collection it goes to.
    pub fn collection(&self) -> &str {
        &self.request.collection
    }

    /// Returns the key.
    pub fn key(&self) -> &Bytes {
        &self.request.key
    }
}

/// A write that is durable and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of the partition in its collection.
    pub partition: u32,
    /// The record's offset, which is the key's version; 0 for a delete that found nothing.
    pub offset: u64,
    /// The entry of the shard's log that holds it.
    pub revision: u64,
    /// The shard's time when it was appended, in milliseconds since 1970.
    pub append_time_ms: i64,
    /// Whether the key had a value before.
    pub existed: bool,
    /// The value before, if it was asked for and there was one.
    pub previous: Option<Bytes>,
    /// Whether an earlier attempt had been applied, whose answer this is.
    pub duplicate: bool,
}

impl From<v1::WriteReply> for Written {
    fn from(reply: v1::WriteReply) -> Self {
        Self {
            partition: reply.partition,
            offset: reply.offset,
            revision: reply.revision,
            append_time_ms: reply.append_time_ms,
            existed: reply.existed,
            previous: reply.previous,
            duplicate: reply.duplicate,
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began.
    #[default]
    Linearizable,
    /// What the node asked has now.
    Stale,
    /// As linearizable, served by whichever replica is asked.
    Follower,
}

impl From<Consistency> for v1::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => Self::Linearizable,
            Consistency::Stale => Self::Stale,
            Consistency::Follower => Self::Follower,
        }
    }
}

/// A key to read.
#[derive(Clone, Debug)]
pub struct Get {
    pub(crate) request: v1::GetRequest,
}

impl Get {
    /// Reads the latest value of `key` of `collection`.
    pub fn new(collection: impl Into<String>, key: impl Into<Bytes>) -> Self {
        let request =
            v1::GetRequest { collection: collection.into(), key: key.into(), consistency: 0 };
        Self { request }.consistency(Consistency::default())
    }

    /// Chooses how fresh the read must be.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.request.set_consistency(consistency.into());
        self
    }
}

/// Keys to read in one call.
#[derive(Clone, Debug)]
pub struct MultiGet {
    pub(crate) request: v1::MultiGetRequest,
}

impl MultiGet {
    /// Reads the latest values of `keys` of `collection`.
    pub fn new(collection: impl Into<String>, keys: Vec<Bytes>) -> Self {
        let request = v1::MultiGetRequest { collection: collection.into(), keys, consistency: 0 };
        Self { request }.consistency(Consistency::default())
    }

    /// Chooses how fresh the read must be.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.request.set_consistency(consistency.into());
        self
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub value: Bytes,
    /// The offset of the record that holds it.
    pub version: u64,
    /// The number of the key's partition in its collection.
    pub partition: u32,
    /// The producer's time, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Until when it lasts, by the shard's time; `None` where it does not expire.
    pub expires: Option<Expiry>,
}

/// When a value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The shard's time then, in milliseconds since 1970.
    pub at_ms: i64,
    /// How long that was from the shard's time when it was read.
    pub remaining: Duration,
}

impl From<v1::Value> for Value {
    fn from(value: v1::Value) -> Self {
        Self {
            value: value.value,
            version: value.version,
            partition: value.partition,
            timestamp_ms: value.timestamp_ms,
            expires: value.expires_at_ms.map(|at_ms| Expiry {
                at_ms,
                remaining: Duration::from_millis(value.ttl_ms.unwrap_or_default()),
            }),
        }
    }
}

/// The answer to a read of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What the key holds; `None` where it has no value.
    pub value: Option<Value>,
    /// The revision the key's shard was read at.
    pub revision: u64,
}

impl From<v1::GetReply> for Read {
    fn from(reply: v1::GetReply) -> Self {
        Self { value: reply.found.map(Value::from), revision: reply.revision }
    }
}
