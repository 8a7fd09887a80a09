//! Keys: reads at one moment, batches as one.

use std::{
    ops::Bound,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use bytes::Bytes;

use super::{Failure, Fixture, apply, demand, is_unsupported, open, snapshot, value, wait};
use crate::{
    adapter::{KeyRange, Snapshot, WriteBatch},
    transaction::Order,
};

pub(super) const ALL: KeyRange = (Bound::Unbounded, Bound::Unbounded);

pub(super) fn rows(
    snapshot: &dyn Snapshot,
    range: KeyRange,
    order: Order,
) -> Result<Vec<(Bytes, Bytes)>, Failure> {
    let rows: Result<Vec<_>, _> = snapshot.scan(range, order).collect();
    rows.map_err(|error| format!("scan: {error}"))
}

pub(super) fn empty(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    demand(adapter.info() == adapter.info(), || "info changes".to_owned())?;
    if !adapter.info().tiers.kv {
        return is_unsupported("a snapshot", adapter.snapshot());
    }
    let snapshot = snapshot(&*adapter)?;
    demand(value(&*snapshot, b"a")?.is_none(), || "a key has a value".to_owned())?;
    demand(rows(&*snapshot, ALL, Order::Forward)?.is_empty(), || "a scan has rows".to_owned())
}

pub(super) fn changes(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    let mut last = 0;
    let batches: [(WriteBatch, Option<&str>); 5] = [
        (WriteBatch::new().put("a", "1"), Some("1")),
        (WriteBatch::new().put("a", "2").put("b", "3"), Some("2")),
        (WriteBatch::new().put("a", "3").delete("a").put("a", "4"), Some("4")),
        (WriteBatch::new().put("a", "5").delete("a"), None),
        (WriteBatch::new().put("a", ""), Some("")),
    ];
    for (batch, expected) in batches {
        let shown = format!("{batch:?}");
        let applied = apply(&*adapter, batch)?;
        demand(applied.revision > last, || format!("revision {} after {last}", applied.revision))?;
        last = applied.revision;
        if adapter.info().tiers.kv {
            let snapshot = snapshot(&*adapter)?;
            demand(snapshot.revision() >= last, || {
                format!("a snapshot of {} after {last} was answered", snapshot.revision())
            })?;
            let found = value(&*snapshot, b"a")?;
            demand(found.as_deref() == expected.map(str::as_bytes), || {
                format!("after {shown} the key is {found:?}, not {expected:?}")
            })?;
        }
    }
    Ok(())
}

pub(super) fn scans(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.kv {
        return Ok(());
    }
    let keys: [&[u8]; 6] = [b"\x00", b"\x00\x00", b"a", b"ab", b"b", b"\xff\xff"];
    for key in [4, 0, 5, 2, 1, 3] {
        let Some(key) = keys.get(key) else { continue };
        apply(&*adapter, WriteBatch::new().put(*key, *key))?;
    }
    let snapshot = snapshot(&*adapter)?;
    let bounds = |kind: u8, key: &'static [u8]| match kind {
        0 => Bound::Unbounded,
        1 => Bound::Included(Bytes::from_static(key)),
        _ => Bound::Excluded(Bytes::from_static(key)),
    };
    let ends: [&[u8]; 5] = [b"\x00", b"a", b"aa", b"b", b"\xff\xff\xff"];
    for from in ends {
        for to in ends {
            for kinds in 0..9 {
                let range = (bounds(kinds % 3, from), bounds(kinds / 3, to));
                let is_inside = |key: &&&[u8]| {
                    let key = Bytes::copy_from_slice(key);
                    crate::adapter::contains(&range, &key)
                };
                let mut expected: Vec<&[u8]> = keys.iter().filter(is_inside).copied().collect();
                for order in [Order::Forward, Order::Reverse] {
                    let found = rows(&*snapshot, range.clone(), order)?;
                    let is_right =
                        found.iter().map(|(key, _)| &key[..]).eq(expected.iter().copied())
                            && found.iter().all(|(key, value)| key == value);
                    demand(is_right, || {
                        format!("{order:?} scan of {range:?} is {found:?}, not {expected:?}")
                    })?;
                    expected.reverse();
                }
            }
        }
    }
    Ok(())
}

