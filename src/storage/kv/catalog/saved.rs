//! The catalogue in a checkpoint: each row as the command that would make it, and the versions beside.

use prkdb_types::{ShardCommand, command::PartitionPut};

use super::{Catalog, Subject};
use crate::storage::checkpoint::codec::{Malformed, Put as _, Take};

impl Catalog {
    /// Adds the catalogue to a section.
    pub(in crate::storage) fn save(&self, to: &mut Vec<u8>) {
        to.put_number(self.collections.len() as u64);
        for entry in self.collections.values() {
            to.put_bytes(&entry.command().to_record());
        }
        to.put_number(self.partitions.len() as u64);
        for put in self.partitions.values() {
            to.put_number(put.partition.into());
            to.put_number(put.collection.into());
            to.put_number(put.number.into());
            to.push(put.key_index.into());
            to.put_number(put.ttl_ms);
            to.push(put.compact.into());
            to.put_number(put.retention_ms);
            to.put_number(put.retention_bytes);
        }
        to.put_number(self.versions.len() as u64);
        for (subject, version) in &self.versions {
            let (kind, id) = match subject {
                Subject::Collection(id) => (0, *id),
                Subject::Partition(id) => (1, *id),
            };
            to.push(kind);
            to.put_number(id);
            to.put_number(*version);
        }
    }

    /// Reads the catalogue of a section.
    pub(in crate::storage) fn load(from: &mut Take<'_>) -> Result<Self, Malformed> {
        let mut catalog = Self::default();
        for _ in 0..from.count()? {
            let command = ShardCommand::parse_record(from.bytes()?).map_err(|_| Malformed)?;
            catalog.apply(&command).map_err(|_| Malformed)?;
        }
        for _ in 0..from.count()? {
            let put = PartitionPut {
                partition: from.narrow()?,
                collection: from.narrow()?,
                number: from.narrow()?,
                key_index: from.flag()?,
                ttl_ms: from.number()?,
                compact: from.flag()?,
                retention_ms: from.number()?,
                retention_bytes: from.number()?,
            };
            catalog.partitions.insert(put.partition, put);
        }
        catalog.versions.clear();
        for _ in 0..from.count()? {
            let subject = match from.byte()? {
                0 => Subject::Collection(from.number()?),
                1 => Subject::Partition(from.number()?),
                _ => return Err(Malformed),
            };
            catalog.versions.insert(subject, from.number()?);
        }
        Ok(catalog)
    }
}
