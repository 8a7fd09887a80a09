//! A disk in memory that loses what was not synced, fails when told to, and repeats itself exactly.
//!
//! The model. A sector of 512 bytes is written whole or not at all, and each unsynced sector by
//! itself. `sync_data` makes content and length of one file durable, `sync_dir` the names of one
//! directory; neither does the other's work. Length and blocks that were not synced are lost by
//! themselves too: a file may come back short, or long and full of zeros. What a *failed* sync
//! covered never becomes durable by a later sync of the same data. [`Loss`] says what a power cut
//! loses.
//!
//! Every mutating call is a *boundary* and has a number. While recording, the disk keeps an image
//! after each; images share their pages, so that keeping hundreds and making all crashes of each
//! is cheap.

mod content;
mod fault;
mod file;
mod loss;
mod state;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::{
    fault::{Calls, Failure, Fault, Repeat},
    loss::{Image, Loss},
};

use self::{
    fault::{Call, Faults, Verdict},
    file::SimFile,
    state::{Node, ROOT, State},
};
use super::{Access, Disk, DiskFile, Privacy, Space};

/// The room that is shown where no capacity is set.
const UNLIMITED_BYTES: u64 = 1 << 40;

/// A simulated disk. Clones are handles to the same disk; [`SimDisk::clone_image`] copies it.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    state: State,
    faults: Faults,
    boundary: u64,
    recording: Option<Vec<Image>>,
}

impl Inner {
    fn image(&self) -> Image {
        Image { boundary: self.boundary, state: self.state.clone() }
    }

    /// Counts a mutating call, whether it worked or not: a failed one may have left a part.
    fn pass_boundary(&mut self) {
        self.boundary += 1;
        if self.recording.is_some() {
            let image = self.image();
            self.recording.get_or_insert_default().push(image);
        }
    }

    fn change(
        &mut self,
        call: Call,
        run: impl FnOnce(&mut State) -> io::Result<()>,
    ) -> io::Result<()> {
        let result = match self.faults.judge(call) {
            Verdict::Go | Verdict::Half => run(&mut self.state),
            Verdict::Ignore => Ok(()),
            Verdict::Fail(errno) => Err(errno.into()),
        };
        self.pass_boundary();
        result
    }

    fn look<T>(&mut self, run: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        match self.faults.judge(Call::Read) {
            Verdict::Fail(errno) => Err(errno.into()),
            Verdict::Go | Verdict::Half | Verdict::Ignore => run(&self.state),
        }
    }
}

impl SimDisk {
    /// Returns an empty disk with the root directory `/`; a relative path starts there too.
    pub fn new() -> Self {
        Self::from_state(State::new())
    }

    fn from_state(state: State) -> Self {
        let inner = Inner { state, faults: Faults::default(), boundary: 0, recording: None };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that failed elsewhere may still look at the disk.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, inode: state::Inode, access: Access) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), inode, access })
    }

    // Images.

    /// Returns the disk at this moment.
    pub fn image(&self) -> Image {
        self.lock().image()
    }

    /// Returns an independent copy with the same unsynced changes, and without faults.
    #[must_use]
    pub fn clone_image(&self) -> Self {
        self.image().to_disk()
    }

    /// Returns the disk as a power cut at this moment leaves it.
    #[must_use]
    pub fn crash_image(&self, loss: Loss) -> Self {
        self.image().crash(loss)
    }

    /// Returns how many single changes a power cut at this moment can lose.
    pub fn unsynced_count(&self) -> usize {
        self.lock().state.pending.len()
    }

    /// Returns how many mutating calls were made.
    pub fn boundary_count(&self) -> u64 {
        self.lock().boundary
    }

    /// Keeps an image of this moment and of each boundary from now on.
    pub fn record(&self) {
        let mut inner = self.lock();
        let first = inner.image();
        inner.recording = Some(vec![first]);
    }

    /// Ends the recording and returns its images, in order.
    pub fn take_recording(&self) -> Vec<Image> {
        self.lock().recording.take().unwrap_or_default()
    }

    /// Returns a hash of all names, lengths and bytes as the process sees them. Disks that were made
    /// in different ways and hold the same have the same.
    pub fn hash(&self) -> u64 {
        self.lock().state.hash(ROOT)
    }

    // Faults.

    /// Arms a fault. Several may be armed; each counts by itself.
    pub fn fail(&self, fault: Fault) {
        self.lock().faults.arm(fault);
    }

    /// Disarms all faults. What failed syncs left in doubt stays so.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Returns how often a fault has struck: 0 ends a sweep over n.
    pub fn struck_count(&self) -> u64 {
        self.lock().faults.struck
    }

    /// Sets the room for blocks in bytes; a write or allocation beyond it is ENOSPC. Images keep it.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().state.capacity = bytes;
    }

    /// Turns over one bit of a file, durably and unseen by the process that wrote it. A pending
    /// version of the same sector, should it survive, hides it.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; `InvalidInput` if it ends before the position.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let mut inner = self.lock();
        let inode = inner.state.find(path)?;
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        if position >= inner.state.content(inode)?.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(Node::File { durable, seen }) = inner.state.nodes.get_mut(&inode) {
            // Where both are one, they stay one.
            let is_synced = Arc::ptr_eq(durable, seen);
            Arc::make_mut(seen).flip(position, bit);
            if is_synced {
                *durable = Arc::clone(seen);
            } else {
                Arc::make_mut(durable).flip(position, bit);
            }
        }
        Ok(())
    }

    /// Loses a file, as a damaged file system does: its name is gone, durably.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn lose_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let dir = inner.state.find(path.parent().unwrap_or_else(|| Path::new("")))?;
        inner.state.remove(path)?;
        inner.state.sync_dir(dir)
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("SimDisk")
            .field("boundary", &inner.boundary)
            .field("unsynced", &inner.state.pending.len())
            .finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().change(Call::Create, |state| state.create(path, Node::empty_dir()).map(drop))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.lock().look(|state| Ok(state.names(state.find(dir)?)?.keys().cloned().collect()))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inode = ROOT;
        self.lock().change(Call::Create, |state| {
            inode = state.create(path, Node::empty_file())?;
            Ok(())
        })?;
        Ok(self.file(inode, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.lock().look(|state| {
            let inode = state.find(path)?;
            // A directory is refused, as opening one for writing is.
            state.content(inode)?;
            Ok(inode)
        })?;
        Ok(self.file(inode, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().change(Call::Name, |state| state.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().change(Call::Name, |state| state.remove(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.lock().look(|state| match state.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn make_private(&self, dir: &Path) -> io::Result<Privacy> {
        self.lock().look(|state| state.find(dir).map(|_| Privacy::WasPrivate))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().change(Call::DirSync, |state| state.sync_dir(state.find(dir)?))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.lock().look(|state| {
            state.find(dir)?;
            let total = state.capacity.unwrap_or(UNLIMITED_BYTES);
            Ok(Space { total, free: total.saturating_sub(state.used) })
        })
    }
}
