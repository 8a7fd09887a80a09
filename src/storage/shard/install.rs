//! A snapshot of another replica becomes this replica's state.
//!
//! 1. *Prepare*, beside the writer: the segments of the copy are written as history segments of this log, each
//!    byte where it was; the checkpoint is loaded, pointed at them, and written as one of this shard. All of it
//!    is verified and synced, and nothing names it.
//! 2. *Install*, in one short step: a manifest names the history segments, and from where on the own log is
//!    read. Its rename commits, as that of a cleaning does. Then the state is exchanged.
//!
//! Nothing of the own log is touched: not the vote, and not what stands behind the snapshot. What the manifest
//! does not name any more is removed, and stays readable for whoever holds it.

mod reseed;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use super::{Shard, copy::ShardCopy};
use crate::storage::{
    StorageError,
    bug::bug,
    checkpoint::{
        Loaded, MANIFEST, Manifest, Renumber, checkpoint_name, checkpoint_room, commit, load_copy,
        stage, write_checkpoint,
    },
    disk::Disk,
    kv::state::State,
    log::{
        Home, Segment,
        entry::LogId,
        header::Lsn,
        segment::{HardState, any_file_name},
    },
    stream::StreamIndex,
};

/// A snapshot that was verified, loaded and synced, and not installed. Dropped, it is given up.
#[derive(Debug)]
pub struct PreparedSnapshot {
    applied: LogId,
    generation: u64,
    checkpoint_bytes: u64,
    contents: Contents,
    segments: Vec<Arc<Segment>>,
    files: Files,
    /// What the other replica remembers; none of it is taken.
    other: HardState,
    /// No checkpoint and no cleaning is begun as long as this is there.
    _alone: Arc<()>,
}

/// What a shard has in memory beside its log.
#[derive(Debug)]
struct Contents {
    state: State,
    streams: StreamIndex,
}

/// Files that nothing names; removed when this is dropped.
#[derive(Debug)]
struct Files {
    disk: Arc<dyn Disk>,
    paths: Vec<PathBuf>,
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.paths {
            // What stays is removed by a later start.
            let _removed = self.disk.remove(path);
        }
    }
}

/// How an installation ended.
#[derive(Debug)]
pub enum Install {
    /// The shard is what the snapshot says.
    Done(Box<Installed>),
    /// Something was appended behind the mark: nothing was changed. Mark again.
    NotYet(Box<PreparedSnapshot>),
}

/// What an installation leaves behind.
#[derive(Debug)]
pub struct Installed {
    gone: Vec<Arc<Segment>>,
    checkpoint: Option<PathBuf>,
    /// Large trees take a while to be freed.
    _before: Contents,
}

impl Contents {
    /// A sidecar that cannot be written stays in memory.
    fn write_sidecars(&mut self) {
        while let Some(job) = self.streams.next_sidecar() {
            let written = job.run();
            self.streams.sidecar_done(&job, written);
        }
    }

    /// Writes the checkpoint, with its name.
    fn write(&self, home: &Home, path: &Path) -> Result<u64, StorageError> {
        let failed = |source| StorageError::io("write checkpoint", path)(source);
        let Some(saved) = self.state.save() else {
            let reason = "it holds nothing".to_owned();
            return Err(StorageError::Snapshot { index: 0, reason });
        };
        let sections = (&saved, &self.streams.save()[..]);
        let bytes = write_checkpoint(home.disk.as_ref(), path, home.log_id, sections);
        let bytes = bytes.map_err(failed)?;
        home.disk.sync_dir(&home.dir).map_err(failed)?;
        Ok(bytes)
    }
}

impl PreparedSnapshot {
    /// Returns the last entry in it.
    pub fn applied(&self) -> LogId {
        self.applied
    }
}

