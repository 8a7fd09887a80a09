//! The tree against the standard library's, with snapshots.

use std::{
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included, Unbounded},
};

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Leaf>;

fn leaf(version: u64) -> Leaf {
    // Some expire, most do not: pages of both kinds are split and put together.
    let expires_ms = if version % 7 == 3 { version.cast_signed() } else { NEVER };
    Leaf { segment: 3, position: 7, start: 1, partition: 2, version, expires_ms }
}

/// A small generator, so that a failure repeats: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Keys with all that makes pages hard: empty, zeros, prefixes of each other, long, far apart.
fn awkward_key(random: &mut Random) -> Vec<u8> {
    let number = random.below(3000);
    match random.below(8) {
        0 => vec![0; usize::try_from(number % 12).unwrap()],
        1 => format!("{:0>1$}", number, 600).into_bytes(),
        2 => format!("user/{number}").into_bytes(),
        3 => format!("user/{}/", number % 300).into_bytes(),
        4 => number.to_be_bytes().to_vec(),
        5 => number.to_le_bytes()[..2].to_vec(),
        6 => vec![0xff; usize::try_from(number % 12).unwrap()],
        _ => [b"\0\0\0\0".as_slice(), &number.to_be_bytes()].concat(),
    }
}

fn assert_same(root: &Root, model: &Model) {
    assert_eq!(root.len(), model.len());
    let expected = model.iter().map(|(key, leaf)| (key.clone(), *leaf));
    assert!(root.range(Unbounded, Unbounded).eq(expected.clone()));
    assert!(root.range(Unbounded, Unbounded).rev().eq(expected.rev()));
}

fn assert_whole(tree: &Tree) {
    let (_depth, bytes) = tree.root.page.check(None, None);
    assert_eq!(tree.bytes(), bytes);
    assert!(tree.root.page.only_child().is_none(), "a root that has one child is not needed");
}

