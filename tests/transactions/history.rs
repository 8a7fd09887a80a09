//! Random transactions against what their isolation says of them: every accepted one may be accepted, and
//! every refused one has a conflict.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prkdb::storage::{
    clock::{Rng as _, SeededRng},
    sequencer::{CheckedBatch, Condition, KeyRules, Keyless, WriteRequest},
};
use prkdb_types::{BatchBuilder, Compression, ErrorCode, Isolation, ProducerStamp};

use super::rig::{COLLECTION, Engine, Outcome, Pace, Tx, partition_of};

const KEYS: u64 = 8;

type Map = BTreeMap<u8, u32>;

/// A transaction, and what it was told.
struct Open {
    tx: Tx,
    /// The state that it reads.
    snapshot: usize,
    keys: BTreeMap<u8, Option<u32>>,
    ranges: Vec<(u8, u8, Vec<(u8, u32)>)>,
    written: BTreeMap<u8, Option<u32>>,
}

struct History {
    engine: Engine,
    rng: SeededRng,
    /// After each accepted write.
    states: Vec<Map>,
    /// Which of them is applied.
    applied: usize,
    /// The state that the last write of each key made.
    last_written: BTreeMap<u8, usize>,
    next_value: u32,
    open: Vec<Open>,
    pub(crate) commits: usize,
    pub(crate) conflicts: usize,
}

fn range(map: &Map, from: u8, to: u8) -> Vec<(u8, u32)> {
    map.range(from..to.max(from)).map(|(key, value)| (*key, *value)).collect()
}

impl History {
    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn key(&mut self) -> u8 {
        u8::try_from(self.below(KEYS)).unwrap()
    }

    fn value(&mut self) -> u32 {
        self.next_value += 1;
        self.next_value
    }

    fn last(&self) -> &Map {
        self.states.last().unwrap()
    }

    /// Notes what was applied meanwhile.
    fn look(&mut self) {
        // The first entry was that which created the partitions.
        self.applied = self.engine.applied - 1;
    }

    fn accepted(&mut self, written: &BTreeMap<u8, Option<u32>>) {
        let mut state = self.last().clone();
        for (key, value) in written {
            match value {
                Some(value) => state.insert(*key, *value),
                None => state.remove(key),
            };
            self.last_written.insert(*key, self.states.len());
        }
        self.states.push(state);
        self.look();
    }

    /// A write that is no transaction.
    fn write_plainly(&mut self) {
        let (key, value) = (self.key(), self.value());
        let (bytes, collection) = (Bytes::copy_from_slice(&[key]), COLLECTION);
        let partition = partition_of(collection, &bytes);
        let put = Bytes::copy_from_slice(&value.to_be_bytes());
        let (timestamp_ms, producer, condition, number) = (3, None, Condition::None, value);
        let (request, written) = match self.below(3) {
            0 if self.last().contains_key(&key) => {
                let key = bytes;
                let delete = WriteRequest::Delete {
                    partition,
                    collection,
                    key,
                    timestamp_ms,
                    producer,
                    condition,
                };
                (delete, None)
            }
            1 => (batch(partition, &bytes, &put), Some(number)),
            _ => {
                let (key, value) = (bytes, put);
                let put = WriteRequest::Put {
                    partition,
                    collection,
                    key,
                    value,
                    timestamp_ms,
                    producer,
                    condition,
                    ttl: None,
                    headers: Vec::new(),
                };
                (put, Some(number))
            }
        };
        assert!(matches!(self.engine.submit(&request), Outcome::Accepted(_)));
        self.accepted(&BTreeMap::from([(key, written)]));
    }

    fn begin(&mut self) {
        let isolation =
            if self.below(2) == 0 { Isolation::Snapshot } else { Isolation::Serializable };
        self.look();
        self.open.push(Open {
            tx: self.engine.begin(isolation),
            snapshot: self.applied,
            keys: BTreeMap::new(),
            ranges: Vec::new(),
            written: BTreeMap::new(),
        });
    }

    fn act(&mut self, at: usize) -> Result<(), String> {
        let (key, value, what) = (self.key(), self.value(), self.below(6));
        let to = key.saturating_add(u8::try_from(self.below(KEYS)).unwrap());
        let open = &mut self.open[at];
        let base = &self.states[open.snapshot];
        let mut expected = base.clone();
        for (key, value) in &open.written {
            match value {
                Some(value) => expected.insert(*key, *value),
                None => expected.remove(key),
            };
        }
        match what {
            0 | 1 => {
                let found = open.tx.get(key);
                if found != expected.get(&key).copied() {
                    return Err(format!("key {key} is {found:?}, not {:?}", expected.get(&key)));
                }
                if !open.written.contains_key(&key) {
                    open.keys.insert(key, base.get(&key).copied());
                }
            }
            2 => {
                let found = open.tx.range(key, to);
                if found != range(&expected, key, to) {
                    return Err(format!("range {key}..{to} is {found:?}"));
                }
                open.ranges.push((key, to, range(base, key, to)));
            }
            3 => {
                open.tx.delete(key);
                open.written.insert(key, None);
            }
            _ => {
                open.tx.put(key, value);
                open.written.insert(key, Some(value));
            }
        }
        Ok(())
    }

