//! `prkdb doctor`: what of this machine and directory would keep a node from running well.
//!
//! Looks at what is local and changes nothing: the file that the disk is probed with never has a name.
//! Each check is one row: what it found, and what helps.

use std::{
    fmt::Display,
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use prkdb_types::ErrorCode;
use rustix::process::{Resource, geteuid, getrlimit};

use crate::{
    commands::{
        exit,
        failure::{Failure, Result, Stop, reason},
        output::{Cell, Column, Kind, Listing, readable_size},
        serve,
        session::Session,
    },
    storage::{
        clock::{Clock as _, SystemClock},
        dir::{BALLAST_BYTES, DataDir, OfflineDir, Use},
        disk::{Disk as _, ReadOnlyDisk, RealDisk},
    },
};

const EXAMPLES: &str = "\
Examples:
  prkdb doctor
  prkdb doctor --data-dir /var/lib/prkdb -o json";

const CHECKS: Listing = Listing {
    schema: "prkdb.doctor/1",
    columns: &[
        Column::new("CHECK", "check", Kind::Text),
        Column::new("STATUS", "status", Kind::Text),
        Column::new("FOUND", "found", Kind::Text),
        Column::new("HINT", "hint", Kind::Text),
    ],
    empty: "(no checks)",
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Data directory, used or not; without it, what concerns a directory is left out
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
}

/// The least room that is no reason to worry.
const FREE_BYTES: u64 = 1 << 30;
/// Files without which no node starts, and those that it wants with all connections.
const FILES_MIN: u64 = 256;
const FILES_WANTED: u64 = 1280;
/// What Linux allows unless it is told otherwise; every sealed segment that is read is a map.
const MAPS_WANTED: u64 = 65_530;
/// How often the probe writes and syncs, how much, and the median above which it warns.
const PROBES: usize = 16;
const PROBE_BYTES: usize = 4096;
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// The file of a node where no other is named.
const SERVER_FILE: &str = "/etc/prkdb/server.toml";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Skip,
    Warn,
    Fail,
    /// As `Fail`; what is stored is damaged.
    Corrupt,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skip => "SKIP",
            Self::Warn => "WARN",
            Self::Fail | Self::Corrupt => "FAIL",
        }
    }
}

struct Check {
    name: &'static str,
    status: Status,
    found: String,
    hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { name, status, found: found.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What cannot be looked at says nothing about the node.
    fn unknown(name: &'static str, why: impl Display) -> Self {
        Self::new(name, Status::Skip, why.to_string())
    }

    /// An error that a start would end with.
    fn failed(name: &'static str, failure: &Failure) -> Self {
        let is_corrupt = failure.code() == ErrorCode::Corrupt.name();
        let status = if is_corrupt { Status::Corrupt } else { Status::Fail };
        Self { hint: failure.hint_text(), ..Self::new(name, status, failure.message()) }
    }

    fn row(&self) -> Vec<Cell> {
        vec![
            Cell::from(self.name),
            Cell::from(self.status.name()),
            Cell::Text(self.found.clone()),
            self.hint.clone().map_or(Cell::Absent, Cell::Text),
        ]
    }
}

/// Runs `doctor`.
///
/// # Errors
/// 11 where a check warns, 10 where one fails, 12 where what is stored is damaged.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.begin(CHECKS)?;
    let mut checks = vec![config(), files(), maps(), huge_pages()];
    match args.data_dir.as_deref() {
        Some(dir) => checks.extend(directory(dir)),
        None => {
            checks.push(Check::unknown("data-dir", "none is named").hint("pass --data-dir DIR"));
        }
    }
    let rows = checks.iter().map(Check::row).collect();
    session.output.list(CHECKS, rows, &session.talk)?;
    let has = |status| checks.iter().any(|check| check.status == status);
    let code = match () {
        () if has(Status::Corrupt) => ErrorCode::Corrupt.exit_code(),
        () if has(Status::Fail) => exit::UNHEALTHY,
        () if has(Status::Warn) => exit::DEGRADED,
        () => return Ok(()),
    };
    session.output.flush()?;
    Err(Stop::Quiet(code))
}

