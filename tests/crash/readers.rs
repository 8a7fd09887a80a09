//! Readers that come and go while a shard applies: each sees every write that was acknowledged before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use prkdb::storage::{
    Shard,
    log::entry::{Entry, LogId, Payload},
    sequencer::{Condition, Sequencer, Verdict, WriteRequest},
};
use prkdb_types::{
    ShardCommand,
    command::{PartitionPut, ShardChange},
};

use super::{
    power::say,
    rig::new_disk,
    shard::{LIMITS, TERM, drive, open},
};

const WRITES: u64 = 6000;

fn write(shard: &Shard, sequencer: &mut Sequencer, index: u64, request: &WriteRequest) {
    assert!(matches!(shard.decide(sequencer, request, 5), Verdict::Accepted { .. }));
    let id = LogId { term: TERM, index };
    let payload = Payload::Normal(sequencer.take_entry().unwrap());
    shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
    drive(shard);
    let applied = shard.apply(id).unwrap();
    sequencer.resolved(applied.sequence);
}

#[test]
fn every_reader_sees_what_was_acknowledged_before_it_read() {
    let shard = Arc::new(open(&new_disk()));
    let mut sequencer = Sequencer::open(TERM, LIMITS);
    let put = PartitionPut { partition: 1, collection: 1, number: 0, key_index: true };
    let change = Some(ShardChange::PartitionPut(put));
    let commands = vec![ShardCommand { id: 1, version: 1, change }];
    write(&shard, &mut sequencer, 0, &WriteRequest::Control { commands, timestamp_ms: 0 });
    let (acknowledged, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // So many writes between two reads of a reader: long enough for nobody to have read for a while.
    let readers: Vec<_> = [0, 100, 1500]
        .map(|pause| {
            let shard = Arc::clone(&shard);
            let (acknowledged, is_over) = (Arc::clone(&acknowledged), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut reads = 0_u64;
                while !is_over.load(Ordering::Acquire) {
                    let before = acknowledged.load(Ordering::Acquire);
                    let found = shard.get(1, b"key").unwrap();
                    let seen = found.map_or(0, |found| {
                        u64::from_be_bytes(found.value.as_ref().try_into().unwrap())
                    });
                    assert!(seen >= before, "{seen} after {before} was acknowledged");
                    let keys = shard.scan(1).map_or(0, |snapshot| snapshot.root.len());
                    assert_eq!(keys, usize::from(seen > 0 || keys > 0));
                    reads += 1;
                    while acknowledged.load(Ordering::Acquire) < before + pause
                        && !is_over.load(Ordering::Acquire)
                    {
                        thread::yield_now();
                    }
                }
                reads
            })
        })
        .into();
    for number in 1..=WRITES {
        let request = WriteRequest::Put {
            partition: 1,
            collection: 1,
            key: Bytes::from_static(b"key"),
            value: Bytes::copy_from_slice(&number.to_be_bytes()),
            timestamp_ms: 3,
            producer: None,
            condition: Condition::None,
        };
        write(&shard, &mut sequencer, number, &request);
        acknowledged.store(number, Ordering::Release);
    }
    is_over.store(true, Ordering::Release);
    let reads: Vec<u64> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    say(&format!("readers: {reads:?} reads during {WRITES} writes"));
    let found = shard.get(1, b"key").unwrap().unwrap();
    assert_eq!(found.value.as_ref(), WRITES.to_be_bytes());
}
