//! The targets of fuzzing as ordinary tests: each corpus is replayed, and mutated a little.
//!
//! The long run is libFuzzer's: `tests/long.sh fuzz`. `docs/TESTING.md` has its figures.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::disallowed_methods, reason = "a test gives up by the clock of the machine")]
#![allow(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]
#![allow(unreachable_pub, reason = "the targets are a library of libFuzzer's too")]

mod corpus;
mod harness;
mod mutate;
mod planted;
mod targets;
