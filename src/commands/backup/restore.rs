//! `backup restore`: a backup becomes a data directory of a cluster of its own.
//!
//! The file is read twice: once to check all of it, before anything is written; once to write. The directory
//! is made beside its place and gets its name when it is whole. Where there is an empty directory already, which
//! may be a mount or belong to somebody, it is made in there, and what says that it is one comes last.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    archive::{self, Archive, Fault},
    inspect::{checked_in, failure, open},
};
use crate::commands::{
    failure::{Failure, Result},
    output::{Object, readable_size},
    session::Session,
};
use crate::storage::{
    self,
    clock::{OsRng, SystemClock},
    dir::{ClusterId, DataDir, IDENTITY, Kind, LOCK, Wanted},
    disk::{Disk as _, RealDisk},
};
use prkdb_types::ErrorCode;

/// So much is copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Arguments of `backup restore`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb backup restore nightly.backup --data-dir ./restored\n  \
    prkdb backup restore nightly.backup --data-dir ./restored --node-id 2 --dry-run"
)]
pub(super) struct RestoreArgs {
    /// File to read
    file: PathBuf,
    /// Directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR", env = "PRKDB_DATA_DIR")]
    data_dir: PathBuf,
    /// Id of the node that will use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Say in a script what happens anyway: the result is a cluster of its own
    #[arg(long)]
    new_cluster_id: bool,
    /// Check everything and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Dropped, it says that nobody waits for the work any more.
#[derive(Default)]
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file that cannot be read further once the work was stopped.
struct Stoppable(File, Arc<AtomicBool>);

impl Read for Stoppable {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        self.0.read(bytes)
    }
}

/// Runs it on a thread that blocks. Dropped, it ends soon and leaves nothing behind.
pub(super) async fn run(session: &mut Session, args: &RestoreArgs) -> Result {
    session.output.refuse_special_formats()?;
    if args.file.as_os_str() == "-" {
        let failure = Failure::usage("backup restore: standard input cannot be read twice");
        return Err(failure.hint("save it to a FILE first").into());
    }
    let guard = Guard::default();
    let (arguments, is_stopped) = (args.clone(), Arc::clone(&guard.0));
    let work = tokio::task::spawn_blocking(move || -> Result<(Archive, Option<ClusterId>)> {
        let dir = &arguments.data_dir;
        refuse_used(dir)?;
        let input = Stoppable(open(&arguments.file)?, Arc::clone(&is_stopped));
        let archive = checked_in(&arguments.file, input)?;
        let old = cluster_id(&archive)
            .ok_or_else(|| failure(&arguments.file, Fault::Damaged("no cluster id".to_owned())))?;
        let new = if arguments.dry_run {
            None
        } else {
            Some(restore(&arguments, dir, old, &is_stopped)?)
        };
        Ok((archive, new))
    });
    let internal = |error| Failure::of(ErrorCode::Internal, format!("backup restore: {error}"));
    let (archive, new) = work.await.map_err(internal)??;
    let bytes = archive.sums.iter().map(|sum| sum.bytes).sum();
    report(session, args, &archive, new, bytes)
}

/// Returns whether a directory is one of ours: a backup in it would be lost with it.
pub(super) fn is_data_directory(dir: &Path) -> bool {
    dir.join(IDENTITY).exists()
}

fn cluster_id(archive: &Archive) -> Option<[u8; 16]> {
    hex::decode(&archive.about.cluster_id).ok()?.try_into().ok()
}

/// Refuses a directory that holds anything.
fn refuse_used(dir: &Path) -> Result {
    let found = DataDir::first_name(&RealDisk, dir)
        .map_err(|error| Failure::of(error.code(), error.to_string()))?;
    let Some(name) = found else { return Ok(()) };
    let (dir, name) = (dir.display(), name.display());
    let message = format!("refusing to restore into {dir}: it is not empty, it holds {name}");
    let hint = "name a directory that does not exist";
    Err(Failure::not_confirmed(message).hint(hint).into())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::io(format_args!("{what} {}", path.display()), error)
}

