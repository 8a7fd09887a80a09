//! Trims that come between each other.

use super::{
    engine::{Engine, partition_of},
    put,
};
use crate::storage::sequencer::{Condition, WriteRequest};

#[test]
fn two_trims_of_one_partition_take_their_bytes_once() {
    let mut engine = Engine::new();
    let partition = partition_of(b"a");
    for _ in 0..20 {
        engine.accept(&put(b"a", b"value", None, Condition::None));
    }
    engine.commit();
    let size = |engine: &Engine| engine.shard.partition_state(partition).unwrap().size_bytes;
    let all = size(&engine);
    let begun = engine.shard.log_start(partition);
    let found = engine.shard.trim_point(partition, 15).unwrap();
    // While the keys of the first are looked through, a second one comes and is done.
    let other = engine.shard.trim_point(partition, 8).unwrap();
    engine.accept(&WriteRequest::trim(partition, other, 0));
    engine.commit();
    let left = engine.shard.still_to_trim(partition, begun, found).unwrap();
    assert!(left.log_start == 15 && left.bytes < found.bytes, "{left:?} of {found:?}");
    engine.accept(&WriteRequest::trim(partition, left, 0));
    engine.commit();
    let rest = size(&engine);
    assert!(
        (all / 5..=all / 3).contains(&rest),
        "{rest} of {all} bytes for a quarter of the records"
    );
    assert_eq!(engine.shard.still_to_trim(partition, begun, found), None);
}