pub(super) fn snapshots(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.kv {
        return Ok(());
    }
    apply(&*adapter, WriteBatch::new().put("a", "1").put("b", "1").put("c", "1"))?;
    let before = snapshot(&*adapter)?;
    let revision = before.revision();
    let mut scan = before.scan(ALL, Order::Forward);
    let first = scan.next();
    apply(&*adapter, WriteBatch::new().put("a", "2").delete("b").put("bb", "2"))?;
    let rest: Result<Vec<_>, _> = first.into_iter().chain(scan).collect();
    let rest = rest.map_err(|error| format!("scan: {error}"))?;
    let expected: Vec<(Bytes, Bytes)> =
        ["a", "b", "c"].map(|key| (Bytes::from(key), Bytes::from("1"))).to_vec();
    demand(rest == expected, || format!("a scan under way has {rest:?}"))?;
    let again = rows(&*before, ALL, Order::Forward)?;
    demand(again == expected, || format!("an old snapshot has {again:?}"))?;
    let found = value(&*before, b"a")?;
    demand(found.as_deref() == Some(b"1"), || format!("an old snapshot's key is {found:?}"))?;
    demand(before.revision() == revision, || "a snapshot's revision changes".to_owned())?;
    let after = snapshot(&*adapter)?;
    let found = value(&*after, b"bb")?;
    demand(found.as_deref() == Some(b"2"), || format!("a new snapshot's key is {found:?}"))
}

/// Two keys are always written together: they are never seen to differ.
pub(super) fn whole(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.kv {
        return Ok(());
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let snapshot = snapshot(&*adapter)?;
                let (one, other) = (value(&*snapshot, b"a")?, value(&*snapshot, b"z")?);
                demand(one == other, || format!("half of a batch: {one:?} and {other:?}"))?;
            }
            Ok(())
        });
        let written = (0..200u32).try_for_each(|number| {
            let value = Bytes::copy_from_slice(&number.to_be_bytes());
            let mut batch = WriteBatch::new().put("a", value.clone());
            for between in b'b'..b'z' {
                batch = batch.put(vec![between], value.clone());
            }
            apply(&*adapter, batch.put("z", value)).map(drop)
        });
        is_over.store(true, Ordering::Release);
        let read = reader.join().unwrap_or_else(|_| Err("the reader panicked".to_owned()));
        written.and(read)
    })
}

pub(super) fn refused(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    let info = adapter.info();
    let batches = [
        ("no changes", WriteBatch::new()),
        ("an empty key", WriteBatch::new().put("a", "1").put("", "1")),
        (
            "a key that is too long",
            WriteBatch::new().put("a", "1").put(vec![1; info.key_bytes_max + 1], "1"),
        ),
        (
            "a value that is too long",
            WriteBatch::new().put("a", "1").put("b", vec![1; info.value_bytes_max + 1]),
        ),
    ];
    for (what, batch) in batches {
        demand(wait(adapter.apply(batch)).is_err(), || format!("{what} is taken"))?;
    }
    if info.tiers.kv {
        let found = rows(&*snapshot(&*adapter)?, ALL, Order::Forward)?;
        demand(found.is_empty(), || "a part of a refused batch is there".to_owned())?;
    }
    Ok(())
}

pub(super) fn reopened(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().is_durable {
        return Ok(());
    }
    let first = apply(&*adapter, WriteBatch::new().put("a", "1").put("b", "1"))?;
    apply(&*adapter, WriteBatch::new().delete("b"))?;
    wait(adapter.sync()).map_err(|error| format!("sync: {error}"))?;
    drop(adapter);
    let adapter = open(fixture)?;
    if adapter.info().tiers.kv {
        let found = rows(&*snapshot(&*adapter)?, ALL, Order::Forward)?;
        let expected = [(Bytes::from("a"), Bytes::from("1"))];
        demand(found == expected, || format!("opened again, it has {found:?}"))?;
    }
    let later = apply(&*adapter, WriteBatch::new().put("c", "1"))?;
    demand(later.revision > first.revision + 1, || {
        format!("opened again, revision {} follows {}", later.revision, first.revision + 1)
    })
}
