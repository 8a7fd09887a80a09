//! SQLite through rusqlite: a tree in a file behind a write-ahead log.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rusqlite::{Connection, params};

use super::{CACHE_BYTES, Durability, Reader, See, Store, Use};
use crate::pairs::{Pair, key};

const PUT: &str = "INSERT OR REPLACE INTO pairs (key, value) VALUES (?1, ?2)";
const GET: &str = "SELECT value FROM pairs WHERE key = ?1";

struct Open {
    connection: Connection,
    path: PathBuf,
}

struct Reads(Connection);

/// Opens it. A key is the place of its row, so that there is one tree.
pub(super) fn open(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let path = dir.join("sqlite");
    let connection = connect(&path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Synced => "FULL",
        Durability::Unsynced => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    )?;
    work(&mut Open { connection, path })
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    // Negative: in units of 1,024 bytes.
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_BYTES / 1024))?;
    Ok(connection)
}

impl Store for Open {
    fn put(&mut self, pair: &Pair) -> Result<()> {
        let mut statement = self.connection.prepare_cached(PUT)?;
        statement.execute(params![&pair.key[..], &pair.value[..]])?;
        Ok(())
    }

    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(PUT)?;
            for pair in pairs {
                statement.execute(params![&pair.key[..], &pair.value[..]])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reads(connect(&self.path)?)))
    }
}

impl Reader for Reads {
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut statement = transaction.prepare_cached(GET)?;
            for &number in numbers {
                let mut rows = statement.query(params![&key(number)[..]])?;
                match rows.next()? {
                    Some(row) => see(number, Some(row.get_ref(0)?.as_blob()?))?,
                    None => see(number, None)?,
                }
            }
        }
        Ok(transaction.commit()?)
    }
}
