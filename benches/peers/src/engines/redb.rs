//! redb: a tree in a file, copied where it is written.

use std::path::Path;

use anyhow::{Context as _, Result};
use redb::{Database, Durability as Promise, ReadableDatabase as _, TableDefinition};

use super::{CACHE_BYTES, Durability, Reader, See, Store, Use};
use crate::pairs::{Pair, key};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pairs");

struct Open {
    db: Database,
    promise: Promise,
}

/// Opens it.
pub(super) fn open(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let cache_bytes = usize::try_from(CACHE_BYTES).context("size of the cache")?;
    let db = Database::builder().set_cache_size(cache_bytes).create(dir.join("redb"))?;
    let promise = match durability {
        Durability::Synced => Promise::Immediate,
        Durability::Unsynced => Promise::None,
    };
    work(&mut Open { db, promise })
}

impl Store for Open {
    fn put(&mut self, pair: &Pair) -> Result<()> {
        self.put_batch(std::slice::from_ref(pair))
    }

    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(self.promise)?;
        {
            let mut table = transaction.open_table(PAIRS)?;
            for pair in pairs {
                table.insert(&pair.key[..], &pair.value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.db))
    }
}

impl Reader for &Database {
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()> {
        let transaction = self.begin_read()?;
        let table = transaction.open_table(PAIRS)?;
        for &number in numbers {
            let found = table.get(&key(number)[..])?;
            see(number, found.as_ref().map(redb::AccessGuard::value))?;
        }
        Ok(())
    }
}
