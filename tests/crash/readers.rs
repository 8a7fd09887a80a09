//! Readers that come and go while a shard applies: each sees every write that was acknowledged before.

use std::{
    ops::Bound,
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
    sequencer::{CheckedBatch, Condition, Sequencer, SequencerLimits, Verdict, WriteRequest},
};
use prkdb_types::{
    BatchBuilder, Compression, ProducerStamp, ShardCommand,
    command::{PartitionPut, ShardChange},
};

use super::{
    power::say,
    rig::new_disk,
    shard::{LIMITS, TERM, checkpoint, drive, open, open_with},
};

const WRITES: u64 = 6000;

fn write(shard: &Shard, sequencer: &mut Sequencer, index: u64, request: &WriteRequest) {
    assert!(matches!(shard.decide(sequencer, request, 5), Verdict::Accepted { .. }));
    let id = LogId { term: TERM, index };
    let payload = Payload::Normal(sequencer.take_entry().unwrap());
    shard.append(vec![Entry { id, is_void: false, payload }]).unwrap();
    drive(shard);
    // A segment of its own is prepared when a large entry has asked for it.
    drive(shard);
    let applied = shard.apply(id).unwrap();
    sequencer.resolved(applied.sequence);
}

/// A partition with a key index.
fn with_partition() -> WriteRequest {
    let put = PartitionPut {
        partition: 1,
        collection: 1,
        number: 0,
        key_index: true,
        ..PartitionPut::default()
    };
    let change = Some(ShardChange::PartitionPut(put));
    let commands = vec![ShardCommand { id: 1, version: 1, change }];
    WriteRequest::Control { commands, timestamp_ms: 0 }
}

#[test]
fn every_reader_sees_what_was_acknowledged_before_it_read() {
    let shard = Arc::new(open(&new_disk()));
    let mut sequencer = Sequencer::open(TERM, LIMITS);
    write(&shard, &mut sequencer, 0, &with_partition());
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
                    let keys = shard.scan(1).map_or(0, |snapshot| {
                        snapshot.range(Bound::Unbounded, Bound::Unbounded).count()
                    });
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
            ttl: None,
            headers: Vec::new(),
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

/// Values of many sizes, the smallest first; some batches are small.
fn value(number: u32) -> Vec<u8> {
    let len = usize::try_from(number * number % 1900).unwrap();
    vec![number.to_le_bytes()[0]; len]
}

#[test]
fn each_record_of_a_batch_is_read_from_its_place() {
    let limits = SequencerLimits { entry_bytes_max: 4 << 20, ..LIMITS };
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let disk = new_disk();
    let shard = open_with(&disk, 0);
    let mut sequencer = Sequencer::open(TERM, limits);
    write(&shard, &mut sequencer, 0, &with_partition());
    let mut expected = Vec::new();
    for (index, codec) in (1..).zip(codecs.into_iter().chain([Compression::None])) {
        let stamp = ProducerStamp { id: 7, epoch: 0, base_sequence: 0 };
        let stamp = ProducerStamp { id: stamp.id + i64::try_from(index).unwrap(), ..stamp };
        let mut builder = BatchBuilder::new(stamp, codec);
        // The last batch is a small one.
        let count = if index == 6 { 3 } else { 300 };
        for number in 0..count {
            let key = format!("{index}-{number}").into_bytes();
            builder.push(5, Some(&key), Some(&value(number)), &[("h", b"v")]).unwrap();
            expected.push((key, value(number)));
        }
        let batch = CheckedBatch::check(builder.finish().unwrap().to_bytes(), None).unwrap();
        let request = WriteRequest::Batch { partition: 1, collection: 1, batch };
        write(&shard, &mut sequencer, index, &request);
    }
    let check = |shard: &Arc<Shard>| {
        let mut reader = shard.scan(1).unwrap().values();
        for (offset, (key, value)) in (0..).zip(&expected) {
            let found = shard.get(1, key).unwrap().unwrap();
            assert_eq!((&found.value[..], found.version), (&value[..], offset));
            assert_eq!(found.timestamp_ms, 5);
            assert_eq!(reader.read(shard.leaf(1, key).unwrap()).unwrap(), found);
        }
    };
    let shard = Arc::new(shard);
    check(&shard);
    shard.set_committed(shard.log_state().last);
    shard.mark_synced();
    drive(&shard);
    check(&Arc::new(open(&disk)));
    assert!(checkpoint(&shard));
    let again = open(&disk);
    assert!(again.last_checkpoint().is_some());
    check(&Arc::new(again));
}