impl Shard {
    /// Verifies the copy of another replica of this shard and makes it ready to be installed. `pace` hears how
    /// many bytes were read since it was called last, may wait, and may give it up.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`] for one that does not fit this shard, [`StorageError::Foreign`] for one of
    /// another, [`StorageError::Corrupt`], [`StorageError::NewerFormat`] and [`StorageError::Io`]: nothing was
    /// changed then.
    pub fn prepare_snapshot(
        &self,
        copy: &ShardCopy,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<PreparedSnapshot, StorageError> {
        let applied = copy.version.applied;
        let home = self.home();
        let manifest = self.manifest_of(copy, &home)?;
        let (alone, generation) = self.begin_install(applied)?;
        let sources = self.sources(copy, &manifest)?;
        let mut renumber = Renumber::default();
        for source in &sources {
            renumber.add(source.number, source.new, source.len);
        }
        let checkpoint =
            copy.part(&checkpoint_name(manifest.resume.log_id, manifest.generation))?;
        let other = manifest.resume.hard_state;
        let disk_and_dir = (&home.disk, home.dir.as_path());
        let loaded =
            load_copy(checkpoint, manifest, disk_and_dir, self.producer_bytes_max, &renumber)?;
        let Loaded { state, streams, .. } = loaded;
        let mut contents = Contents { state, streams: streams.moved_to(home.log_id) };
        let mut files = Files { disk: Arc::clone(&home.disk), paths: Vec::new() };
        let mut segments = Vec::with_capacity(sources.len());
        for source in sources {
            let path = home.path(source.new);
            files.paths.extend([path.with_extension("index"), path]);
            let (segment, tracks) = source.write(&home, pace)?;
            contents.streams.restored(segment.number, tracks);
            contents.write_sidecars();
            segments.push(segment);
        }
        let path = home.dir.join(checkpoint_name(home.log_id, generation));
        files.paths.push(path.clone());
        let checkpoint_bytes = contents.write(&home, &path)?;
        Ok(PreparedSnapshot {
            applied,
            generation,
            checkpoint_bytes,
            contents,
            segments,
            files,
            other,
            _alone: alone,
        })
    }

    /// Returns the manifest of a copy that can be installed here.
    fn manifest_of(&self, copy: &ShardCopy, home: &Home) -> Result<Manifest, StorageError> {
        let applied = copy.version.applied;
        let refuse =
            |reason: &str| StorageError::Snapshot { index: applied.index, reason: reason.into() };
        let path = home.dir.join(MANIFEST);
        let manifest =
            Manifest::of_copy(&path, &copy.version.manifest, self.number, self.cluster_id)?;
        if manifest.resume.applied != applied {
            return Err(refuse("its manifest names another entry"));
        }
        self.check_newer(applied, self.applied().0)?;
        let space = home.disk.space(&home.dir).map_err(StorageError::io("measure", &home.dir))?;
        if space.free < copy.version.bytes.saturating_add(checkpoint_room()) {
            return Err(refuse("the disk has no room for it"));
        }
        Ok(manifest)
    }

    fn home(&self) -> Home {
        let log = self.log();
        let (disk, dir, log_id) = log.home();
        let dir = dir.to_path_buf();
        Home { disk, dir, shard: self.number, cluster_id: self.cluster_id, log_id }
    }

    fn check_newer(&self, applied: LogId, own: Option<LogId>) -> Result<(), StorageError> {
        match own {
            Some(own) if own.index >= applied.index => Err(StorageError::Snapshot {
                index: applied.index,
                reason: format!("shard {} has applied entry {} already", self.number, own.index),
            }),
            _ => Ok(()),
        }
    }

    /// From now on no checkpoint and no cleaning begins.
    fn begin_install(&self, applied: LogId) -> Result<(Arc<()>, u64), StorageError> {
        // One that points keys elsewhere is waited for.
        let _relocation = self.relocation();
        let mut known = self.checkpoints();
        let busy = [
            (known.is_under_way, "a checkpoint is being written"),
            (known.is_broken, "the shard has failed"),
            (known.is_installing(), "another one is being prepared"),
        ];
        if let Some((_, reason)) = busy.iter().find(|(is_so, _)| *is_so) {
            let reason = (*reason).to_owned();
            return Err(StorageError::Snapshot { index: applied.index, reason });
        }
        let alone = Arc::new(());
        known.installing = Arc::downgrade(&alone);
        known.installs += 1;
        Ok((alone, known.next_generation()))
    }

    /// Appends what the log is read from behind, if the snapshot to be installed ends in an entry that it
    /// does not have. To be synced before [`Shard::install`] is called.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn mark(&self) -> Result<Lsn, StorageError> {
        self.log().mark()
    }

