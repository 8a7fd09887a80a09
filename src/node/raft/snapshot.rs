//! Snapshots, as openraft sees them: the files of the shard's last checkpoint.
//!
//! A checkpoint is what the log below the purge mark is replaced by. Where openraft insists on one, as at a
//! start with a purge mark and a checkpoint that was damaged, it is taken. One of another replica is verified,
//! loaded and synced before it is installed, which is one short step.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use openraft::{
    RaftSnapshotBuilder, Snapshot, StoredMembership,
    type_config::alias::{SnapshotMetaOf, SnapshotOf},
};

use super::types::{TypeConfig, membership_from_bytes, to_log_id};
use crate::{
    driver::{Checkpointer, Flusher},
    storage::{
        Install, PreparedSnapshot, Shard, ShardCopy, SnapshotVersion, StorageError,
        disk::is_out_of_files, log::header::Lsn,
    },
};

/// How often a snapshot is tried where the process may open no more files, and how long after each other.
const FILES_TRIES: u32 = 300;
const FILES_PAUSE: Duration = Duration::from_millis(100);

/// A snapshot as files that are held, or made ready to be installed.
#[derive(Debug)]
pub(super) enum SnapshotData {
    /// The files of a shard at its last checkpoint.
    Taken(ShardCopy),
    /// One that waits for its turn on another replica: verified, loaded, synced.
    Prepared(Arc<SnapshotVersion>, Box<PreparedSnapshot>),
}

impl SnapshotData {
    fn version(&self) -> &SnapshotVersion {
        match self {
            Self::Taken(copy) => &copy.version,
            Self::Prepared(version, _) => version,
        }
    }
}

/// Builds the snapshot that the shard's last checkpoint is, or takes one.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) shard: Arc<Shard>,
    pub(super) checkpointer: Checkpointer,
    /// It must have everything that is applied.
    pub(super) is_forced: bool,
}

/// Returns the last checkpoint with its files; `None` where there is none.
///
/// # Errors
/// For files that cannot be opened and a membership that cannot be read.
pub(super) async fn last(
    shard: &Shard,
    checkpointer: &Checkpointer,
) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
    // One that is damaged is none: the log was read whole.
    if shard.last_checkpoint().is_none() {
        return Ok(None);
    }
    let mut tries_left = FILES_TRIES;
    let copy = loop {
        // Its files are opened on the checkpoints' thread: consensus waits for no disk.
        match checkpointer.run(Shard::copy).await.map_err(io::Error::other)? {
            // Connections come and go, and consensus ends with an error.
            Err(StorageError::Io { source, .. }) if is_out_of_files(&source) && tries_left > 0 => {
                tries_left -= 1;
                tokio::time::sleep(FILES_PAUSE).await;
            }
            copied => break copied.map_err(io::Error::other)?,
        }
    };
    let Some(copy) = copy else { return Ok(None) };
    let meta = meta(&copy.version)?;
    Ok(Some(Snapshot { meta, snapshot: SnapshotData::Taken(copy) }))
}

fn meta(version: &SnapshotVersion) -> Result<SnapshotMetaOf<TypeConfig>, io::Error> {
    let last_membership = match &version.membership {
        Some((id, bytes)) => {
            StoredMembership::new(Some(to_log_id(*id)), membership_from_bytes(bytes)?)
        }
        None => StoredMembership::default(),
    };
    let last_log_id = Some(to_log_id(version.applied));
    Ok(SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership })
}

impl RaftSnapshotBuilder<TypeConfig> for Checkpoints {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        if self.is_forced {
            let asked = self.checkpointer.ask().await;
            asked.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        let last = last(&self.shard, &self.checkpointer).await?;
        last.ok_or_else(|| io::Error::other("the shard has no checkpoint yet"))
    }
}

/// Installs snapshots of other replicas.
#[derive(Debug)]
pub(super) struct Installer {
    pub(super) shard: Arc<Shard>,
    pub(super) flusher: Flusher,
    pub(super) checkpointer: Checkpointer,
}

impl Installer {
    /// Verifies a snapshot, loads it and makes it durable, beside everything else; does nothing for one with
    /// which that was done.
    ///
    /// # Errors
    /// For one that is damaged or does not fit: nothing was changed then.
    ///
    /// Cancel safety: it is given up, and nothing was changed.
    pub(super) async fn prepare(&self, data: SnapshotData) -> Result<SnapshotData, io::Error> {
        let copy = match data {
            SnapshotData::Taken(copy) => copy,
            prepared @ SnapshotData::Prepared(..) => return Ok(prepared),
        };
        // The clone counts a reference.
        let version = Arc::clone(&copy.version);
        let waits = Arc::new(());
        let somebody = Arc::downgrade(&waits);
        let prepared = self.run(move |shard| {
            shard.prepare_snapshot(&copy, &mut |_| match somebody.strong_count() {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        });
        let prepared = prepared.await?;
        drop(waits);
        Ok(SnapshotData::Prepared(version, Box::new(prepared)))
    }

    /// Makes the shard what a snapshot says.
    ///
    /// # Errors
    /// For one that is not what is said of it, or does not fit: nothing was changed then. And those of the
    /// disk.
    pub(super) async fn install(
        &self,
        said: &SnapshotMetaOf<TypeConfig>,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let is = meta(data.version())?;
        if is != *said {
            let message = format!("the snapshot is that of {is:?}, not of {said:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut prepared = match self.prepare(data).await? {
            SnapshotData::Prepared(_, prepared) => prepared,
            SnapshotData::Taken(_) => return Err(io::Error::other("it was not prepared")),
        };
        loop {
            let mark = self.shard.mark().map_err(io::Error::other)?;
            self.synced(mark).await?;
            match self.run(move |shard| shard.install(*prepared, mark)).await? {
                Install::Done(installed) => {
                    // Nobody waits for it.
                    drop(self.checkpointer.run(move |shard| shard.clear_away(*installed)));
                    return Ok(());
                }
                Install::NotYet(again) => prepared = again,
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shard) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, io::Error> {
        let done = self.checkpointer.run(work).await;
        done.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn synced(&self, lsn: Lsn) -> Result<(), io::Error> {
        self.flusher.synced(lsn).await.map_err(|_| io::Error::other("the log failed"))
    }
}
