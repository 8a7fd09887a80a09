//! Checkpoints: the state of a shard at one entry, so that a start reads the tail of the log and not its
//! history.
//!
//! A checkpoint is written beside the writer: what is small is encoded while the state stands still, of
//! the key indexes the roots are taken. It is synced under its name before the `MANIFEST` names it, and
//! an older one is removed after that. Nothing depends on it: a shard whose manifest or checkpoint is
//! damaged or gone is built from its whole log. But what the manifest says was synced is believed.
//!
//! The bytes are described in `docs/internals/checkpoints.md`.
//!
//! - `codec`: numbers and byte strings.
//! - `file`: sections with checksums.
//! - `keys`: a key index as sections.
//! - `manifest`: what is named, and where reading begins.
//! - `job`: writes both. `load`: reads them. `version`: which snapshot a manifest is.
//! - `renumber`: the segments of another log, under numbers of this one.

pub(in crate::storage) mod codec;
mod file;
mod job;
mod keys;
mod load;
mod manifest;
mod renumber;
mod version;

pub(in crate::storage) use job::{Capture, checkpoint_room, write_checkpoint};
pub use job::{CheckpointDone, CheckpointJob, CheckpointResult, Finished as CheckpointFinished};
pub(in crate::storage) use load::{Loaded, Opened, find, load_copy, refuse_history};
pub(in crate::storage) use manifest::{
    MANIFEST, Manifest, adopt, checkpoint_name, commit, current, stage,
};
pub(in crate::storage) use renumber::Renumber;
pub use version::{SnapshotFile, SnapshotReport, SnapshotVersion, inspect_snapshot};