    /// Makes this shard what a snapshot says. Takes a [`Shard::mark`] that is synced. Not to be called while
    /// entries are applied.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`] where the shard contradicts it, and then nothing was changed.
    /// [`StorageError::Io`]: if the log has failed with it, nobody knows whether it is installed, and the
    /// process must end.
    pub fn install(
        &self,
        mut prepared: PreparedSnapshot,
        mark: Lsn,
    ) -> Result<Install, StorageError> {
        let applied = prepared.applied;
        // Nothing is appended, applied or captured between the manifest and the exchange.
        let _relocation = self.relocation();
        let mut known = self.checkpoints();
        let mut log = self.log();
        let mut state = self.state();
        self.check_newer(applied, state.applied())?;
        let Some(footing) = log.footing(applied, mark)? else {
            return Ok(Install::NotYet(Box::new(prepared)));
        };
        let mut resume = log.resume_at(&footing, applied, &prepared.segments);
        if bug!(InstallTakesVote) {
            resume.hard_state.vote = prepared.other.vote;
        }
        let (disk, dir, log_id) = log.home();
        let dir = dir.to_path_buf();
        let manifest = Manifest {
            shard: self.number,
            cluster_id: self.cluster_id,
            generation: prepared.generation,
            is_cleaned: true,
            checkpoint_bytes: prepared.checkpoint_bytes,
            resume,
        };
        let failed = |source| StorageError::io("write manifest", &dir.join(MANIFEST))(source);
        stage(disk.as_ref(), &dir, &manifest).map_err(failed)?;
        prepared.files.paths.clear();
        if let Err(error) = commit(disk.as_ref(), &dir) {
            log.fail();
            return Err(failed(error));
        }
        let PreparedSnapshot { contents, segments, .. } = prepared;
        let sums = (contents.state.chain(), contents.state.next_offsets());
        let mut gone = log.installed(&footing, applied, sums, &segments);
        gone.extend(known.retired.iter().cloned());
        known.installed(log.grown_bytes(), &gone);
        let generation = std::mem::replace(&mut known.generation, manifest.generation);
        let had = known.applied.replace(applied).is_some();
        let checkpoint = had.then(|| dir.join(checkpoint_name(log_id, generation)));
        known.bytes = manifest.checkpoint_bytes;
        let before = Contents {
            state: std::mem::replace(&mut *state, contents.state),
            streams: std::mem::replace(&mut *self.stream(), contents.streams),
        };
        self.publish(&mut state);
        Ok(Install::Done(Box::new(Installed { gone, checkpoint, _before: before })))
    }

    /// Removes the files that an installation has made needless. What cannot be removed is, by the next start.
    pub fn clear_away(&self, installed: Installed) {
        let Installed { gone, checkpoint, .. } = installed;
        self.remove_files(&gone);
        if let Some(path) = checkpoint {
            let _removed = self.log().home().0.remove(&path);
        }
    }

    /// Returns the segments of a copy, each with the number of the history segment that it becomes.
    fn sources(
        &self,
        copy: &ShardCopy,
        manifest: &Manifest,
    ) -> Result<Vec<reseed::Source>, StorageError> {
        let resume = &manifest.resume;
        let named = resume.sealed.iter().copied().chain([(resume.segment, resume.position)]);
        let mut sources = Vec::new();
        for (number, len) in named {
            let (file, path) = copy.part(&any_file_name(resume.log_id, number))?;
            let source = reseed::Source::open((file, path), (number, len), manifest, || {
                self.next_history.fetch_add(1, Ordering::Relaxed)
            })?;
            sources.extend(source);
        }
        Ok(sources)
    }
}
