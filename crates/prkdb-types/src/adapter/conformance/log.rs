//! Commits in order.

use super::{Failure, Fixture, apply, demand, is_unsupported, open, snapshot, wait};
use crate::adapter::{
    AdapterError, Change, Commit, LogLimit, ReadSet, Revision, StorageAdapter, WriteBatch,
};

const EVERYTHING: LogLimit = LogLimit { commits: usize::MAX, bytes: usize::MAX };

fn read(
    adapter: &dyn StorageAdapter,
    from: Revision,
    limit: LogLimit,
) -> Result<Vec<Commit>, Failure> {
    adapter.log(from, limit).map_err(|error| format!("log: {error}"))
}

/// Applies ten batches; returns their revisions.
fn ten(adapter: &dyn StorageAdapter) -> Result<Vec<Revision>, Failure> {
    (0..10u8)
        .map(|number| {
            let batch = WriteBatch::new().put(vec![b'k', number], vec![number; 100]).delete("gone");
            apply(adapter, batch).map(|applied| applied.revision)
        })
        .collect()
}

pub(super) fn commits(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.log {
        return is_unsupported("a log", adapter.log(0, EVERYTHING));
    }
    let revisions = ten(&*adapter)?;
    if adapter.info().tiers.txn {
        // What conflicts leaves no commit.
        let before = snapshot(&*adapter)?;
        apply(&*adapter, WriteBatch::new().put("x", "1"))?;
        let read_set = ReadSet { revision: before.revision(), ..ReadSet::default() };
        let batch = WriteBatch::new().put("x", "2").resting_on(read_set);
        demand(wait(adapter.apply(batch)).is_err(), || "a conflict is applied".to_owned())?;
    }
    let found = read(&*adapter, 0, EVERYTHING)?;
    let rises = found.is_sorted_by(|one, other| one.revision < other.revision);
    demand(rises, || "revisions of the log do not rise".to_owned())?;
    let count = revisions.len() + usize::from(adapter.info().tiers.txn);
    demand(found.len() == count, || format!("{} commits, not {count}", found.len()))?;
    for ((number, revision), commit) in (0u8..).zip(&revisions).zip(&found) {
        let expected = [
            Change { key: vec![b'k', number].into(), value: Some(vec![number; 100].into()) },
            Change { key: "gone".into(), value: None },
        ];
        let has = |change: &Change| commit.changes.contains(change);
        let is_right = commit.revision == *revision
            && commit.changes.len() == expected.len()
            && expected.iter().all(has);
        demand(is_right, || format!("commit {revision} is {commit:?}"))?;
    }
    Ok(())
}

pub(super) fn pieces(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.log {
        return Ok(());
    }
    let revisions = ten(&*adapter)?;
    for limit in [
        LogLimit { commits: 3, bytes: usize::MAX },
        LogLimit { commits: usize::MAX, bytes: 250 },
        LogLimit { commits: 0, bytes: 0 },
    ] {
        let (mut from, mut found) = (0, Vec::new());
        loop {
            let piece = read(&*adapter, from, limit)?;
            demand(piece.len() <= limit.commits.max(1), || {
                format!("{} commits, limit {}", piece.len(), limit.commits)
            })?;
            demand(piece.len() < 10, || format!("all at once, limit {} bytes", limit.bytes))?;
            let Some(last) = piece.last() else { break };
            from = last.revision + 1;
            found.extend(piece.iter().map(|commit| commit.revision));
        }
        demand(found == revisions, || format!("in pieces: {found:?}, not {revisions:?}"))?;
    }
    Ok(())
}

pub(super) fn trims(fixture: &dyn Fixture) -> Result<(), Failure> {
    let adapter = open(fixture)?;
    if !adapter.info().tiers.trim {
        return is_unsupported("trimming", adapter.trim_log(1));
    }
    let revisions = ten(&*adapter)?;
    let Some(sixth) = revisions.get(5).copied() else { return Ok(()) };
    adapter.trim_log(sixth).map_err(|error| format!("trim: {error}"))?;
    let left = read(&*adapter, sixth, EVERYTHING)?;
    demand(left.len() == 5, || format!("{} commits are left from the sixth on", left.len()))?;
    match adapter.log(1, EVERYTHING) {
        // All or some may have gone, and none may be passed over.
        Ok(all) => demand(all.len() == 10, || "commits are gone without a word".to_owned()),
        Err(AdapterError::Compacted { oldest }) => demand(oldest <= sixth, || {
            format!("the log begins at {oldest}, trimmed before {sixth}")
        }),
        Err(error) => Err(format!("log: {error}")),
    }?;
    if adapter.info().tiers.kv {
        let found = super::value(&*snapshot(&*adapter)?, &[b'k', 0])?;
        demand(found.is_some(), || "trimming the log took a key".to_owned())?;
    }
    Ok(())
}
