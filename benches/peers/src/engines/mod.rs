//! What is compared: a small trait, an engine in each file, and the list of those that take part.

mod fjall;
mod lmdb;
mod prkdb;
mod redb;
mod sqlite;

use std::path::Path;

use anyhow::Result;

use crate::pairs::Pair;

/// An open store. What durability a commit has was said when it was opened.
pub(crate) trait Store {
    /// Commits one pair.
    fn put(&mut self, pair: &Pair) -> Result<()>;

    /// Commits pairs at once: all of them or none.
    fn put_batch(&mut self, pairs: &[Pair]) -> Result<()>;

    /// Waits for commits that are under way. Most have none: they are done when the call returns.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns a reader for a thread.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
}

/// Reads what is committed.
pub(crate) trait Reader: Send {
    /// Reads the keys of these numbers, in one transaction where the engine reads in transactions, and
    /// shows each with its value.
    fn read(&mut self, numbers: &[u64], see: &mut See<'_>) -> Result<()>;
}

/// Is shown a number and the value of its key.
pub(crate) type See<'s> = dyn FnMut(u64, Option<&[u8]>) -> Result<()> + 's;

/// What is done with an open store.
pub(crate) type Use<'u> = dyn FnMut(&mut dyn Store) -> Result<()> + 'u;

/// What a commit promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It outlives the machine's loss of power.
    Synced,
    /// What the engine's documentation offers without a sync for each commit.
    Unsynced,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Batches without a sync for each; then gets of what they left.
    Load,
    /// One pair after the other, each synced.
    Puts,
    /// Batches, each synced.
    Batches,
}

impl Work {
    /// All of it.
    pub(crate) const ALL: [Self; 3] = [Self::Load, Self::Puts, Self::Batches];

    /// Returns its name in results and arguments.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Puts => "puts",
            Self::Batches => "batches",
        }
    }

    /// Returns how its store is opened.
    pub(crate) fn durability(self) -> Durability {
        if self == Self::Load { Durability::Unsynced } else { Durability::Synced }
    }
}

/// One way to use an engine.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name in results and arguments.
    pub(crate) id: &'static str,
    /// The engine's name.
    pub(crate) engine: &'static str,
    /// The package that its version is that of.
    pub(crate) package: &'static str,
    /// The calls of each kind of work; `None` where it takes no part.
    load: Option<&'static str>,
    puts: Option<&'static str>,
    batches: Option<&'static str>,
    /// Whether it has more than one commit under way.
    pub(crate) is_pipelined: bool,
    open: fn(&Path, Durability, &mut Use<'_>) -> Result<()>,
}

impl Peer {
    /// Returns the calls that do this work.
    pub(crate) fn calls(&self, work: Work) -> Option<&'static str> {
        match work {
            Work::Load => self.load,
            Work::Puts => self.puts,
            Work::Batches => self.batches,
        }
    }

    /// Opens a store in a directory, uses it and closes it.
    pub(crate) fn open(
        &self,
        dir: &Path,
        durability: Durability,
        work: &mut Use<'_>,
    ) -> Result<()> {
        (self.open)(dir, durability, work)
    }
}

/// Those that take part.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        id: "prkdb",
        engine: "PrkDB",
        package: "prkdb",
        load: Some("a transaction for each batch; `Durability::Relaxed`"),
        puts: Some("`kv().put(..).wait()`; `Durability::Sync`"),
        batches: Some("a transaction for each batch; `Durability::Sync`"),
        is_pipelined: false,
        open: prkdb::open_transactions,
    },
    Peer {
        id: "prkdb-append",
        engine: "PrkDB",
        package: "prkdb",
        load: Some("`stream().append(..)` of records with keys; `Durability::Relaxed`"),
        puts: None,
        batches: Some("`stream().append(..)` of records with keys; `Durability::Sync`"),
        is_pipelined: false,
        open: prkdb::open_appends,
    },
    Peer {
        id: "prkdb-under-way",
        engine: "PrkDB",
        package: "prkdb",
        load: Some("the same append, 16 batches under way; `Durability::Relaxed`"),
        puts: Some("`kv().put(..)`, 64 under way; `Durability::Sync`"),
        batches: Some("the same append, 16 batches under way; `Durability::Sync`"),
        is_pipelined: true,
        open: prkdb::open_under_way,
    },
    Peer {
        id: "fjall",
        engine: "fjall",
        package: "fjall",
        load: Some("`batch().commit()` without `persist`: handed to the operating system"),
        puts: Some("`insert`, `persist(SyncData)`"),
        batches: Some("a batch with durability `SyncData`"),
        is_pipelined: false,
        open: fjall::open,
    },
    Peer {
        id: "lmdb",
        engine: "LMDB",
        package: "heed",
        load: Some("`NO_SYNC`, `WRITE_MAP`"),
        puts: Some("a transaction for each, default flags"),
        batches: Some("a transaction for each batch, default flags"),
        is_pipelined: false,
        open: lmdb::open,
    },
    Peer {
        id: "redb",
        engine: "redb",
        package: "redb",
        load: Some("`Durability::None`"),
        puts: Some("a transaction for each, `Durability::Immediate`"),
        batches: Some("a transaction for each batch, `Durability::Immediate`"),
        is_pipelined: false,
        open: redb::open,
    },
    Peer {
        id: "sqlite",
        engine: "SQLite",
        package: "rusqlite",
        load: Some("WAL, `synchronous = OFF`"),
        puts: Some("WAL, `synchronous = FULL`, a statement for each"),
        batches: Some("WAL, `synchronous = FULL`, a transaction for each batch"),
        is_pipelined: false,
        open: sqlite::open,
    },
];

/// Bytes of memory for pages that engines keep themselves, where that can be said. All the pairs fit.
const CACHE_BYTES: u32 = 256 << 20;
