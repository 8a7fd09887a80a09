//! Tombstones for keys that are expired.

use bytes::Bytes;
use prkdb_types::{
    BatchBuilder, Compression, ProducerStamp,
    headers::{self, Operation},
};

use super::{Answer, Sequencer, Verdict, overlay::KeyUnderWay, refused};
use crate::storage::{
    bug::bug,
    kv::{state::State, tree::Leaf},
};

impl Sequencer {
    /// Appends tombstones for those of the keys that still have the version they were found with, and are
    /// expired at the time of the entry.
    pub(super) fn decide_sweep(
        &mut self,
        state: &State,
        (partition, collection): (u32, u32),
        keys: &[(Bytes, u64)],
        reason: Operation,
    ) -> Result<Verdict, Verdict> {
        let target = self.target(state, partition)?;
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        let why = [(headers::OPERATION, reason.name().as_bytes())];
        let mut swept = Vec::with_capacity(keys.len());
        let mut passed_over = None;
        for (key, version) in keys {
            let is_over = |leaf: Leaf| {
                leaf.version == *version
                    && (reason == Operation::Trimmed
                        || leaf.is_expired(self.now_ms)
                        || bug!(SweptUnexpired))
            };
            if !state.leaf(collection, key).is_some_and(is_over) {
                continue;
            }
            let under_way = match self.overlay.writes_key(partition, collection, key) {
                _ if bug!(SweptUnseen) => KeyUnderWay::No,
                // Passed over, its record might go and the key stay.
                KeyUnderWay::Maybe(entry) if bug!(SweepPassesOver) => KeyUnderWay::Yes(entry),
                seen => seen,
            };
            match under_way {
                KeyUnderWay::No => {}
                // It gets another version, once that entry is applied.
                KeyUnderWay::Yes(entry) => {
                    passed_over = passed_over.max(Some(entry));
                    continue;
                }
                KeyUnderWay::Maybe(entry) => return Err(Verdict::WaitFor(entry)),
            }
            builder
                .push(self.now_ms, Some(key), None, &why)
                .map_err(|error| refused(error.code(), error.to_string()))?;
            swept.push(key);
        }
        if swept.is_empty() {
            let answer = Answer::Absent { partition };
            return Err(Verdict::Answered { rests_on: passed_over, answer });
        }
        let batch = builder.finish().map_err(|error| refused(error.code(), error.to_string()))?;
        let header = batch.header();
        let verdict = self.accept(state, &target, batch, &header)?;
        for key in swept {
            // The clone counts a reference.
            self.overlay.write_key(self.gathering, collection, key.clone(), None);
        }
        Ok(verdict)
    }
}