fn assert_same_range(root: &Root, model: &Model, from: Bound<&[u8]>, to: Bound<&[u8]>) {
    // The model panics on bounds that are the wrong way round.
    let is_backwards = match (from, to) {
        (Excluded(a), Excluded(b)) => a >= b,
        (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a > b,
        _ => false,
    };
    let found = root.range(from, to);
    if is_backwards {
        assert_eq!(found.len(), 0);
        return;
    }
    let expected = || model.range::<[u8], _>((from, to)).map(|(key, leaf)| (key.clone(), *leaf));
    assert_eq!(found.len(), expected().count());
    assert!(found.clone().eq(expected()));
    assert!(found.rev().eq(expected().rev()));
}

#[test]
fn random_changes_give_what_a_map_gives_and_leave_snapshots_alone() {
    let mut random = Random(1);
    let (mut tree, mut model) = (Tree::new(), Model::new());
    let mut snapshots: Vec<(Root, Model)> = Vec::new();
    for step in 0..60_000 {
        let key = awkward_key(&mut random);
        // The balance of inserts and removes turns, so that the tree grows and shrinks.
        let is_growing = (step / 10_000) % 2 == 0;
        if (random.below(10) < 7) == is_growing {
            let leaf = leaf(step);
            assert_eq!(tree.insert(&key, leaf), model.insert(key, leaf));
        } else {
            assert_eq!(tree.remove(&key), model.remove(&key));
        }
        let key = awkward_key(&mut random);
        assert_eq!(tree.get(&key), model.get(&key).copied());
        if random.below(1000) == 0 {
            snapshots.push((tree.root(), model.clone()));
        }
        if step % 2000 == 0 {
            assert_whole(&tree);
            assert_same(&tree.root(), &model);
        }
        if snapshots.len() > 8 {
            let oldest = snapshots.remove(0);
            assert_same(&oldest.0, &oldest.1);
        }
    }
    assert_whole(&tree);
    for (root, model) in &snapshots {
        assert_same(root, model);
    }
}

#[test]
fn ranges_are_those_of_a_map_in_both_directions() {
    let mut random = Random(2);
    let (mut tree, mut model) = (Tree::new(), Model::new());
    for step in 0..5000 {
        let key = awkward_key(&mut random);
        tree.insert(&key, leaf(step));
        model.insert(key, leaf(step));
    }
    let root = tree.root();
    for _ in 0..300 {
        let (one, other) = (awkward_key(&mut random), awkward_key(&mut random));
        for from in [Unbounded, Included(one.as_slice()), Excluded(one.as_slice())] {
            for to in [Unbounded, Included(other.as_slice()), Excluded(other.as_slice())] {
                assert_same_range(&root, &model, from, to);
            }
        }
        assert_same_range(&root, &model, Included(&one), Included(&one));
        assert_same_range(&root, &model, Excluded(&one), Excluded(&one));
    }
}

#[test]
fn both_ends_of_a_range_meet_and_every_key_is_given_once() {
    let mut tree = Tree::new();
    for number in 0..500_u64 {
        tree.insert(&number.to_be_bytes(), leaf(number));
    }
    let mut random = Random(3);
    let mut iter = tree.root().range(Unbounded, Unbounded);
    drop(tree);
    let (mut first, mut end) = (0, 500);
    let mut key = Vec::new();
    while first < end {
        assert_eq!(iter.len(), usize::try_from(end - first).unwrap());
        if random.below(2) == 0 {
            assert_eq!(iter.next_into(&mut key), Some(leaf(first)));
            assert_eq!(key, first.to_be_bytes());
            first += 1;
        } else {
            end -= 1;
            assert_eq!(iter.next_back_into(&mut key), Some(leaf(end)));
            assert_eq!(key, end.to_be_bytes());
        }
    }
    assert_eq!(iter.next(), None);
    assert_eq!(iter.next_back(), None);
}

#[test]
fn skipping_gives_the_same_as_reading() {
    let mut tree = Tree::new();
    for number in 0..1000_u64 {
        tree.insert(&number.to_be_bytes(), leaf(number));
    }
    let root = tree.root();
    let versions = |step| {
        let found = root.range(Unbounded, Unbounded).step_by(step).map(|(_, leaf)| leaf.version);
        found.collect::<Vec<_>>()
    };
    assert_eq!(versions(170), [0, 170, 340, 510, 680, 850]);
    assert_eq!(root.range(Unbounded, Unbounded).nth(1000), None);
    assert_eq!(root.range(Unbounded, Unbounded).count(), 1000);
}

#[test]
fn a_tree_that_was_emptied_is_as_new() {
    let mut tree = Tree::new();
    let bytes = tree.bytes();
    for round in 0..3 {
        for number in 0..20_000_u64 {
            tree.insert(&number.wrapping_mul(0x9e37_79b9).to_be_bytes(), leaf(number));
        }
        let snapshot = tree.root();
        for number in 0..20_000_u64 {
            // Forwards, backwards and scattered.
            let number = match round {
                0 => number,
                1 => 19_999 - number,
                _ => number * 7 % 20_000,
            };
            let key = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
            assert_eq!(tree.remove(&key), Some(leaf(number)));
        }
        assert!(tree.is_empty());
        assert_eq!(tree.bytes(), bytes);
        assert_eq!(snapshot.len(), 20_000);
        assert_eq!(snapshot.range(Unbounded, Unbounded).count(), 20_000);
    }
}

#[test]
fn removing_most_keys_gives_most_of_the_memory_back() {
    let mut tree = Tree::new();
    for number in 0..50_000_u64 {
        tree.insert(&number.to_be_bytes(), leaf(number));
    }
    let full = tree.bytes();
    for number in (0..50_000_u64).filter(|number| number % 20 != 0) {
        tree.remove(&number.to_be_bytes());
    }
    assert_whole(&tree);
    assert_eq!(tree.len(), 2500);
    assert!(tree.bytes() < full / 5, "{} of {full}", tree.bytes());
}

#[test]
fn keys_at_the_limit_split_pages_and_are_found() {
    let mut tree = Tree::new();
    let key = |number: u64| {
        let mut key = number.to_be_bytes().to_vec();
        key.resize(limits::MAX_KEY_CEILING, 7);
        key
    };
    for number in 0..200 {
        tree.insert(&key(number * 3 % 200), leaf(number));
    }
    assert_whole(&tree);
    assert_eq!(tree.len(), 200);
    for number in 0..200 {
        assert_eq!(tree.remove(&key(number * 3 % 200)), Some(leaf(number)));
    }
    assert!(tree.is_empty());
}

#[test]
fn replacing_or_missing_a_key_keeps_the_count() {
    let mut tree = Tree::new();
    assert_eq!(tree.remove(b"a"), None);
    assert_eq!(tree.insert(b"", leaf(1)), None);
    assert_eq!(tree.insert(b"", leaf(2)), Some(leaf(1)));
    assert_eq!(tree.len(), 1);
    assert_eq!(tree.remove(b"a"), None);
    assert_eq!(tree.remove(b""), Some(leaf(2)));
    assert!(tree.is_empty() && tree.root().is_empty());
}

#[test]
fn roots_go_to_other_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Root>();
    assert_shareable::<Iter>();
}

