//! Reading a data directory as a start would, without changing anything.
//!
//! Identity and lock are looked at, and every log is judged and none settled.

use std::{path::Path, sync::Arc};

use super::{Config, NodeError, boot};
use crate::storage::{
    Shard,
    clock::{Clock as _, SystemClock},
    dir::{DataDir, DirError, Holder},
    disk::{Disk as _, RealDisk},
};

/// What a check found where nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is no data yet.
    New,
    /// Every log was read.
    Sound,
    /// A running node uses the directory; its logs were not read.
    InUse(Holder),
}

/// Checks configuration and data directory.
///
/// # Errors
/// Those that a start would end with, but for a directory in use.
pub fn check(config: &Config) -> Result<Checked, NodeError> {
    config.check()?;
    let parent = config.data_dir.parent().unwrap_or(Path::new("."));
    if config.creates_parent && !RealDisk.exists(parent).unwrap_or(true) {
        return Ok(Checked::New);
    }
    let identity = match DataDir::inspect(&RealDisk, &config.data_dir, &boot::wanted(config)) {
        Ok(None) => return Ok(Checked::New),
        Ok(Some(identity)) => identity,
        Err(DirError::Locked { holder, .. }) => return Ok(Checked::InUse(holder)),
        Err(error) => return Err(error.into()),
    };
    let now_ms = SystemClock::new().wall_ms();
    for number in boot::existing_shards(&config.data_dir)? {
        let dir = boot::shard_dir(&config.data_dir, number);
        let options = boot::shard_options(config, identity.cluster_id.0, number);
        Shard::judge(Arc::new(RealDisk), &dir, &options, &mut boot::random(&dir)?, now_ms)
            .map_err(|source| NodeError::Shard { shard: number, source })?;
    }
    Ok(Checked::Sound)
}
