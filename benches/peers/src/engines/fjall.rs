//! fjall: trees of sorted files behind a journal.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{CACHE_BYTES, Durability, Reader, See, Store, Use};
use crate::pairs::{Pair, key};

struct Open {
    db: Database,
    pairs: Keyspace,
    /// What follows a commit, beyond handing it to the operating system.
    sync: Option<PersistMode>,
}

/// Opens it. `SyncData` is `fdatasync`, which also writes the length of a file that grew.
pub(super) fn open(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let db = Database::builder(dir.join("fjall")).cache_size(u64::from(CACHE_BYTES)).open()?;
    let pairs = db.keyspace("pairs", KeyspaceCreateOptions::default)?;
    let sync = (durability == Durability::Synced).then_some(PersistMode::SyncData);
    work(&mut Open { db, pairs, sync })
}

impl Store for Open {
    fn put(&mut self, pair: &Pair) -> Result<()> {
        self.pairs.insert(pair.key, pair.value)?;
        if let Some(mode) = self.sync {
            self.db.persist(mode)?;
        }
        Ok(())
    }

    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut batch = self.db.batch();
        if self.sync.is_some() {
            batch = batch.durability(self.sync);
        }
        for pair in pairs {
            batch.insert(&self.pairs, pair.key, pair.value);
        }
        Ok(batch.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        // The clone is another handle.
        Ok(Box::new(self.pairs.clone()))
    }
}

impl Reader for Keyspace {
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()> {
        for &number in numbers {
            let found = self.get(key(number))?;
            see(number, found.as_deref())?;
        }
        Ok(())
    }
}