fn bytes_per_key(keys: impl Iterator<Item = [u8; 16]>) -> usize {
    let mut tree = Tree::new();
    let mut published = None;
    for (version, key) in (0..).zip(keys) {
        tree.insert(&key, leaf(version));
        if version % 1000 == 0 {
            // Pages that a root holds are copied, and a copy must not be larger.
            published = Some(tree.root());
        }
    }
    drop(published);
    assert_whole(&tree);
    tree.bytes() / tree.len()
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure itself is worth seeing")]
fn a_key_of_16_bytes_takes_at_most_100() {
    let mut random = Random(4);
    let scattered = bytes_per_key((0..200_000).map(|_| {
        let halves = [random.next().to_be_bytes(), random.next().to_be_bytes()].concat();
        halves.try_into().unwrap()
    }));
    let in_order = bytes_per_key((0..200_000_u128).map(u128::to_be_bytes));
    let backwards = bytes_per_key((0..200_000_u128).map(|n| (u128::MAX - n).to_be_bytes()));
    for (order, found) in
        [("scattered", scattered), ("in order", in_order), ("backwards", backwards)]
    {
        println!("keys of 16 bytes, {order}: {found} bytes per key");
        assert!(found <= 100, "{order}: {found} bytes per key");
    }
    // Key and 64 bytes: the budget of the index.
    assert!(scattered <= 16 + 64, "{scattered}");
    assert!(in_order < scattered, "{in_order} bytes per key in order, {scattered} scattered");
}

#[derive(Clone, Debug)]
enum Change {
    Insert(Vec<u8>, u64),
    Remove(Vec<u8>),
    Snapshot,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Few letters, so that keys meet and are prefixes of each other.
    let key = || proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff)], 0..7);
    let change = prop_oneof![
        6 => (key(), any::<u64>()).prop_map(|(key, version)| Change::Insert(key, version)),
        3 => key().prop_map(Change::Remove),
        1 => Just(Change::Snapshot),
    ];
    proptest::collection::vec(change, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_give_what_a_map_gives(changes in changes(), from: Vec<u8>, to: Vec<u8>) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        let mut snapshots = Vec::new();
        for change in changes {
            match change {
                Change::Insert(key, version) => {
                    let before = tree.insert(&key, leaf(version));
                    prop_assert_eq!(before, model.insert(key, leaf(version)));
                }
                Change::Remove(key) => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
                Change::Snapshot => snapshots.push((tree.root(), model.clone())),
            }
        }
        assert_whole(&tree);
        snapshots.push((tree.root(), model));
        for (root, model) in &snapshots {
            assert_same(root, model);
            assert_same_range(root, model, Included(&from), Excluded(&to));
        }
    }
}
