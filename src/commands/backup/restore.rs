//! `backup restore`: a backup becomes a data directory of a cluster of its own.
//!
//! The file is read twice: once to check all of it, before anything is written; once to write. The directory
//! is made beside its place and gets its name when it is whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    archive::{self, Archive, Fault},
    inspect::{checked, failure},
};
use crate::commands::{
    failure::{Failure, Result},
    output::{Object, readable_size},
    session::Session,
};
use crate::storage::{
    self,
    clock::{OsRng, SystemClock},
    dir::{ClusterId, DataDir, IDENTITY, Kind, Wanted},
    disk::{Disk as _, RealDisk},
};

/// Arguments of `backup restore`.
#[derive(Debug, clap::Args)]
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

pub(super) fn run(session: &mut Session, args: &RestoreArgs) -> Result {
    session.output.refuse_special_formats()?;
    if args.file.as_os_str() == "-" {
        let failure = Failure::usage("backup restore: standard input cannot be read twice");
        return Err(failure.hint("save it to a FILE first").into());
    }
    let dir = &args.data_dir;
    refuse_used(dir)?;
    let archive = checked(&args.file)?;
    let old = cluster_id(&archive)
        .ok_or_else(|| failure(&args.file, Fault::Damaged("no cluster id".to_owned())))?;
    let new = if args.dry_run { None } else { Some(restore(args, dir, old)?) };
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
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                let message =
                    format!("refusing to restore into {}: it is not empty", dir.display());
                let hint = "name a directory that does not exist";
                Err(Failure::not_confirmed(message).hint(hint).into())
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io(format_args!("read {}", dir.display()), &error).into()),
    }
}

/// Makes the directory; returns the id of its cluster.
fn restore(args: &RestoreArgs, dir: &Path, old: [u8; 16]) -> Result<ClusterId> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |what: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Failure::io(format_args!("{what} {path}"), &error)
    };
    let making = tempfile::Builder::new()
        .prefix(".prkdb-restore-")
        .tempdir_in(parent)
        .map_err(failed("create a directory in", parent))?;
    let place = making.path().join("data");
    let wanted = Wanted { kind: Kind::Node, node_id: args.node_id, cluster_id: None };
    let mut rng = OsRng::new().map_err(|error| Failure::io("draw random numbers", &error))?;
    let opened = DataDir::open(&RealDisk, &place, &wanted, &SystemClock::default(), &mut rng);
    let data = opened.map_err(|error| Failure::of(error.code(), error.to_string()))?;
    let new = data.identity().cluster_id;
    extract(&args.file, &place, (old, new.0))?;
    drop(data);
    // An empty directory of that name gives way.
    RealDisk.rename(&place, dir).map_err(failed("rename to", dir))?;
    RealDisk.sync_dir(parent).map_err(failed("sync", parent))?;
    Ok(new)
}

fn extract(file: &Path, place: &Path, clusters: ([u8; 16], [u8; 16])) -> Result {
    let input = File::open(file)
        .map_err(|error| Failure::io(format_args!("open {}", file.display()), &error))?;
    let mut shards = Vec::new();
    let mut wrong: Option<storage::StorageError> = None;
    let read = archive::read(input, |shard, name, content| {
        let folder = place.join(format!("shard-{shard:010}"));
        if !shards.contains(&shard) {
            RealDisk.create_dir(&folder)?;
            shards.push(shard);
        }
        let path = folder.join(name);
        let mut out = File::options().write(true).create_new(true).open(&path)?;
        io::copy(content, &mut out)?;
        out.sync_all()?;
        if let Err(error) = storage::adopt(&RealDisk, &path, shard, clusters) {
            wrong.get_or_insert(error);
        }
        Ok(())
    });
    read.map_err(|fault| failure(file, fault))?;
    if let Some(error) = wrong {
        return Err(Failure::of(error.code(), format!("backup {}: {error}", file.display())).into());
    }
    let sync = |path: &Path| {
        RealDisk
            .sync_dir(path)
            .map_err(|error| Failure::io(format_args!("sync {}", path.display()), &error))
    };
    for shard in shards {
        sync(&place.join(format!("shard-{shard:010}")))?;
    }
    sync(place)?;
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
