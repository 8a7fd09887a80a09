//! Reads a whole log by the rules of opening it, tells what is there, and changes nothing.
//!
//! Opening stops at the first thing that is wrong and says that. Whoever stands before a damaged log
//! wants more: what each file holds, how much can still be read behind the damage, and where the log
//! could be cut. The files are surveyed, chained and decoded by what opening uses; the rules of its
//! scan are written down here once more, on purpose: the two are held together by a test that flips
//! and cuts every byte of a log, and [`verify`] asks opening as well before it calls a log sound.
//!
//! - `report`: what is found.
//! - `cleaned`: what stands before the checkpoint of a log that was cleaned.
//! - `chained`, `walk`, `tally`: every entry in order, up to where the log ends or breaks.
//! - `following`: what can still be read behind a break.
//! - `verdict`: whole, torn or damaged.
//! - `cut`: ends a log behind an entry; it sets aside and copies, and removes nothing.

mod chained;
mod cleaned;
mod cut;
mod following;
mod report;
mod tally;
mod verdict;
mod walk;

pub use cut::{CutPlan, copy_log, cut_in_place};
pub use report::{
    Damage, Depth, Following, LogOwner, LogReport, Problem, SegmentReport, SegmentState, Torn,
    Visited,
};
pub use tally::records;
pub use verdict::{inspect, verify};
