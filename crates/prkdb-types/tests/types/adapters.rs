//! The conformance suite passes the reference, and sees each of these adapters to be wrong.

use std::{
    future::ready,
    ops::Bound,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use prkdb_types::{
    adapter::{
        AdapterError, AdapterInfo, Applied, BoxFuture, Change, Commit, KeyRange, LogLimit,
        MemoryStorage, ReadSet, Revision, Rows, Snapshot, StorageAdapter, WriteBatch,
        conformance::{self, Fixture, wait},
    },
    transaction::Order,
};

#[derive(Default)]
struct Memory(Arc<MemoryStorage>);

impl Fixture for Memory {
    fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError> {
        Ok(Arc::clone(&self.0) as _)
    }
}

prkdb_types::conformance!(Memory::default);

/// What is wrong with an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A batch is applied change by change.
    SplitsBatches,
    /// Of two changes of a key the first holds.
    FirstHolds,
    /// A snapshot shows what is there when it is asked.
    LiveSnapshots,
    /// Scans come in the other order.
    BackwardScans,
    /// The end of a range is taken to be in it.
    InclusiveEnds,
    /// Read sets are not looked at.
    IgnoresReadSets,
    /// Ranges of a read set are not looked at.
    IgnoresRanges,
    /// Keys of a read set are not looked at, only those that are written.
    IgnoresKeys,
    /// Of keys that are written only the value is compared.
    ComparesValues,
    /// A batch that conflicts is applied all the same.
    AppliesConflicts,
    /// A conflict names a key that was not written.
    NamesTheWrongKey,
    /// A batch with a key that is refused is applied up to it.
    AppliesUpToARefusal,
    /// The log leaves commits out.
    LosesCommits,
    /// The log has the last commit first.
    BackwardLog,
    /// The limit of commits is not kept to.
    IgnoresLimits,
    /// Commits that were let go are passed over.
    TrimsInSilence,
    /// Trimming takes the keys too.
    TrimsKeys,
    /// Every batch has the same revision.
    OneRevision,
    /// It says that it is durable.
    ClaimsDurability,
    /// It does what it does not claim.
    ClaimsLess,
    /// Whatever was written is a conflict.
    ConflictsWithAnything,
    /// It has a key from the start.
    StartsWithAKey,
}

const FLAWS: &[Flaw] = &[
    Flaw::SplitsBatches,
    Flaw::FirstHolds,
    Flaw::LiveSnapshots,
    Flaw::BackwardScans,
    Flaw::InclusiveEnds,
    Flaw::IgnoresReadSets,
    Flaw::IgnoresRanges,
    Flaw::IgnoresKeys,
    Flaw::ComparesValues,
    Flaw::AppliesConflicts,
    Flaw::NamesTheWrongKey,
    Flaw::AppliesUpToARefusal,
    Flaw::LosesCommits,
    Flaw::BackwardLog,
    Flaw::IgnoresLimits,
    Flaw::TrimsInSilence,
    Flaw::TrimsKeys,
    Flaw::OneRevision,
    Flaw::ClaimsDurability,
    Flaw::ClaimsLess,
    Flaw::ConflictsWithAnything,
    Flaw::StartsWithAKey,
];

/// The reference with a flaw.
#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    inner: Arc<MemoryStorage>,
    /// Values at revisions, for the flaw that compares them.
    seen: Mutex<Vec<(Revision, Vec<(Bytes, Bytes)>)>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Arc<Self> {
        let inner = Arc::new(MemoryStorage::new());
        if flaw == Flaw::StartsWithAKey {
            wait(inner.apply(WriteBatch::new().put("key", "value"))).unwrap();
        }
        Arc::new(Self { flaw, inner, seen: Mutex::default() })
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let snapshot = self.inner.snapshot().unwrap();
        let all = (Bound::Unbounded, Bound::Unbounded);
        snapshot.scan(all, Order::Forward).map(Result::unwrap).collect()
    }

    fn values_are_as_at(&self, revision: Revision, changes: &[Change]) -> bool {
        let seen = self.seen.lock().unwrap();
        let Some((_, then)) = seen.iter().find(|(at, _)| *at == revision) else { return false };
        let now = self.rows();
        changes.iter().all(|change| {
            let find =
                |rows: &[(Bytes, Bytes)]| rows.iter().find(|row| row.0 == change.key).cloned();
            find(then) == find(&now)
        })
    }

    fn apply_now(&self, mut batch: WriteBatch) -> Result<Applied, AdapterError> {
        let apply = |batch: WriteBatch| wait(self.inner.apply(batch));
        match self.flaw {
            Flaw::SplitsBatches if batch.read_set.is_none() => {
                batch.check(&self.inner.info())?;
                let mut applied = Ok(Applied { revision: 0 });
                for change in batch.changes {
                    applied = apply(WriteBatch { changes: vec![change], read_set: None });
                }
                return applied;
            }
            Flaw::FirstHolds => batch.changes.reverse(),
            Flaw::IgnoresReadSets => batch.read_set = None,
            Flaw::IgnoresRanges => {
                if let Some(read_set) = &mut batch.read_set {
                    read_set.ranges.clear();
                }
            }
            Flaw::ConflictsWithAnything => {
                if let Some(read_set) = &mut batch.read_set {
                    read_set.ranges.push((Bound::Unbounded, Bound::Unbounded));
                }
            }
            Flaw::IgnoresKeys => {
                if let Some(read_set) = &mut batch.read_set {
                    read_set.keys.clear();
                }
            }
            Flaw::ComparesValues => {
                if let Some(ReadSet { revision, keys, ranges }) = &batch.read_set
                    && keys.is_empty()
                    && ranges.is_empty()
                    && self.values_are_as_at(*revision, &batch.changes)
                {
                    batch.read_set = None;
                }
            }
            Flaw::AppliesConflicts => {
                let again = WriteBatch { changes: batch.changes.clone(), read_set: None };
                let applied = apply(batch);
                if matches!(applied, Err(AdapterError::Conflict { .. })) {
                    apply(again)?;
                }
                return applied;
            }
            Flaw::NamesTheWrongKey => {
                return apply(batch).map_err(|error| match error {
                    AdapterError::Conflict { revision, .. } => {
                        AdapterError::Conflict { key: "a".into(), revision }
                    }
                    error => error,
                });
            }
            Flaw::AppliesUpToARefusal => {
                let first = WriteBatch { changes: batch.changes.clone(), read_set: None };
                return apply(batch).inspect_err(|error| {
                    if matches!(error, AdapterError::Refused { .. })
                        && let Some(change) = first.changes.into_iter().next()
                    {
                        let _applied = apply(WriteBatch { changes: vec![change], read_set: None });
                    }
                });
            }
            Flaw::OneRevision => return apply(batch).map(|_| Applied { revision: 7 }),
            _ => {}
        }
        apply(batch)
    }
}

