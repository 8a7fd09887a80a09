//! Writes a checkpoint and the manifest that names it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file::{Kind, Writer},
    keys,
    manifest::{self, Manifest, checkpoint_name, is_checkpoint, remove_if_there},
};
use crate::storage::{
    StorageError,
    bug::bug,
    disk::Disk,
    kv::state::SavedState,
    log::{Chain, ResumePlan, entry::LogId},
};

/// Room that must be left beside a checkpoint: it is not worth a disk that takes no more writes.
const ROOM_BYTES: u64 = 256 << 20;
/// As much where one gives room back.
const ROOM_BYTES_CLEANED: u64 = 8 << 20;

/// A shard as it was at one entry.
#[derive(Debug)]
pub(in crate::storage) struct Capture {
    pub(in crate::storage) disk: Arc<dyn Disk>,
    pub(in crate::storage) dir: PathBuf,
    pub(in crate::storage) shard: u32,
    pub(in crate::storage) cluster_id: [u8; 16],
    pub(in crate::storage) log_id: u64,
    pub(in crate::storage) state: SavedState,
    pub(in crate::storage) next_offsets: BTreeMap<u32, u64>,
    pub(in crate::storage) streams: Vec<u8>,
    pub(in crate::storage) plan: ResumePlan,
    /// The number of its manifest.
    pub(in crate::storage) generation: u64,
    pub(in crate::storage) is_cleaned: bool,
    /// How many of the segments that were replaced it does not name.
    pub(in crate::storage) retired: usize,
    /// It is, or leads to, room that comes back.
    pub(in crate::storage) gives_back: bool,
    /// About how large it will be.
    pub(in crate::storage) bytes_likely: u64,
    /// How far the log had grown.
    pub(in crate::storage) grown_bytes: u64,
}

/// Work on a checkpoint.
#[derive(Debug)]
pub struct CheckpointJob {
    pub(in crate::storage) capture: Capture,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointDone {
    /// It counts from now on.
    Written {
        /// Its size.
        bytes: u64,
    },
    /// The disk has too little room: nothing was written.
    NoRoom,
}

/// What a shard hears of it.
pub type CheckpointResult = Result<CheckpointDone, StorageError>;

impl CheckpointJob {
    /// Returns the entry that it is taken at.
    pub fn applied(&self) -> LogId {
        self.capture.state.applied
    }

    pub(in crate::storage) fn chain(&self) -> Chain {
        self.capture.state.chain
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`StorageError`]: the checkpoint before, if there is one, still counts, and nothing is lost but
    /// time at the next start.
    pub fn run(self) -> (Finished, CheckpointResult) {
        let (applied, chain) = (self.applied(), self.chain());
        let (grown_bytes, retired) = (self.capture.grown_bytes, self.capture.retired);
        let generation = self.capture.generation;
        let finished = Finished { applied, chain, grown_bytes, generation, retired };
        (finished, self.capture.write())
    }
}

/// Which checkpoint has ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    pub(in crate::storage) applied: LogId,
    pub(in crate::storage) chain: Chain,
    pub(in crate::storage) grown_bytes: u64,
    pub(in crate::storage) generation: u64,
    pub(in crate::storage) retired: usize,
}

impl Capture {
    fn write(self) -> CheckpointResult {
        let dir = self.dir.clone();
        let path = dir.join(checkpoint_name(self.log_id, self.generation));
        let failed = |source| StorageError::io("write checkpoint", &path)(source);
        let space = self.disk.space(&dir).map_err(failed)?;
        let room = if self.gives_back { ROOM_BYTES_CLEANED } else { ROOM_BYTES };
        if space.free < self.bytes_likely.saturating_add(room) {
            return Ok(CheckpointDone::NoRoom);
        }
        let temporary = path.with_extension("checkpoint-new");
        let sections = (&self.state, self.streams.as_slice());
        let written = write_checkpoint(self.disk.as_ref(), &temporary, self.log_id, sections);
        let written = written.and_then(|bytes| {
            self.disk.rename(&temporary, &path)?;
            // Its name must be there before the manifest's: a cleaned log is of no use without it.
            self.disk.sync_dir(&dir)?;
            Ok(bytes)
        });
        let checkpoint_bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                let _removed = self.disk.remove(&temporary);
                return Err(failed(error));
            }
        };
        let Self {
            disk, shard, cluster_id, generation, is_cleaned, state, next_offsets, plan, ..
        } = self;
        let resume = plan.run(state.chain, next_offsets)?;
        let manifest =
            Manifest { shard, cluster_id, generation, is_cleaned, checkpoint_bytes, resume };
        manifest::write(disk.as_ref(), &dir, &manifest)
            .map_err(StorageError::io("write manifest", &dir.join(manifest::MANIFEST)))?;
        remove_others(disk.as_ref(), &dir, Some(&path));
        Ok(CheckpointDone::Written { bytes: checkpoint_bytes })
    }
}

/// Returns how many bytes must be free beside a checkpoint that gives nothing back.
pub(in crate::storage) fn checkpoint_room() -> u64 {
    ROOM_BYTES
}

/// Writes a state and the index of its streams as a file, makes it durable and returns its size. The caller
/// makes its name so.
///
/// # Errors
/// What the disk says.
pub(in crate::storage) fn write_checkpoint(
    disk: &dyn Disk,
    path: &Path,
    log_id: u64,
    (state, streams): (&SavedState, &[u8]),
) -> io::Result<u64> {
    remove_if_there(disk, path)?;
    let file = disk.create(path)?;
    let mut writer = Writer::begin(file, log_id, state.applied)?;
    // The keys first: the state knows how many there must be.
    for (collection, root) in &state.roots {
        keys::save(*collection, root, |content| writer.section(Kind::Keys, content))?;
    }
    writer.section(Kind::State, &state.section)?;
    for content in state.windows.iter().filter(|_| !bug!(CheckpointWithoutWindows)) {
        writer.section(Kind::Windows, content)?;
    }
    writer.section(Kind::Streams, streams)?;
    writer.finish()
}

/// Removes checkpoints that no manifest names any more. One that stays costs room until the next time.
pub(super) fn remove_others(disk: &dyn Disk, dir: &Path, kept: Option<&Path>) {
    let Ok(names) = disk.list(dir) else { return };
    for name in names.iter().filter(|name| name.to_str().is_some_and(is_checkpoint)) {
        let path = dir.join(name);
        if kept != Some(path.as_path()) {
            let _removed = disk.remove(&path);
        }
    }
}