/// The configuration of a node, where a file is named or there is one. That of this command was read
/// before it came here.
fn config() -> Check {
    let named = serve::named_config_file();
    let file = named.clone().unwrap_or_else(|| SERVER_FILE.into());
    if named.is_none() && !file.exists() {
        return Check::unknown("server-config", format!("there is no {SERVER_FILE}"));
    }
    match serve::check_file(&file) {
        Ok(()) => Check::new("server-config", Status::Ok, format!("{} is read", file.display())),
        Err(Stop::Failed(failure)) => Check::failed("server-config", &failure),
        Err(Stop::Quiet(_)) => Check::unknown("server-config", "not read"),
    }
}

fn files() -> Check {
    // A node raises its own limit as far as it may.
    let Some(found) = getrlimit(Resource::Nofile).maximum else {
        return Check::new("open-files", Status::Ok, "no limit");
    };
    let status = match found {
        ..FILES_MIN => Status::Fail,
        FILES_MIN..FILES_WANTED => Status::Warn,
        _ => return Check::new("open-files", Status::Ok, format!("up to {found}")),
    };
    Check::new("open-files", status, format!("up to {found}, a node wants {FILES_WANTED}"))
        .hint("ulimit -n 65536, or LimitNOFILE= of the service")
}

fn maps() -> Check {
    const NAME: &str = "max-map-count";
    let path = "/proc/sys/vm/max_map_count";
    match fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Check::unknown(NAME, format!("{path} cannot be read")),
        Some(count) if count < MAPS_WANTED => {
            Check::new(NAME, Status::Warn, format!("{count}, below {MAPS_WANTED}"))
                .hint(format!("sysctl vm.max_map_count={MAPS_WANTED}"))
        }
        Some(count) => Check::new(NAME, Status::Ok, count.to_string()),
    }
}

fn huge_pages() -> Check {
    const NAME: &str = "huge-pages";
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Ok(text) = fs::read_to_string(path) else {
        return Check::unknown(NAME, format!("{path} cannot be read"));
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or_default();
    if chosen == "always" {
        return Check::new(NAME, Status::Warn, "transparent huge pages: always")
            .hint(format!("echo madvise > {path}: memory is then given back sooner"));
    }
    Check::new(NAME, Status::Ok, format!("transparent huge pages: {chosen}"))
}

/// Everything about the directory: what is there, who may enter, who uses it, room, and the disk.
fn directory(dir: &Path) -> Vec<Check> {
    const NAME: &str = "data-dir";
    let metadata = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let check = match tempfile::tempfile_in(parent) {
                Ok(_) => Check::new(NAME, Status::Ok, "not there yet: the first start creates it"),
                Err(error) => {
                    let found = format!("not there, and cannot be created: {}", reason(&error));
                    let hint = format!("create {} for the user of the node", dir.display());
                    Check::new(NAME, Status::Fail, found).hint(hint)
                }
            };
            return vec![check, space(parent), sync(parent)];
        }
        Err(error) => return vec![unreadable(NAME, dir, &error)],
        Ok(metadata) if !metadata.is_dir() => {
            return vec![Check::new(
                NAME,
                Status::Fail,
                format!("{} is no directory", dir.display()),
            )];
        }
        Ok(metadata) => metadata,
    };
    vec![identity(dir), permissions(dir, &metadata), lock(dir), space(dir), sync(dir)]
}

fn unreadable(name: &'static str, path: &Path, error: &io::Error) -> Check {
    Check::new(name, Status::Fail, format!("{}: {}", path.display(), reason(error)))
}

fn open(dir: &Path) -> std::result::Result<OfflineDir, Failure> {
    let disk = ReadOnlyDisk::new(std::sync::Arc::new(RealDisk));
    OfflineDir::open(&disk, dir, Use::ReadLive)
        .map_err(|error| Failure::of(error.code(), error.to_string()))
}

