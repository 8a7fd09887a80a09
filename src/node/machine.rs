//! What a node asks of the machine before it starts: files, clock, user, file system.
//!
//! Too few files end the start; the rest is told in the log and left to the operator.

use std::path::Path;

use rustix::{
    fs::statfs,
    process::{Resource, geteuid, getrlimit, setrlimit},
};
use tracing::{info, warn};

use super::{Config, NodeError, config::WINDOW_BYTES};
use crate::storage::clock::Clock;

/// Fewer files than this and no node starts: segments, sockets, runtimes.
const FILES_MIN: u64 = 256;
/// No machine that runs this was set up before: 1 January 2020.
const CLOCK_MS_MIN: i64 = 1_577_836_800_000;

/// Checks limits, clock and user, and tells what the node will do.
///
/// # Errors
/// [`NodeError::FewFiles`].
pub(super) fn check(config: &Config, clock: &dyn Clock) -> Result<(), NodeError> {
    let needed = FILES_MIN.saturating_add(config.max_connections as u64);
    let limit = raise_files();
    if limit < FILES_MIN {
        return Err(NodeError::FewFiles { limit, needed: FILES_MIN });
    }
    if limit < needed {
        warn!(limit, needed, "the limit of open files is below what all connections need");
    }
    let now_ms = clock.wall_ms();
    if is_clock_wrong(now_ms) {
        warn!(now_ms, "the clock of the machine stands before 2020");
    }
    if geteuid().is_root() && !is_container() {
        warn!("running as root: a user of its own is safer");
    }
    info!(
        node = config.node_id,
        listen = %config.listen,
        http = ?config.http,
        data_dir = %config.data_dir.display(),
        segment_bytes = config.segment_bytes,
        max_key = config.max_key,
        max_value = config.max_value,
        max_message = config.max_message,
        max_connections = config.max_connections,
        window_bytes_max = u64::from(WINDOW_BYTES).saturating_mul(config.max_connections as u64),
        index_memory = config.index_memory,
        "configuration"
    );
    Ok(())
}

/// Raises the soft limit of open files as far as allowed, and returns it: every segment of the log is a
/// file, beside every connection.
pub(crate) fn raise_files() -> u64 {
    let mut limits = getrlimit(Resource::Nofile);
    let (current, allowed) = (limits.current, limits.maximum);
    limits.current = allowed;
    let reached = if setrlimit(Resource::Nofile, limits).is_ok() { allowed } else { current };
    // No limit at all is `None`.
    reached.unwrap_or(u64::MAX)
}

fn is_clock_wrong(now_ms: i64) -> bool {
    now_ms < CLOCK_MS_MIN
}

fn is_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
        || std::process::id() == 1
}

/// Warns of a file system that does not keep data as a local disk does.
pub(super) fn check_file_system(dir: &Path) {
    let Some(name) = statfs(dir).ok().and_then(|found| unfit(found.f_type)) else { return };
    warn!(dir = %dir.display(), kind = name, "the data directory is not on a local disk");
}

/// Returns the name of a file system that loses data with the machine, or syncs over a network.
fn unfit(kind: impl TryInto<i64>) -> Option<&'static str> {
    match kind.try_into().ok()? & 0xffff_ffff {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        0x794c_7630 => Some("overlay"),
        0x6969 => Some("nfs"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("smb"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_2020_is_wrong() {
        assert!(is_clock_wrong(0) && is_clock_wrong(-1) && is_clock_wrong(CLOCK_MS_MIN - 1));
        assert!(!is_clock_wrong(CLOCK_MS_MIN));
    }

    #[test]
    fn file_systems_that_are_no_disk_have_a_name() {
        assert_eq!(unfit(0x0102_1994_i64), Some("tmpfs"));
        assert_eq!(unfit(0x6969_i64), Some("nfs"));
        // ext4
        assert_eq!(unfit(0xef53_i64), None);
    }
}
