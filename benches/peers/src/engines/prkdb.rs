//! PrkDB, in three ways of use: a transaction for each batch, an append for each, and many under way.

use std::{collections::VecDeque, path::Path};

use anyhow::Result;
use prkdb::{
    PrkDb,
    db::{self, DbError, Event, Kv, Reply},
};

use super::{Durability, Reader, See, Store, Use};
use crate::pairs::{Pair, key};

/// Batches under way, where there may be more than one.
const BATCHES_UNDER_WAY: usize = 16;
/// Single puts under way, where there may be more than one.
const PUTS_UNDER_WAY: usize = 64;

/// What a batch is written with.
enum Batches {
    Transaction,
    Append,
}

/// How it is used.
struct Ways {
    batches: Batches,
    batches_under_way: usize,
    puts_under_way: usize,
}

struct Open {
    db: PrkDb,
    kv: Kv,
    ways: Ways,
    /// Writes that are not acknowledged, the oldest first.
    under_way: VecDeque<Written>,
}

/// A write under way.
enum Written {
    Records(Reply<db::Written>),
    Transaction(Reply<u64>),
}

impl Written {
    fn wait(self) -> Result<(), DbError> {
        match self {
            Self::Records(reply) => reply.wait().map(drop),
            Self::Transaction(reply) => reply.wait().map(drop),
        }
    }
}

/// Opens it with a transaction for each batch, and waits for every commit.
pub(super) fn open_transactions(
    dir: &Path,
    durability: Durability,
    work: &mut Use<'_>,
) -> Result<()> {
    let ways = Ways { batches: Batches::Transaction, batches_under_way: 1, puts_under_way: 1 };
    open(dir, durability, ways, work)
}

/// Opens it with an append for each batch, and waits for every one.
pub(super) fn open_appends(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let ways = Ways { batches: Batches::Append, batches_under_way: 1, puts_under_way: 1 };
    open(dir, durability, ways, work)
}

/// Opens it with many writes under way.
pub(super) fn open_under_way(dir: &Path, durability: Durability, work: &mut Use<'_>) -> Result<()> {
    let ways = Ways {
        batches: Batches::Append,
        batches_under_way: BATCHES_UNDER_WAY,
        puts_under_way: PUTS_UNDER_WAY,
    };
    open(dir, durability, ways, work)
}

fn open(dir: &Path, durability: Durability, ways: Ways, work: &mut Use<'_>) -> Result<()> {
    let durability = match durability {
        Durability::Synced => db::Durability::Sync,
        Durability::Unsynced => db::Durability::Relaxed,
    };
    let db =
        PrkDb::builder().with_data_dir(dir.join("prkdb")).with_durability(durability).build()?;
    let mut open = Open { kv: db.kv(), db, ways, under_way: VecDeque::new() };
    work(&mut open)?;
    open.settle()?;
    Ok(open.db.close()?)
}

impl Open {
    /// Has a write under way, and waits for the oldest where there are as many as may be.
    fn begun(&mut self, write: Written, most: usize) -> Result<()> {
        self.under_way.push_back(write);
        while self.under_way.len() >= most {
            let Some(oldest) = self.under_way.pop_front() else { break };
            oldest.wait()?;
        }
        Ok(())
    }
}

impl Store for Open {
    fn put(&mut self, pair: &Pair) -> Result<()> {
        let reply = self.kv.put(pair.key.to_vec(), pair.value.to_vec());
        self.begun(Written::Records(reply), self.ways.puts_under_way)
    }

    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()> {
        let write = match self.ways.batches {
            Batches::Transaction => {
                let mut transaction = self.db.begin();
                for pair in pairs {
                    transaction.put(pair.key.to_vec(), pair.value.to_vec())?;
                }
                Written::Transaction(transaction.commit())
            }
            Batches::Append => {
                let events: Vec<Event> = pairs
                    .iter()
                    .map(|pair| Event::new(pair.value.to_vec()).with_key(pair.key.to_vec()))
                    .collect();
                Written::Records(self.db.stream().append(0, &events))
            }
        };
        self.begun(write, self.ways.batches_under_way)
    }

    fn settle(&mut self) -> Result<()> {
        while let Some(oldest) = self.under_way.pop_front() {
            oldest.wait()?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self.kv.clone()))
    }
}

impl Reader for Kv {
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()> {
        for &number in numbers {
            let found = self.get(key(number)).wait()?;
            see(number, found.as_ref().map(|found| &found.value[..]))?;
        }
        Ok(())
    }
}
