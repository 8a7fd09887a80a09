//! Batches that rest on what was read.

use std::{ops::Bound, thread};

use bytes::Bytes;

use super::{
    Failure, Fixture, apply, demand, is_unsupported,
    kv::{ALL, rows},
    open, snapshot, value, wait,
};
use crate::{
    adapter::{AdapterError, KeyRange, ReadSet, StorageAdapter, WriteBatch},
    transaction::Order,
};

fn names_of(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

fn range(from: &'static str, to: &'static str) -> KeyRange {
    (Bound::Included(Bytes::from(from)), Bound::Excluded(Bytes::from(to)))
}

fn set(revision: u64, names: &[&'static str], ranges: Vec<KeyRange>) -> ReadSet {
    ReadSet { revision, keys: names_of(names), ranges }
}

/// Opens a store with keys a, c and e, and returns it with its revision; `None` without the tier.
fn opened(
    fixture: &dyn Fixture,
) -> Result<Option<(std::sync::Arc<dyn StorageAdapter>, u64)>, Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.txn {
        let batch = WriteBatch::new().put("a", "1").resting_on(set(0, &[], Vec::new()));
        return is_unsupported("a read set", wait(adapter.apply(batch))).map(|()| None);
    }
    apply(&*adapter, WriteBatch::new().put("a", "1").put("c", "1").put("e", "1"))?;
    let revision = snapshot(&*adapter)?.revision();
    Ok(Some((adapter, revision)))
}

pub(super) fn holds(fixture: &dyn Fixture) -> Result<(), Failure> {
    let Some((adapter, _)) = opened(fixture)? else { return Ok(()) };
    // The snapshot is held while others write beside what it read.
    let before = snapshot(&*adapter)?;
    let revision = before.revision();
    apply(&*adapter, WriteBatch::new().put("x", "2").delete("e"))?;
    let read = set(revision, &["a", "absent"], vec![range("b", "d"), range("z", "a")]);
    let batch = WriteBatch::new().put("n", "1").resting_on(read);
    apply(&*adapter, batch).map(drop)
}

fn conflicts(
    adapter: &dyn StorageAdapter,
    batch: WriteBatch,
    what: &str,
) -> Result<Bytes, Failure> {
    match wait(adapter.apply(batch)) {
        Err(AdapterError::Conflict { key, .. }) => Ok(key),
        Err(error) => Err(format!("{what}: {error}")),
        Ok(_) => Err(format!("{what}: it is applied")),
    }
}

/// What others do, what was read, what is written.
type Case = (fn(WriteBatch) -> WriteBatch, fn(u64) -> ReadSet, &'static str, &'static str);

fn each(fixture: &dyn Fixture, cases: &[Case]) -> Result<(), Failure> {
    let Some((adapter, _)) = opened(fixture)? else { return Ok(()) };
    for (change, read, written, what) in cases {
        apply(&*adapter, WriteBatch::new().put("a", "1").put("c", "1").put("e", "1").delete("b"))?;
        let before = snapshot(&*adapter)?;
        apply(&*adapter, change(WriteBatch::new()))?;
        let batch = WriteBatch::new().put(*written, "mine").resting_on(read(before.revision()));
        conflicts(&*adapter, batch, what)?;
    }
    Ok(())
}

pub(super) fn keys(fixture: &dyn Fixture) -> Result<(), Failure> {
    each(
        fixture,
        &[
            (
                |b| b.put("a", "2"),
                |r| set(r, &["a"], vec![]),
                "n",
                "a key that was read is written",
            ),
            (|b| b.delete("a"), |r| set(r, &["a"], vec![]), "n", "a key that was read is deleted"),
            (|b| b.put("b", "2"), |r| set(r, &["b"], vec![]), "n", "a key that was absent appears"),
            (|b| b.put("a", "2"), |r| set(r, &[], vec![]), "a", "a key that is written is written"),
            (|b| b.put("b", "2"), |r| set(r, &[], vec![]), "b", "a key that is written appears"),
            (|b| b.delete("c"), |r| set(r, &[], vec![]), "c", "a key that is written is deleted"),
        ],
    )
}

pub(super) fn put_back(fixture: &dyn Fixture) -> Result<(), Failure> {
    let Some((adapter, _)) = opened(fixture)? else { return Ok(()) };
    for (first, then, written) in [
        (WriteBatch::new().put("a", "2"), WriteBatch::new().put("a", "1"), "a"),
        (WriteBatch::new().put("b", "2"), WriteBatch::new().delete("b"), "b"),
    ] {
        let before = snapshot(&*adapter)?;
        apply(&*adapter, first)?;
        apply(&*adapter, then)?;
        let read = set(before.revision(), &[], Vec::new());
        let batch = WriteBatch::new().put(written, "mine").resting_on(read);
        conflicts(&*adapter, batch, "a key that is written was written and put back")?;
    }
    Ok(())
}

pub(super) fn ranges(fixture: &dyn Fixture) -> Result<(), Failure> {
    each(
        fixture,
        &[
            (
                |b| b.put("b", "2"),
                |r| set(r, &[], vec![range("a", "d")]),
                "n",
                "a key appears in a range",
            ),
            (
                |b| b.delete("c"),
                |r| set(r, &[], vec![range("b", "d")]),
                "n",
                "a key of a range goes",
            ),
            (
                |b| b.put("c", "2"),
                |r| set(r, &[], vec![range("c", "d")]),
                "n",
                "a key of a range changes",
            ),
            (|b| b.put("zz", "2"), |r| set(r, &[], vec![ALL]), "n", "a key appears behind all"),
        ],
    )
}

pub(super) fn names(fixture: &dyn Fixture) -> Result<(), Failure> {
    let Some((adapter, _)) = opened(fixture)? else { return Ok(()) };
    let before = snapshot(&*adapter)?;
    apply(&*adapter, WriteBatch::new().put("c", "2"))?;
    let expected = rows(&*snapshot(&*adapter)?, ALL, Order::Forward)?;
    let read = set(before.revision(), &["a", "c"], Vec::new());
    let batch = WriteBatch::new().put("m", "mine").put("n", "mine").resting_on(read);
    let key = conflicts(&*adapter, batch, "a key that was read is written")?;
    demand(key == "c", || format!("the conflict names {key:?}"))?;
    let found = rows(&*snapshot(&*adapter)?, ALL, Order::Forward)?;
    demand(found == expected, || format!("after a conflict the keys are {found:?}"))
}

pub(super) fn counters(fixture: &dyn Fixture) -> Result<(), Failure> {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 25;
    let Some((adapter, _)) = opened(fixture)? else { return Ok(()) };
    let sum = |bytes: Option<Bytes>| {
        let bytes = bytes.and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
        bytes.map_or(0, u64::from_be_bytes)
    };
    let add = || {
        loop {
            let before = snapshot(&*adapter)?;
            let next = sum(value(&*before, b"sum")?) + 1;
            let read = set(before.revision(), &["sum"], Vec::new());
            let batch = WriteBatch::new().put("sum", next.to_be_bytes().to_vec()).resting_on(read);
            match wait(adapter.apply(batch)) {
                Ok(_) => return Ok(()),
                Err(AdapterError::Conflict { .. } | AdapterError::SnapshotGone { .. }) => {}
                Err(error) => return Err(format!("apply: {error}")),
            }
        }
    };
    let added: Result<(), Failure> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| (0..ROUNDS).try_for_each(|_| add()))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("a writer panicked".to_owned()))
        })
    });
    added?;
    let found = sum(value(&*snapshot(&*adapter)?, b"sum")?);
    demand(found == THREADS * ROUNDS, || {
        format!("{} were added, {found} are there", THREADS * ROUNDS)
    })
}
