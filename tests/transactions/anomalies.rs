//! What can go wrong between transactions, case by case, and which isolation prevents it.
//!
//! The cases are those of Martin Kleppmann's Hermitage, after Adya's definitions, and some about keys
//! without a value. Each runs a schedule and says whether the anomaly was seen. The table in
//! `docs/guide/transactions.md` is this one.

use prkdb_types::Isolation::{self, Serializable, Snapshot};

use super::rig::{Engine, Pace, Tx};

/// A schedule on keys 1 = 10 and 2 = 20. Returns whether the anomaly was seen.
type Case = fn(&mut World) -> bool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Prevented,
    Allowed,
}

use Fate::{Allowed, Prevented};

/// Name, schedule, fate at `Snapshot`, fate at `Serializable`.
const CASES: &[(&str, Case, Fate, Fate)] = &[
    ("G0 dirty write", g0, Prevented, Prevented),
    ("G1a aborted read", g1a, Prevented, Prevented),
    ("G1b intermediate read", g1b, Prevented, Prevented),
    ("G1c circular information flow", g1c, Prevented, Prevented),
    ("OTV observed transaction vanishes", otv, Prevented, Prevented),
    ("PMP predicate-many-preceders", pmp, Prevented, Prevented),
    ("PMP with a predicate that is written", pmp_write, Prevented, Prevented),
    ("P4 lost update", p4, Prevented, Prevented),
    ("P4 of a key that was absent", p4_absent, Prevented, Prevented),
    ("P4 of a key that is absent again", p4_absent_again, Prevented, Prevented),
    ("P4 against a delete", p4_delete, Prevented, Prevented),
    ("G-single read skew", g_single, Prevented, Prevented),
    ("G-single with predicates", g_single_predicate, Prevented, Prevented),
    ("G-single with a predicate that is written", g_single_write, Prevented, Prevented),
    ("G2-item write skew", g2_item, Allowed, Prevented),
    ("G2-item write skew on absence", g2_item_absent, Allowed, Prevented),
    ("G2 write skew on a range", g2, Allowed, Prevented),
    ("G2 write skew on a deleted key of a range", g2_deleted, Allowed, Prevented),
    ("G2 with a reader between", g2_fekete, Allowed, Prevented),
];

struct World {
    engine: Engine,
    isolation: Isolation,
}

impl World {
    fn new(isolation: Isolation, pace: Pace) -> Self {
        let mut world = Self { engine: Engine::new(Pace::Early), isolation };
        let mut tx = world.begin();
        tx.put(1, 10);
        tx.put(2, 20);
        assert!(world.commit(&tx));
        world.engine.pace = pace;
        world
    }

    fn begin(&self) -> Tx {
        self.engine.begin(self.isolation)
    }

    fn two(&self) -> (Tx, Tx) {
        (self.begin(), self.begin())
    }

    /// Commits; returns whether it was accepted.
    fn commit(&mut self, tx: &Tx) -> bool {
        self.engine.commit(tx).is_ok()
    }

    fn last(&mut self) -> (Option<u32>, Option<u32>) {
        self.engine.settle();
        (self.engine.get(1), self.engine.get(2))
    }
}

fn divisible(rows: Vec<(u8, u32)>, by: u32) -> Vec<u8> {
    rows.into_iter().filter(|(_, value)| value % by == 0).map(|(key, _)| key).collect()
}

fn g0(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.put(1, 11);
    two.put(1, 12);
    one.put(2, 21);
    world.commit(&one);
    two.put(2, 22);
    world.commit(&two);
    ![(Some(11), Some(21)), (Some(12), Some(22))].contains(&world.last())
}

fn g1a(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.put(1, 101);
    let during = two.get(1);
    drop(one);
    let after = two.get(1);
    world.commit(&two);
    [during, after].contains(&Some(101)) || world.last().0 == Some(101)
}

fn g1b(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.put(1, 101);
    let during = two.get(1);
    one.put(1, 11);
    world.commit(&one);
    [during, two.get(1)].contains(&Some(101))
}

fn g1c(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.put(1, 11);
    two.put(2, 22);
    let (seen_by_one, seen_by_two) = (one.get(2), two.get(1));
    let both = world.commit(&one) && world.commit(&two);
    both && (seen_by_one, seen_by_two) == (Some(22), Some(11))
}

fn otv(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.put(1, 11);
    one.put(2, 19);
    two.put(1, 12);
    world.commit(&one);
    let mut three = world.begin();
    let first = three.get(1);
    two.put(2, 18);
    let second = three.get(2);
    world.commit(&two);
    let again = (three.get(1), three.get(2));
    let whole = [(Some(10), Some(20)), (Some(11), Some(19)), (Some(12), Some(18))];
    again != (first, second) || !whole.contains(&again)
}

