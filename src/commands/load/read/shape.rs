//! What a command says of every record it reads.

use prkdb_types::headers::{TTL_MS, Ttl, TtlText};

use super::{Header, Record};

/// Adds to records what the command line says of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The text of a key that stands for no key.
    pub null_key: Option<Vec<u8>>,
    /// The text of a value that stands for none.
    pub tombstone: Option<Vec<u8>>,
    /// The key of every record.
    pub key: Option<Vec<u8>>,
    /// The partition of every record.
    pub partition: Option<u32>,
    /// The time of every record, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Headers in front of a record's own.
    pub headers: Vec<Header>,
    /// How long every value lasts whose record says nothing else.
    pub ttl: Option<Ttl>,
}

impl Shape {
    /// Returns the record as it is to be written.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn apply(&self, mut record: Record) -> Result<Record, String> {
        if self.null_key.is_some() && record.key == self.null_key {
            record.key = None;
        }
        if self.tombstone.is_some() && record.value == self.tombstone {
            record.value = None;
        }
        // The clones are of what is written again and again.
        if self.key.is_some() {
            record.key.clone_from(&self.key);
        }
        if !self.headers.is_empty() {
            record.headers.splice(..0, self.headers.iter().cloned());
        }
        if let Some(ttl) = self.ttl.filter(|_| record.value.is_some()) {
            // In front: where a record has its own, the last one counts.
            let text = TtlText::new(ttl).as_bytes().to_vec();
            record.headers.insert(0, (TTL_MS.to_owned(), text));
        }
        record.partition = self.partition.or(record.partition);
        record.timestamp_ms = self.timestamp_ms.or(record.timestamp_ms);
        match (&record.key, &record.value) {
            (Some(key), _) if key.is_empty() => Err("empty key".to_owned()),
            (None, None) => Err("neither a key nor a value".to_owned()),
            _ => Ok(record),
        }
    }
}
