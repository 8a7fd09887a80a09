//! Who reads while a snapshot of another replica is installed goes on with what he had.

use std::{
    ops::Bound,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use prkdb::storage::{Shard, StorageError};

use super::{
    installing::{Own, Replicated, install},
    power::say,
    shard::COLLECTION,
};

fn values_of(shard: &Shard) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let Some(snapshot) = shard.scan(COLLECTION) else { return Vec::new() };
    let mut values = snapshot.values();
    let keys = snapshot.range(Bound::Unbounded, Bound::Unbounded);
    keys.map(|(key, leaf)| {
        let found = values.read(leaf).unwrap();
        (key, found.value.to_vec(), found.version)
    })
    .collect()
}

#[test]
fn what_was_held_before_a_snapshot_reads_as_it_did() {
    let log = Replicated::new(2);
    let (_disk, shard) = log.replica(Own::Less);
    let own_copy = shard.copy().unwrap().unwrap();
    let read_copy = || -> Vec<Vec<u8>> {
        let parts = own_copy.parts.iter();
        parts.map(|part| part.read(0, usize::MAX).unwrap().to_vec()).collect()
    };
    let snapshot = shard.scan(COLLECTION).unwrap();
    let read_snapshot = || {
        let mut values = snapshot.values();
        let keys = snapshot.range(Bound::Unbounded, Bound::Unbounded);
        keys.map(|(key, leaf)| (key, values.read(leaf).unwrap())).collect::<Vec<_>>()
    };
    let fetched = shard.fetch(1, 0, 1 << 20).unwrap();
    let leaves: Vec<_> = (0..18).filter_map(|key| shard.leaf(COLLECTION, &[key])).collect();
    let of_leaves =
        || leaves.iter().map(|leaf| shard.leaf_value(*leaf).unwrap()).collect::<Vec<_>>();
    let had = (read_copy(), read_snapshot(), fetched.parts.concat(), of_leaves());
    assert!(!had.1.is_empty() && !had.3.is_empty());
    install(&shard, &log.copy).unwrap();
    // Whoever looked a key up before the exchange still finds its record.
    assert_eq!(of_leaves(), had.3);
    shard.forget_removed();
    shard.forget_removed();
    assert_eq!((read_copy(), read_snapshot(), fetched.parts.concat()), (had.0, had.1, had.2));
    // A leaf alone holds nothing: when its segment is gone there is an error, and not another record.
    for (leaf, had) in leaves.iter().zip(had.3) {
        match shard.leaf_value(*leaf) {
            Ok(found) => assert_eq!(found, had),
            Err(error) => assert!(matches!(error, StorageError::Discontinuous { .. }), "{error}"),
        }
    }
}

/// Reads all batches of every partition; each says which offset comes next.
fn read_streams(shard: &Shard) {
    for partition in 1..=4 {
        let mut next = shard.stream_bounds(partition).log_start;
        loop {
            let fetched = shard.fetch(partition, next, 4000).unwrap();
            if fetched.bytes == 0 {
                break;
            }
            assert_eq!(fetched.bytes, fetched.parts.concat().len());
            next = fetched.next_offset;
        }
    }
}

#[test]
fn readers_beside_an_installation_see_the_one_state_or_the_other() {
    let log = Replicated::new(2);
    let mut looks = 0;
    for own in [Own::Less, Own::More] {
        let (_disk, shard) = log.replica(own);
        let before = values_of(&shard);
        let (has_begun, is_over) = (Barrier::new(2), AtomicBool::new(false));
        let (seen, rounds) = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut seen, mut rounds) = (vec![before.clone()], 0);
                loop {
                    let is_last = is_over.load(Ordering::Acquire);
                    let values = values_of(&shard);
                    if seen.last() != Some(&values) {
                        seen.push(values);
                    }
                    read_streams(&shard);
                    rounds += 1;
                    if rounds == 1 {
                        has_begun.wait();
                    }
                    if is_last {
                        return (seen, rounds);
                    }
                }
            });
            has_begun.wait();
            install(&shard, &log.copy).unwrap();
            is_over.store(true, Ordering::Release);
            reader.join().unwrap()
        });
        let after = values_of(&shard);
        assert_ne!(before, after);
        let known = |values: &Vec<_>| *values == before || *values == after;
        assert!(seen.iter().all(known) && seen.len() == 2, "{own:?}: {} states", seen.len());
        looks += rounds;
    }
    say(&format!("installing: {looks} rounds of reading beside it"));
}
