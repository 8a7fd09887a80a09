//! LMDB through heed: a tree in a file that is mapped, copied where it is written.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls, types::Bytes};

use super::{Durability, Reader, See, Store, Use};
use crate::pairs::{Pair, key};

/// The most that the file may grow to. It is sparse.
const MAP_BYTES: usize = 8 << 30;

type Pairs<'e> = Database<'e, Bytes, Bytes>;

struct Open<'e> {
    env: &'e Env<WithoutTls>,
    pairs: Pairs<'e>,
}

struct Reads<'e, 's> {
    env: &'e Env<WithoutTls>,
    pairs: &'s Pairs<'e>,
}

/// Opens it. Without syncs the map is written to, as its documentation says for speed.
pub(super) fn open(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let dir = dir.join("lmdb");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let flags = match durability {
        Durability::Synced => EnvFlags::empty(),
        Durability::Unsynced => EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP,
    };
    let env = open_env(&dir, flags)?;
    let transaction = env.write_txn()?;
    let pairs = env
        .create_databases_and_commit(transaction, |opener, transaction| {
            opener
                .create_database::<Bytes, Bytes>(transaction, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    work(&mut Open { env: &env, pairs })
}

#[expect(unsafe_code, reason = "heed calls flags and maps unsafe")]
fn open_env(dir: &Path, flags: EnvFlags) -> Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES);
    // SAFETY: the flags give up durability, and no power is lost here.
    unsafe { options.flags(flags) };
    // SAFETY: the directory is new and ours: nobody else changes the file below the map.
    Ok(unsafe { options.open(dir)? })
}

impl Store for Open<'_> {
    fn put(&mut self, pair: &Pair) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.pairs.put(&mut transaction, &pair.key, &pair.value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for pair in pairs {
            self.pairs.put(&mut transaction, &pair.key, &pair.value)?;
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reads { env: self.env, pairs: &self.pairs }))
    }
}

impl Reader for Reads<'_, '_> {
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()> {
        let transaction = self.env.read_txn()?;
        for &number in numbers {
            see(number, self.pairs.get(&transaction, &key(number))?)?;
        }
        Ok(())
    }
}
