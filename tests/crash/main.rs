//! What the log promises, against power cuts, kills, damage and failing disks.
//!
//! A *load* runs on a simulated disk that keeps an image after every mutating call. From each image
//! crashes are made, opened and compared with a model. `docs/TESTING.md` has the figures; a violation
//! names its load, its boundary and its loss, and repeats itself exactly.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]

mod checkpoint_faults;
mod checkpoints;
mod cleaning;
mod cleaning_beside;
mod damage;
mod decoder;
mod faults;
mod files;
mod golden;
mod holes;
mod inspecting;
mod install_refusals;
mod installed_readers;
mod installing;
mod lives;
mod load;
mod model;
mod oracle;
mod planted;
mod power;
mod readers;
mod rig;
mod shard;
mod sidecars;
mod snapshots;
mod state;