fn identity(dir: &Path) -> Check {
    const NAME: &str = "data-dir";
    if let Ok(None) = DataDir::first_name(&RealDisk, dir) {
        return Check::new(NAME, Status::Ok, "empty: the first start fills it");
    }
    match open(dir) {
        Ok(open) => {
            let identity = open.identity();
            let found = format!(
                "{} {} of cluster {}",
                identity.kind, identity.node_id, identity.cluster_id
            );
            Check::new(NAME, Status::Ok, found)
        }
        Err(failure) => Check::failed(NAME, &failure),
    }
}

fn permissions(dir: &Path, metadata: &fs::Metadata) -> Check {
    const NAME: &str = "permissions";
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let found = format!("mode {mode:03o}, owner {owner}");
    if owner != geteuid().as_raw() && !geteuid().is_root() {
        return Check::new(
            NAME,
            Status::Fail,
            format!("{found}, this is user {}", geteuid().as_raw()),
        )
        .hint(format!("run it as the owner, or chown {}", dir.display()));
    }
    if mode & 0o700 != 0o700 {
        return Check::new(NAME, Status::Fail, found).hint(format!("chmod 700 {}", dir.display()));
    }
    if mode & 0o077 != 0 {
        return Check::new(NAME, Status::Warn, format!("{found}: open to others"))
            .hint(format!("chmod 700 {}; the next start does it too", dir.display()));
    }
    Check::new(NAME, Status::Ok, found)
}

fn lock(dir: &Path) -> Check {
    const NAME: &str = "lock";
    if let Ok(None) = DataDir::first_name(&RealDisk, dir) {
        return Check::unknown(NAME, "there is no data directory");
    }
    let Ok(open) = open(dir) else { return Check::unknown(NAME, "not looked at") };
    let Some(holder) = open.holder() else {
        return Check::new(NAME, Status::Ok, "free: no node runs on the directory");
    };
    let pid = holder.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    if holder.is_ending() {
        return Check::new(NAME, Status::Warn, format!("held by process {pid}, which is ending"))
            .hint("wait until it is gone");
    }
    Check::new(NAME, Status::Ok, format!("held by process {pid}, which runs"))
}

fn space(dir: &Path) -> Check {
    const NAME: &str = "free-space";
    let space = match RealDisk.space(dir) {
        Ok(space) => space,
        Err(error) => return unreadable(NAME, dir, &error),
    };
    let found = format!("{} of {}", readable_size(space.free), readable_size(space.total));
    let status = match space.free {
        ..BALLAST_BYTES => Status::Fail,
        BALLAST_BYTES..FREE_BYTES => Status::Warn,
        _ => return Check::new(NAME, Status::Ok, found),
    };
    Check::new(NAME, status, found).hint("writes are refused when the disk is full: make room")
}

/// Writes and syncs as a log does, in a file that has no name and is gone when it is closed.
fn sync(dir: &Path) -> Check {
    const NAME: &str = "fsync";
    let mut times = match probe(dir) {
        Ok(times) => times,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Check::unknown(NAME, format!("{} cannot be written to", dir.display()));
        }
        Err(error) => return unreadable(NAME, dir, &error),
    };
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let found = format!("median {median:.1?}, worst {worst:.1?} of {PROBES}");
    if median > SYNC_SLOW {
        return Check::new(NAME, Status::Warn, found)
            .hint("every acknowledgement waits for a sync: use a faster disk");
    }
    Check::new(NAME, Status::Ok, found)
}

fn probe(dir: &Path) -> io::Result<Vec<Duration>> {
    let file = tempfile::tempfile_in(dir)?;
    let clock = SystemClock::new();
    let block = [0x5a; PROBE_BYTES];
    let mut times = Vec::with_capacity(PROBES);
    for number in 0..PROBES {
        file.write_all_at(&block, (number * PROBE_BYTES) as u64)?;
        let before = clock.monotonic();
        file.sync_data()?;
        times.push(clock.monotonic().saturating_sub(before));
    }
    Ok(times)
}