/// Makes the directory; returns the id of its cluster.
fn restore(
    args: &RestoreArgs,
    dir: &Path,
    old: [u8; 16],
    is_stopped: &Arc<AtomicBool>,
) -> Result<ClusterId> {
    let is_there = fs::metadata(dir).is_ok();
    let reserved = is_there.then(|| DataDir::reserve(&RealDisk, dir)).transpose();
    let _reserved = reserved.map_err(|error| Failure::of(error.code(), error.to_string()))?;
    if is_there {
        // It was looked at before the whole file was checked.
        refuse_used(dir)?;
    }
    let parent = match dir.parent() {
        _ if is_there => dir,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let making = tempfile::Builder::new()
        .prefix(".prkdb-restore-")
        .tempdir_in(parent)
        .map_err(|error| failed("create a directory in", parent, &error))?;
    let place = making.path().join("data");
    let wanted = Wanted { kind: Kind::Node, node_id: args.node_id, cluster_id: None };
    let mut rng = OsRng::new().map_err(|error| Failure::io("draw random numbers", &error))?;
    let opened = DataDir::open(&RealDisk, &place, &wanted, &SystemClock::default(), &mut rng);
    let data = opened.map_err(|error| Failure::of(error.code(), error.to_string()))?;
    let new = data.identity().cluster_id;
    extract(&args.file, &place, (old, new.0), is_stopped)?;
    drop(data);
    if is_stopped.load(Ordering::Relaxed) {
        return Err(Failure::io("restore", &io::Error::other("interrupted")).into());
    }
    if is_there {
        move_into(&place, dir)?;
    } else {
        RealDisk.rename(&place, dir).map_err(|error| failed("rename to", dir, &error))?;
    }
    RealDisk.sync_dir(parent).map_err(|error| failed("sync", parent, &error))?;
    Ok(new)
}

/// Moves everything up, the identity last: without it no node takes what is there for its own. What was moved
/// before something failed is moved back.
fn move_into(place: &Path, dir: &Path) -> Result {
    let mut names = RealDisk.list(place).map_err(|error| failed("read", place, &error))?;
    names.retain(|name| name != IDENTITY && name != LOCK);
    names.push(IDENTITY.into());
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    for name in names {
        let (from, to) = (place.join(&name), dir.join(&name));
        let synced = if name == IDENTITY { RealDisk.sync_dir(dir) } else { Ok(()) };
        let done = synced.map_err(|error| failed("sync", dir, &error)).and_then(|()| {
            RealDisk.rename(&from, &to).map_err(|error| failed("rename to", &to, &error))
        });
        if let Err(failure) = done {
            for (from, to) in moved.iter().rev() {
                if let Err(error) = RealDisk.rename(to, from) {
                    return Err(failed("after a failure: move back", to, &error).into());
                }
            }
            return Err(failure.into());
        }
        moved.push((from, to));
    }
    Ok(())
}

fn extract(
    file: &Path,
    place: &Path,
    clusters: ([u8; 16], [u8; 16]),
    is_stopped: &Arc<AtomicBool>,
) -> Result {
    let input = Stoppable(open(file)?, Arc::clone(is_stopped));
    let mut shards = Vec::new();
    let mut wrong: Option<storage::StorageError> = None;
    // What cannot be written is no fault of the backup.
    let mut unwritten: Option<Failure> = None;
    let read = archive::read(input, |shard, name, content| {
        let folder = place.join(format!("shard-{shard:010}"));
        let path = folder.join(name);
        let mut written = |at: &Path, result: io::Result<()>| {
            result.inspect_err(|error| unwritten = Some(failed("write", at, error)))
        };
        if !shards.contains(&shard) {
            written(&folder, RealDisk.create_dir(&folder))?;
            shards.push(shard);
        }
        let mut out = None;
        let opened = File::options().write(true).create_new(true).open(&path);
        written(&path, opened.map(|file| out = Some(file)))?;
        let Some(mut out) = out else { return Ok(()) };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let len = content.read(&mut piece)?;
            if len == 0 {
                break;
            }
            written(&path, out.write_all(piece.get(..len).unwrap_or_default()))?;
        }
        written(&path, out.sync_all())?;
        if let Err(error) = storage::adopt(&RealDisk, &path, shard, clusters) {
            wrong.get_or_insert(error);
        }
        Ok(())
    });
    if let Some(failure) = unwritten {
        return Err(failure.into());
    }
    read.map_err(|fault| failure(file, fault))?;
    if let Some(error) = wrong {
        return Err(Failure::of(error.code(), format!("backup {}: {error}", file.display())).into());
    }
    for shard in shards {
        let folder = place.join(format!("shard-{shard:010}"));
        RealDisk.sync_dir(&folder).map_err(|error| failed("sync", &folder, &error))?;
    }
    RealDisk.sync_dir(place).map_err(|error| failed("sync", place, &error))?;
    Ok(())
}

fn report(
    session: &mut Session,
    args: &RestoreArgs,
    archive: &Archive,
    new: Option<ClusterId>,
    bytes: u64,
) -> Result {
    let dir = args.data_dir.display();
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.backup-restore/1");
        document
            .add("data_dir", dir.to_string())
            .add("node_id", args.node_id)
            .add("from_cluster_id", archive.about.cluster_id.as_str())
            .add("cluster_id", new.map(|id| id.to_string()))
            .add("bytes", bytes)
            .add("dry_run", args.dry_run);
        return session.output.document(&document);
    }
    let size = readable_size(bytes);
    match new {
        None => session.output.confirmation(&format!("would restore {size} to {dir}")),
        Some(id) => session.output.confirmation(&format!(
            "restored {size} to {dir} as cluster {id}, node {}",
            args.node_id
        )),
    }
}