fn pmp(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    let before = divisible(one.scan(), 30);
    two.put(3, 30);
    world.commit(&two);
    before != divisible(one.scan(), 30)
}

fn pmp_write(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    for (key, value) in one.scan() {
        one.put(key, value + 10);
    }
    let first = world.commit(&one);
    for key in divisible(two.scan(), 20) {
        two.delete(key);
    }
    first && world.commit(&two)
}

fn p4(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    let (seen_by_one, seen_by_two) = (one.get(1).unwrap(), two.get(1).unwrap());
    one.put(1, seen_by_one + 1);
    two.put(1, seen_by_two + 1);
    world.commit(&one) && world.commit(&two)
}

fn p4_absent(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    assert_eq!((one.get(7), two.get(7)), (None, None));
    one.put(7, 1);
    two.put(7, 2);
    world.commit(&one) && world.commit(&two)
}

fn p4_absent_again(world: &mut World) -> bool {
    let mut late = world.begin();
    assert_eq!(late.get(7), None);
    late.put(7, 3);
    let mut one = world.begin();
    one.put(7, 1);
    assert!(world.commit(&one));
    // The second sees what the first wrote.
    world.engine.settle();
    let mut two = world.begin();
    two.delete(7);
    assert!(world.commit(&two));
    world.commit(&late)
}

fn p4_delete(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.delete(1);
    let seen = two.get(1).unwrap();
    two.put(1, seen + 1);
    world.commit(&one) && world.commit(&two)
}

fn g_single(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    let first = one.get(1);
    two.put(1, 12);
    two.put(2, 18);
    world.commit(&two);
    (first, one.get(2)) == (Some(10), Some(18))
}

fn g_single_predicate(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    let fives = divisible(one.scan(), 5);
    two.put(1, 12);
    world.commit(&two);
    fives == [1, 2] && divisible(one.scan(), 3) == [1]
}

fn g_single_write(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    assert_eq!(one.get(1), Some(10));
    two.put(1, 12);
    two.put(2, 18);
    let second = world.commit(&two);
    for key in divisible(one.scan(), 20) {
        one.delete(key);
    }
    second && world.commit(&one)
}

fn g2_item(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    for tx in [&mut one, &mut two] {
        assert_eq!((tx.get(1), tx.get(2)), (Some(10), Some(20)));
    }
    one.put(1, 11);
    two.put(2, 21);
    world.commit(&one) && world.commit(&two)
}

fn g2_item_absent(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    assert_eq!((one.get(7), two.get(8)), (None, None));
    one.put(8, 1);
    two.put(7, 1);
    world.commit(&one) && world.commit(&two)
}

fn g2(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    for tx in [&mut one, &mut two] {
        assert!(divisible(tx.scan(), 3).is_empty());
    }
    one.put(3, 30);
    two.put(4, 42);
    world.commit(&one) && world.commit(&two)
}

fn g2_deleted(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    for tx in [&mut one, &mut two] {
        assert_eq!(tx.scan().len(), 2);
    }
    one.delete(1);
    two.delete(2);
    world.commit(&one) && world.commit(&two)
}

fn g2_fekete(world: &mut World) -> bool {
    let (mut one, mut two) = world.two();
    one.scan();
    two.put(2, 25);
    let second = world.commit(&two);
    world.engine.settle();
    let mut three = world.begin();
    three.scan();
    let third = world.commit(&three);
    one.put(1, 0);
    second && third && world.commit(&one)
}

/// Runs every case at every isolation and pace; an error names the first whose fate is another.
pub(crate) fn check() -> Result<(), String> {
    for (name, case, at_snapshot, at_serializable) in CASES {
        for (isolation, fate) in [(Snapshot, at_snapshot), (Serializable, at_serializable)] {
            for pace in [Pace::Early, Pace::Late] {
                let is_seen = case(&mut World::new(isolation, pace));
                let found = if is_seen { Allowed } else { Prevented };
                if found != *fate {
                    return Err(format!("{name}, {isolation:?}, {pace:?}: {found:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn each_isolation_prevents_what_it_promises_to() {
    assert_eq!(check(), Ok(()));
}

#[test]
fn the_guide_has_this_table() {
    let guide = std::fs::read_to_string("docs/guide/transactions.md").unwrap();
    let word = |fate: &Fate| if *fate == Prevented { "prevented" } else { "allowed" };
    for (name, _, at_snapshot, at_serializable) in CASES {
        let row = format!("| {name} | {} | {} |", word(at_snapshot), word(at_serializable));
        assert!(guide.contains(&row), "docs/guide/transactions.md lacks: {row}");
    }
}
