//! Where the records of a partition lie, by offset and by time.
//!
//! The log of a shard holds the batches of many partitions, mixed. This index has, for each segment,
//! the frames of each partition in order. It is derived from what is applied: it grows with apply, and
//! a start makes it anew. A segment that apply has left behind gets a *sidecar*, a file beside it with
//! the same content, which is mapped and takes the place of the memory. A sidecar is never synced and
//! never needed: one that is missing, torn or damaged is written again from the log.
//!
//! - `track`: the frames of one partition in one segment, packed.
//! - `sidecar`: the file.
//! - `index`: all segments of a shard, and which of them a partition is in.
//! - `marks`: when what of a partition was appended. `usage`: how much of a segment is still needed.
//! - `clean`: what a cleaning changes of them.
//!
//! Does not know: who reads, where the batches' bytes come from.

mod clean;
mod index;
mod marks;
mod sidecar;
mod track;
mod usage;

pub(super) use clean::Replacement;
pub use index::Bounds;
pub(super) use index::{Frames, StreamIndex};
pub use marks::TrimPoint;
pub use sidecar::{SidecarDone, SidecarJob};
pub(super) use track::{FrameRef, Track};
pub(super) use usage::Usage;
