//! Which partition a key belongs to and where its leader answers.

use prkdb_proto::v1;

/// The partitions of one collection, as a server described them.
#[derive(Debug)]
pub struct Partitions {
    collection: v1::Collection,
}

impl Partitions {
    /// Returns the collection as the server described it.
    pub fn collection(&self) -> &v1::Collection {
        &self.collection
    }

    /// Returns how many partitions there are.
    pub fn count(&self) -> u32 {
        todo!()
    }

    /// Returns the number of the key's partition.
    pub fn of(&self, key: &[u8]) -> u32 {
        let _ = key;
        todo!()
    }
}