    /// Returns whether an isolation forbids the commit.
    fn conflicts(&self, open: &Open) -> bool {
        let is_later = |key| self.last_written.get(key).is_some_and(|at| *at > open.snapshot);
        let now = self.last();
        let is_stale = || {
            open.keys.iter().any(|(key, value)| now.get(key) != value.as_ref())
                || open.ranges.iter().any(|(from, to, rows)| range(now, *from, *to) != *rows)
        };
        open.written.keys().any(is_later)
            || (open.tx.buffer.isolation() == Isolation::Serializable && is_stale())
    }

    fn commit(&mut self, at: usize) -> Result<(), String> {
        let open = self.open.swap_remove(at);
        if open.written.is_empty() {
            return Ok(());
        }
        let conflicts = self.conflicts(&open);
        match (self.engine.commit(&open.tx), conflicts) {
            (Ok(()), false) => {
                self.commits += 1;
                self.accepted(&open.written);
                Ok(())
            }
            (Err(refusal), true) if refusal.code == ErrorCode::ConflictDetected => {
                self.conflicts += 1;
                self.look();
                let key = refusal.conflict.map(|conflict| conflict.key[0]);
                let is_of_it = key.is_some_and(|key| {
                    open.written.contains_key(&key)
                        || open.keys.contains_key(&key)
                        || open.ranges.iter().any(|(from, to, _)| (*from..*to).contains(&key))
                });
                if is_of_it { Ok(()) } else { Err(format!("the conflict names key {key:?}")) }
            }
            (Ok(()), true) => Err("a commit that conflicts was accepted".to_owned()),
            (Err(refusal), _) => Err(format!("refused without a conflict: {refusal}")),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.below(20) {
            0..=2 => self.begin(),
            3..=4 => self.write_plainly(),
            5 => {
                self.engine.settle();
                self.look();
            }
            number if !self.open.is_empty() => {
                let at = usize::try_from(self.below(self.open.len() as u64)).unwrap();
                return if number < 9 { self.commit(at) } else { self.act(at) };
            }
            _ => {}
        }
        Ok(())
    }
}

/// A batch, into which the sequencer does not look.
fn batch(partition: u32, key: &Bytes, value: &Bytes) -> WriteRequest {
    let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
    builder.push(3, Some(key), Some(value), &[]).unwrap();
    let rules = KeyRules {
        bytes_max: 100,
        value_bytes_max: 100,
        records_max: 10,
        decompressed_bytes_max: 1 << 20,
        number: partition,
        partition_of: &|key| partition_of(COLLECTION, key),
        keyless: Keyless::Refused,
    };
    let batch = CheckedBatch::check(builder.finish().unwrap().to_bytes(), Some(&rules)).unwrap();
    WriteRequest::Batch { partition, collection: COLLECTION, batch }
}

/// Runs one history; returns how many transactions were committed and how many conflicted.
pub(crate) fn run(seed: u64, pace: Pace, steps: usize) -> Result<(usize, usize), String> {
    let mut history = History {
        engine: Engine::new(pace),
        rng: SeededRng::new(seed),
        states: vec![Map::new()],
        applied: 0,
        last_written: BTreeMap::new(),
        next_value: 0,
        open: Vec::new(),
        commits: 0,
        conflicts: 0,
    };
    for step in 0..steps {
        history.step().map_err(|error| format!("seed {seed}, {pace:?}, step {step}: {error}"))?;
    }
    history.engine.settle();
    let keys: BTreeSet<u8> = (0..u8::try_from(KEYS).unwrap()).collect();
    let found: Map =
        keys.into_iter().filter_map(|key| Some((key, history.engine.get(key)?))).collect();
    if found != *history.last() {
        return Err(format!("seed {seed}: the keys are {found:?}, not {:?}", history.last()));
    }
    Ok((history.commits, history.conflicts))
}

/// Runs many.
pub(crate) fn check(seeds: u64) -> Result<(usize, usize), String> {
    let mut sum = (0, 0);
    for seed in 0..seeds {
        for pace in [Pace::Early, Pace::Late] {
            let (commits, conflicts) = run(seed, pace, 300)?;
            sum = (sum.0 + commits, sum.1 + conflicts);
        }
    }
    Ok(sum)
}

#[test]
fn what_is_accepted_may_be_and_what_is_refused_conflicts() {
    let (commits, conflicts) = check(60).unwrap();
    assert!(commits > 500 && conflicts > 500, "{commits} commits, {conflicts} conflicts");
}
