//! Keys go where Kafka would put them, or evenly around the ring.

use std::sync::Arc;

use prkdb_types::{PartitionTable, Partitioner, limits, murmur2};

/// The distinct tail numbers of all flights that left New York City in 2013.
const TAIL_NUMBERS: &str = include_str!("../data/tailnums.txt");

#[test]
fn murmur2_gives_the_values_that_kafka_publishes() {
    let cases = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (key, expected) in cases {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
    }
}

/// Returns the smallest and the largest share of the tail numbers, 1.0 being fair.
fn shares(partitioner: Partitioner, partitions: u32) -> (f64, f64) {
    let table = PartitionTable::shared(partitioner, partitions);
    let mut counts = vec![0_u32; usize::try_from(partitions).unwrap()];
    for tail_number in TAIL_NUMBERS.lines() {
        counts[usize::try_from(table.partition(tail_number.as_bytes())).unwrap()] += 1;
    }
    let fair = 4044.0 / f64::from(partitions);
    let share = |count: &u32| f64::from(*count) / fair;
    (share(counts.iter().min().unwrap()), share(counts.iter().max().unwrap()))
}

fn assert_about(found: (f64, f64), expected: (f64, f64)) {
    let is_close = |a: f64, b: f64| (a - b).abs() < 0.005;
    assert!(is_close(found.0, expected.0) && is_close(found.1, expected.1), "{found:?}");
}

#[test]
fn the_ring_shares_the_tail_numbers_out_about_evenly() {
    assert_eq!(TAIL_NUMBERS.lines().count(), 4044);
    assert_about(shares(Partitioner::Ring, 3), (0.88, 1.14));
    assert_about(shares(Partitioner::Ring, 64), (0.78, 1.30));
}

#[test]
fn the_ring_maps_these_keys_for_ever() {
    let table = PartitionTable::shared(Partitioner::Ring, 3);
    let found: Vec<u32> =
        TAIL_NUMBERS.lines().take(12).map(|k| table.partition(k.as_bytes())).collect();
    assert_eq!(found, [0, 1, 1, 1, 2, 2, 1, 0, 0, 2, 2, 0]);
}

#[test]
fn growing_the_ring_moves_keys_only_to_the_new_partition() {
    let (three, four) = (
        PartitionTable::shared(Partitioner::Ring, 3),
        PartitionTable::shared(Partitioner::Ring, 4),
    );
    let mut moved = 0;
    for key in TAIL_NUMBERS.lines().map(str::as_bytes) {
        let (before, after) = (three.partition(key), four.partition(key));
        assert!(after == before || after == 3);
        moved += u32::from(after != before);
    }
    assert!((600..1500).contains(&moved), "{moved}");
}

#[test]
fn kafka_is_the_hash_without_its_sign_modulo_the_count() {
    let table = PartitionTable::shared(Partitioner::Kafka, 7);
    for key in ["21", "foobar", "abc", ""] {
        let expected = (murmur2(key.as_bytes()) & 0x7fff_ffff) % 7;
        assert_eq!(table.partition(key.as_bytes()), expected);
    }
}

#[test]
fn a_table_is_shared_while_it_is_used() {
    let one = PartitionTable::shared(Partitioner::Ring, 11);
    let two = PartitionTable::shared(Partitioner::Ring, 11);
    assert!(Arc::ptr_eq(&one, &two));
    let other = PartitionTable::shared(Partitioner::Kafka, 11);
    assert!(!Arc::ptr_eq(&one, &other));
    assert_eq!(one.partitions(), 11);
}

#[test]
fn the_default_changes_above_1024_partitions() {
    assert_eq!(Partitioner::default_for(1), Partitioner::Ring);
    assert_eq!(Partitioner::default_for(1024), Partitioner::Ring);
    assert_eq!(Partitioner::default_for(1025), Partitioner::Kafka);
}

#[test]
fn every_count_maps_every_key_inside() {
    for partitions in [0, 1, 2, 1000, limits::MAX_RING_PARTITIONS] {
        for partitioner in Partitioner::ALL {
            let table = PartitionTable::shared(*partitioner, partitions);
            for key in [&b""[..], b"a", b"\xff\xff\xff\xff", b"a longer key"] {
                assert!(table.partition(key) < partitions.max(1));
            }
        }
    }
}