impl StorageAdapter for Flawed {
    fn info(&self) -> AdapterInfo {
        let mut info = self.inner.info();
        info.is_durable = self.flaw == Flaw::ClaimsDurability;
        info.tiers.txn &= self.flaw != Flaw::ClaimsLess;
        info
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, AdapterError> {
        let inner = self.inner.snapshot()?;
        self.seen.lock().unwrap().push((inner.revision(), self.rows()));
        Ok(Box::new(FlawedSnapshot { flaw: self.flaw, storage: Arc::clone(&self.inner), inner }))
    }

    fn apply(&self, batch: WriteBatch) -> BoxFuture<'_, Result<Applied, AdapterError>> {
        Box::pin(ready(self.apply_now(batch)))
    }

    fn log(&self, from: Revision, limit: LogLimit) -> Result<Vec<Commit>, AdapterError> {
        let limit = match self.flaw {
            Flaw::IgnoresLimits => LogLimit { commits: usize::MAX, bytes: usize::MAX },
            _ => limit,
        };
        let mut commits = match self.inner.log(from, limit) {
            Err(AdapterError::Compacted { oldest }) if self.flaw == Flaw::TrimsInSilence => {
                self.inner.log(oldest, limit)?
            }
            commits => commits?,
        };
        match self.flaw {
            Flaw::LosesCommits => commits.retain(|commit| commit.revision % 3 != 2),
            Flaw::BackwardLog => commits.reverse(),
            _ => {}
        }
        Ok(commits)
    }

    fn trim_log(&self, before: Revision) -> Result<(), AdapterError> {
        if self.flaw == Flaw::TrimsKeys {
            let mut batch = WriteBatch::new();
            for commit in self.inner.log(0, LogLimit { commits: 3, bytes: usize::MAX })? {
                batch =
                    commit.changes.into_iter().fold(batch, |batch, gone| batch.delete(gone.key));
            }
            wait(self.inner.apply(batch))?;
        }
        self.inner.trim_log(before)
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), AdapterError>> {
        self.inner.sync()
    }
}

struct FlawedSnapshot {
    flaw: Flaw,
    storage: Arc<MemoryStorage>,
    inner: Box<dyn Snapshot>,
}

impl Snapshot for FlawedSnapshot {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, AdapterError> {
        match self.flaw {
            Flaw::LiveSnapshots => self.storage.snapshot()?.get(key),
            _ => self.inner.get(key),
        }
    }

    fn scan(&self, mut range: KeyRange, order: Order) -> Rows<'_> {
        let order = match (self.flaw, order) {
            (Flaw::BackwardScans, Order::Forward) => Order::Reverse,
            (Flaw::BackwardScans, Order::Reverse) => Order::Forward,
            (_, order) => order,
        };
        if let (Flaw::InclusiveEnds, Bound::Excluded(to)) = (self.flaw, &range.1) {
            range.1 = Bound::Included(to.clone());
        }
        self.inner.scan(range, order)
    }
}

/// Opened again, a store that is not durable is another one.
struct Opened(Flaw, Mutex<Option<Arc<Flawed>>>);

impl Fixture for Opened {
    fn open(&self) -> Result<Arc<dyn StorageAdapter>, AdapterError> {
        let fresh = Flawed::new(self.0);
        *self.1.lock().unwrap() = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

fn failures(flaw: Flaw) -> Vec<(&'static str, String)> {
    conformance::failures(|| Opened(flaw, Mutex::default()))
}

/// What two threads do at once is not wrong each time.
const TRIES: usize = 50;

#[test]
fn every_wrong_adapter_is_seen() {
    assert_eq!(failures(Flaw::None), []);
    let is_seen = |flaw: Flaw| (0..TRIES).any(|_| !failures(flaw).is_empty());
    let unseen: Vec<Flaw> = FLAWS.iter().copied().filter(|flaw| !is_seen(*flaw)).collect();
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
}

#[test]
fn every_check_sees_some_wrong_adapter() {
    let mut idle: Vec<&str> = conformance::CHECKS.iter().map(|(name, _)| *name).collect();
    for _ in 0..TRIES {
        let seen: Vec<&str> =
            FLAWS.iter().flat_map(|flaw| failures(*flaw)).map(|(name, _)| name).collect();
        idle.retain(|name| !seen.contains(name));
        if idle.is_empty() {
            return;
        }
    }
    panic!("nothing is seen by {idle:?}");
}
